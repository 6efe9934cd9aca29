"""What a queue contains: the counts of its jobs, and its dead letters."""

from dataclasses import dataclass
from datetime import datetime


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many jobs of a queue are in each state (CNT-1)."""

    ready: int
    delayed: int
    in_flight: int | None
    """None where the broker can't count them."""
    dead: int

    @property
    def waiting(self) -> int:
        """How many jobs wait to be delivered: ready or delayed."""
        return self.ready + self.delayed


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt in a job's history.

    An adapter sets the attempt, and as the error the text that settled it. The orchestrator reads that text,
    and fills in the rest; each is None where it isn't known.
    """

    attempt: int
    error: str
    failed_at: datetime | None = None
    """By the clock of the worker."""
    host: str | None = None
    """The name of the worker's machine or container."""
    pid: int | None = None
    """The worker's process."""
    traceback: str | None = None
    """Kept of the last attempt only: at most 8,192 characters, the most recent frames."""


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead job with its body, the reason and its history (SET-3).

    An adapter sets the fields up to ``history``, as in :class:`Failure`.
    """

    id: str
    body: bytes
    reason: str
    error: str
    attempt: int
    """The attempt that it ended in."""
    crashes: int
    """How many of its deliveries ended without a settlement."""
    died_at: datetime
    history: tuple[Failure, ...]
    """The failed attempts before the last, oldest first; at most the last 10."""
    traceback: str | None = None
    """Of the last error, its most recent frames last; None if no code of the handler raised it."""
    host: str | None = None
    """The name of the machine or container whose worker gave the job up; None if it isn't known."""
    pid: int | None = None
    """That worker's process."""

    @property
    def attempts(self) -> tuple[Failure, ...]:
        """Every attempt that is known, oldest first, the last one included."""
        last = Failure(self.attempt, self.error, self.died_at, self.host, self.pid, self.traceback)
        return (*self.history, last)
