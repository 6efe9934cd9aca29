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
    """One failed attempt in a job's history."""

    attempt: int
    error: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A dead job with its body, the reason and its history (SET-3)."""

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
