"""Every key that a queue, or a store of results, has in Redis: the one place that names them.

All keys of a queue share one hash tag, so that a cluster keeps them in one slot and a script may touch them
together.
"""

from ...domain.queue import QueueKind
from .scripts import Script

_TYPES = (
    dict.fromkeys(("meta", "body", "state", "letter", "history", "result", "progress"), "hash")
    | dict.fromkeys(("run", "delay", "dead", "expiry"), "zset")
    | {"ended": "list", "wake": "stream", "rwake": "stream"}
)


class QueueKeys:
    """The keys of one queue."""

    def __init__(self, namespace: str, queue: str) -> None:
        self.namespace, self.queue = namespace, queue
        self._prefix = prefix = f"mtj:{{{namespace}/{queue}}}"
        self.meta = f"{prefix}:meta"
        """Hash: kind, layout, place (the last given, but on a fifo), deaths, rwait (until when, ms).

        And what ``protect_leases.lua`` sets: server (its run id), stand (until when no lease ends, ms).
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
        self.letter = f"{prefix}:letter"
        """Hash: id of a dead job -> JSON [reason, error, died_ms]."""
        self.history = f"{prefix}:history"
        """Hash: id of a job that failed -> JSON [[attempt, error], …], the last 10."""
        self.result = f"{prefix}:result"
        """Hash: id -> when it expires (ms, a big-endian double) and the encoded output."""
        self.expiry = f"{prefix}:expiry"
        """Sorted set: id of a result -> when it expires, ms."""
        self.ended = f"{prefix}:ended"
        """List of the ids that were acked last without a result, at most 10,000."""
        self.wake = f"{prefix}:wake"
        """Stream of the last wake-ups: a new one tells waiting consumers to ask again."""
        self.rwake = f"{prefix}:rwake"
        """Stream of the last wake-ups for those who wait for results: each has the ids of jobs that ended."""
        self.progress = f"{prefix}:progress"
        """Hash: id -> JSON [done, total], of jobs in flight that told how far they are. Expires."""
        self.memory_id = f"mtj:{{{namespace}/}}:memory-id"
        """String, one for the whole namespace: a random id that is lost with the server's memory."""

    def last(self, sender: str) -> str:
        """String: number|answer of the last request of one publisher, consumer or operation. Expires."""
        return f"{self._prefix}:last:{sender}"

    def interrupt(self, consumer: str) -> str:
        """Stream: an entry ends the wait of one consumer. Expires."""
        return f"{self._prefix}:interrupt:{consumer}"

    def of(self, script: Script, sender: str = "") -> list[str]:
        """The keys of a script, in its order; those of one with numbered requests depend on the sender."""
        return [self.last(sender) if name == "last" else getattr(self, name) for name in script.keys]

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
