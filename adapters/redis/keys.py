"""Every key that a queue or a store has in Redis: the one place that names them.

The braces in a key name its queue, or its namespace. They make no cluster usable, though a cluster takes them
for hash tags: a script that publishes into another queue, deletes a queue or writes a record as well has keys
of two slots. So a client refuses a server in cluster mode (``transport/on_connect.py``).
"""

from ...domain.queue import QueueKind
from .scripts import Script

_TYPES = (
    dict.fromkeys(("meta", "body", "state", "letter", "history", "result", "progress", "asked"), "hash")
    | dict.fromkeys(("run", "delay", "dead", "dead_expiry", "expiry"), "zset")
    | {"ended": "list", "wake": "stream", "rwake": "stream"}
)


class QueueKeys:
    """The keys of one queue."""

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace, self.queue = namespace, queue
        self._prefix = prefix = f"mtj:{{{namespace}/{queue}}}"
        self.meta = f"{prefix}:meta"
        """Hash: kind, layout, place (the last given, but on a fifo), deaths.

        Of those who wait for results, rwait and rsince: until when, and since when without a break, somebody
        does (ms). And asked, how many jobs are asked to be cancelled; and what ``protect_leases.lua`` sets:
        server (its run id), stand (until when no lease ends, ms). And dead_until: no dead letter is to be
        removed before (ms).
        """
        self.body = f"{prefix}:body"
        """Hash: id -> envelope, of every job that is live or dead."""
        self.state = f"{prefix}:state"
        """Hash: id -> packed record of a job that something happened to (``functions.lua``); and ballast."""
        self.ready = f"{prefix}:ready"
        """List of ids, head first; on a stack or priority queue a sorted set, by priority and place."""
        self.run = f"{prefix}:run"
        """Sorted set: id -> when its lease ends, ms; and ballast, which never ends (``declare.lua``)."""
        self.delay = f"{prefix}:delay"
        """Sorted set: id -> when it is due, ms."""
        self.dead = f"{prefix}:dead"
        """Sorted set: id -> the number of its death."""
        self.dead_expiry = f"{prefix}:dead-expiry"
        """Sorted set: id of a dead job that isn't kept for ever -> until when it is, ms."""
        self.letter = f"{prefix}:letter"
        """Hash: id of a dead job -> JSON [reason, error, died_ms]."""
        self.history = f"{prefix}:history"
        """Hash: id of a job that failed -> JSON [[attempt, error], …], the last 10."""
        self.result = f"{prefix}:result"
        """Hash: id -> when it expires (ms, a big-endian double) and the encoded output.

        Of a job that was cancelled, the time is negative, so that an earlier release takes it for expired.
        """
        self.expiry = f"{prefix}:expiry"
        """Sorted set: id of a result -> when it expires, ms."""
        self.ended = f"{prefix}:ended"
        """List of the ids that were acked last without a result, at most 10,000."""
        self.asked = f"{prefix}:asked"
        """Hash: id of a job in flight that is to be cancelled -> for how long to remember that (ms), and the
        token of its lease."""
        self.wake = f"{prefix}:wake"
        """Stream of the last wake-ups: a new one tells waiting consumers to ask again."""
        self.rwake = f"{prefix}:rwake"
        """Stream of the last wake-ups for those who wait for results: each has the ids of jobs that ended."""
        self.progress = f"{prefix}:progress"
        """Hash: id -> JSON [done, total], of jobs in flight that told how far they are. Expires."""
        self.deleted = f"mtj:{{{namespace}/}}:deleted"
        """Sorted set, one for the namespace: name of a queue -> when it was deleted, µs; the last 1,000."""

    def last(self, sender: str) -> str:
        """String: number|answer of the last request of one publisher, consumer or operation. Expires."""
        return f"{self._prefix}:last:{sender}"

    def interrupt(self, consumer: str) -> str:
        """Stream: an entry ends the wait of one consumer. Expires."""
        return f"{self._prefix}:interrupt:{consumer}"

    def of(self, script: Script, sender: str = "") -> list[str]:
        """The keys of a script, in its order; those of one with numbered requests depend on the sender."""
        return [self.last(sender) if name == "last" else getattr(self, name) for name in script.keys]

    @property
    def next(self) -> list[str]:
        """The keys of a queue to publish into, in the order of ``settle_publish_and_take.lua``."""
        return [
            self.meta,
            self.body,
            self.state,
            self.ready,
            self.delay,
            self.wake,
            self.result,
            self.expiry,
            self.history,
            self.dead,
            self.dead_expiry,
            self.letter,
            self.ended,
        ]

    def types(self, kind: QueueKind) -> dict[str, str]:
        """The type that Redis gives each key, by its name."""
        ready = "list" if kind is QueueKind.FIFO else "zset"
        return _TYPES | {"ready": ready}


class ResultKeys:
    """The keys of a store for the results of one queue, which is another broker's. All of them expire.

    Args:
        namespace: The store's.
        queue: What the broker's adapter calls the queue: with a namespace of its own, and a slash.
    """

    def __init__(self, namespace: str, queue: str) -> None:
        prefix = f"mtj:{{{namespace}/{queue}}}:kept"
        self.kept = prefix
        """Hash: id -> how the job ended, one letter, and the encoded output or the error."""
        self.expiry = f"{prefix}-until"
        """Sorted set: id -> until when its result is kept, ms."""
        self.wake = f"{prefix}-wake"
        """Stream of the last wake-ups for those who wait for results: each has the ids of jobs that ended."""
        self.all = [self.kept, self.expiry, self.wake]
        """Those of each script, in its order."""


class CoordinationKeys:
    """The keys of a namespace's coordination store; no queue has such, as none has an empty name."""

    def __init__(self, namespace: str) -> None:
        self._prefix = prefix = f"mtj:{{{namespace}/}}"
        self.records = f"{prefix}:records"
        """Hash: key -> version and when its time is over (µs; both big-endian doubles), and the value."""
        self.record_keys = f"{prefix}:record-keys"
        """Sorted set of the keys, all with score 0, so in their order."""
        self.record_ends = f"{prefix}:record-ends"
        """Sorted set: key of a record with a time -> when that is over, µs."""
        self.versions = f"{prefix}:versions"
        """String: the last version that was given."""
        self.lines = f"{prefix}:lines"
        """Sorted set: each line (see below) -> when those who wait or have a place end at the latest, µs.

        Expires.
        """

    def last(self, sender: str) -> str:
        """String: number|answer of the last request of one sender. Expires."""
        return f"{self._prefix}:last:{sender}"

    def places(self, key: str) -> list[str]:
        """The keys of the places that ``key`` limits. All expire.

        Sorted set: who waits in line -> by arrival. Sorted set: who waits or has a place -> until when, µs.
        Hash: who waits in line -> the watch that is told when it is next.
        """
        return [self.line(key), self.line_ends(key), f"{self._prefix}:line-watches:{key}"]

    def line(self, key: str) -> str:
        """The first of the keys of the places that ``key`` limits."""
        return f"{self._prefix}:line:{key}"

    def line_ends(self, key: str) -> str:
        """The second of them."""
        return f"{self._prefix}:line-ends:{key}"

    def key_of_line(self, line: str) -> str:
        """What is limited, by the name of who waits in line for it."""
        return line.removeprefix(self.line(""))

    def reports(self, token: str) -> str:
        """Stream: number of a watch of one store -> the line in which it is next. Expires."""
        return f"{self._prefix}:reports:{token}"

    def rate(self, key: str) -> str:
        """String: when the turn comes, µs, after those that were reserved. Expires then."""
        return f"{self._prefix}:rate:{key}"

    def of(self, script: Script, queue: QueueKeys | None = None) -> list[str]:
        """The keys of a script behind ``last``, in its order; those of a queue, if it has any, as well."""
        named = vars(self) if queue is None else vars(queue) | vars(self)
        return [named[name] for name in script.keys if name != "last"]
