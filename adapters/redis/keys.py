"""Every key that a queue, or a store of results, has in Redis: the one place that names them.

All keys of a queue share one hash tag, so that a cluster keeps them in one slot and a script may touch them
together. ``<q>`` below is ``mtj:{<namespace>/<queue>}``.
"""

from dataclasses import dataclass

from ...domain.queue import QueueKind


@dataclass(frozen=True, slots=True)
class QueueKeys:
    """The keys of one queue."""

    namespace: str
    queue: str

    def _key(self, name: str) -> str:
        return f"mtj:{{{self.namespace}/{self.queue}}}:{name}"

    @property
    def meta(self) -> str:
        """Hash: kind, layout, place (the last given, but on a fifo), deaths, rwait (until when, ms).

        And what ``resume.lua`` sets: server (its run id), stand (until when no lease ends, ms).
        """
        return self._key("meta")

    @property
    def body(self) -> str:
        """Hash: id -> envelope, of every job that is live or dead."""
        return self._key("body")

    @property
    def state(self) -> str:
        """Hash: id -> packed record of a job that something has happened to (``common.lua``); and ballast."""
        return self._key("state")

    @property
    def ready(self) -> str:
        """List of ids, head first; on a stack or priority queue a sorted set, by priority and place."""
        return self._key("ready")

    @property
    def run(self) -> str:
        """Sorted set: id -> when its lease ends, ms; and ballast, which never ends (``declare.lua``)."""
        return self._key("run")

    @property
    def delay(self) -> str:
        """Sorted set: id -> when it is due, ms."""
        return self._key("delay")

    @property
    def dead(self) -> str:
        """Sorted set: id -> the number of its death."""
        return self._key("dead")

    @property
    def letter(self) -> str:
        """Hash: id of a dead job -> JSON [reason, error, died_ms]."""
        return self._key("letter")

    @property
    def history(self) -> str:
        """Hash: id of a job that failed -> JSON [[attempt, error], …], the last 10."""
        return self._key("history")

    @property
    def result(self) -> str:
        """Hash: id -> when it expires (ms, a big-endian double) and the encoded output."""
        return self._key("result")

    @property
    def expiry(self) -> str:
        """Sorted set: id of a result -> when it expires, ms."""
        return self._key("expiry")

    @property
    def ended(self) -> str:
        """List of the ids that were acked last without a result, at most 10,000."""
        return self._key("ended")

    @property
    def wake(self) -> str:
        """Stream of the last wake-ups: a new one tells waiting consumers to ask again."""
        return self._key("wake")

    @property
    def rwake(self) -> str:
        """Stream, likewise: a new one tells those who wait for results to ask again."""
        return self._key("rwake")

    @property
    def progress(self) -> str:
        """Hash: id -> JSON [done, total], of jobs in flight that told how far they are. Expires."""
        return self._key("progress")

    def last(self, client: str) -> str:
        """String: number|answer of the last request of one publisher, consumer or operation. Expires."""
        return self._key(f"last:{client}")

    def interrupt(self, consumer: str) -> str:
        """Stream: an entry ends the wait of one consumer. Expires."""
        return self._key(f"interrupt:{consumer}")

    @property
    def mark(self) -> str:
        """String, one for the whole namespace: it is lost with the server's memory (``mark.lua``)."""
        return f"mtj:{{{self.namespace}/}}:mark"

    # -- what each script takes, in its order -----------------------------------------------------

    def for_publish(self, client: str) -> list[str]:
        """The keys of ``publish.lua``."""
        return [
            self.meta,
            self.body,
            self.state,
            self.ready,
            self.delay,
            self.wake,
            self.result,
            self.expiry,
            self.last(client),
        ]

    def for_exchange(self, consumer: str) -> list[str]:
        """The keys of ``exchange.lua``."""
        return [
            self.meta,
            self.body,
            self.state,
            self.ready,
            self.run,
            self.delay,
            self.dead,
            self.letter,
            self.history,
            self.result,
            self.expiry,
            self.ended,
            self.wake,
            self.rwake,
            self.last(consumer),
        ]

    def for_report(self) -> list[str]:
        """The keys of ``report.lua``."""
        return [self.run, self.progress]

    def for_extend(self) -> list[str]:
        """The keys of ``extend.lua``."""
        return [self.meta, self.state, self.run]

    def for_resume(self) -> list[str]:
        """The keys of ``resume.lua``."""
        return [self.meta]

    def for_declare(self) -> list[str]:
        """The keys of ``declare.lua``."""
        return [self.meta, self.state, self.run, self.wake]

    def for_counts(self) -> list[str]:
        """The keys of ``counts.lua``."""
        return [self.meta, self.ready, self.run, self.delay, self.dead]

    def for_purge(self, operation: str) -> list[str]:
        """The keys of ``purge.lua``."""
        return [
            self.meta,
            self.body,
            self.state,
            self.history,
            self.ready,
            self.run,
            self.delay,
            self.ended,
            self.last(operation),
        ]

    def for_delete(self, operation: str) -> list[str]:
        """The keys of ``delete.lua``."""
        return [
            self.last(operation),
            self.meta,
            self.wake,
            self.rwake,
            self.body,
            self.state,
            self.ready,
            self.run,
            self.delay,
            self.dead,
            self.letter,
            self.history,
            self.result,
            self.expiry,
            self.ended,
            self.progress,
        ]

    def for_letters(self) -> list[str]:
        """The keys of ``letters.lua``."""
        return [self.meta, self.body, self.state, self.dead, self.letter, self.history]

    def for_unbury(self, operation: str) -> list[str]:
        """The keys of ``unbury.lua``."""
        return [
            self.meta,
            self.body,
            self.state,
            self.ready,
            self.dead,
            self.letter,
            self.history,
            self.ended,
            self.wake,
            self.last(operation),
        ]

    def for_inspect(self, kind: QueueKind) -> dict[str, str]:
        """The keys of ``inspect.lua``, each with the type that Redis should give it."""
        return {
            self.meta: "hash",
            self.body: "hash",
            self.ready: "list" if kind is QueueKind.FIFO else "zset",
            self.run: "zset",
            self.delay: "zset",
            self.dead: "zset",
            self.state: "hash",
            self.letter: "hash",
            self.history: "hash",
            self.result: "hash",
            self.expiry: "zset",
            self.ended: "list",
            self.wake: "stream",
            self.rwake: "stream",
            self.progress: "hash",
        }

    def for_result(self) -> list[str]:
        """The keys of ``result.lua``."""
        return [self.meta, self.body, self.result, self.letter, self.ended, self.rwake]


@dataclass(frozen=True, slots=True)
class ResultKeys:
    """The keys of a store for the results of one queue, which is another broker's. All of them expire."""

    namespace: str
    queue: str
    """What the broker's adapter calls it: with a namespace of its own, and a slash."""

    def _key(self, name: str) -> str:
        return f"mtj:{{{self.namespace}/{self.queue}}}:{name}"

    @property
    def kept(self) -> str:
        """Hash: id -> how the job ended, one letter, and the encoded output or the error."""
        return self._key("kept")

    @property
    def until(self) -> str:
        """Sorted set: id -> until when its result is kept, ms."""
        return self._key("kept-until")

    @property
    def wake(self) -> str:
        """Stream of the last wake-ups: a new one tells those who wait for results to ask again."""
        return self._key("kept-wake")

    def for_each(self) -> list[str]:
        """The keys of ``put_results.lua``, ``get_result.lua`` and ``forget_results.lua``."""
        return [self.kept, self.until, self.wake]
