"""What crosses the ports: plain immutable values of the domain, never a driver's type.

Those that are made once a job are named tuples, which cost a quarter of a frozen dataclass.
"""

from dataclasses import dataclass
from datetime import datetime
from enum import StrEnum
from typing import NamedTuple

from ..domain.errors import JobsError

# -- publishing -----------------------------------------------------------------------------------


class Message(NamedTuple):
    """A job on its way into a broker: what the broker must know of it, and its body, opaque."""

    id: str
    body: bytes
    priority: int = 0
    """0 to 9; more than 0 only on a priority queue."""
    delay_s: float = 0.0
    """Seconds from its arrival, by the broker's clock, before it may be delivered (DLY-1)."""


class PublishStatus(StrEnum):
    """What became of one message of a batch (PUB-4)."""

    ACCEPTED = "accepted"
    """Confirmed by the broker, and visible (PUB-1)."""
    DUPLICATE = "duplicate"
    """A job of this id is still live; nothing was done (PUB-5)."""
    REJECTED = "rejected"
    """Not in the queue; ``error`` says why."""
    UNKNOWN = "unknown"
    """The connection broke before the confirm: it may or may not be in the queue."""


class PublishOutcome(NamedTuple):
    """The broker's answer to one message."""

    id: str
    status: PublishStatus
    error: JobsError | None = None
    """Why it was rejected, or is unknown."""


# -- delivering -----------------------------------------------------------------------------------


class Delivery(NamedTuple):
    """A job leased to one consumer."""

    id: str
    body: bytes
    receipt: str
    """The fencing token: what settles and extends this delivery, and no other of the same job (LSE-4)."""
    attempt: int
    """From 1; one more with each retry (SET-2)."""
    number: int
    """Which delivery of the job this is, from 1, whatever ended those before it."""
    crashes: int
    """How many deliveries before it ended without a settlement: as far as the broker can tell, their workers
    died (RTY-3)."""
    deadline_s: float | None
    """Seconds the lease had left when it was granted; None where the connection holds it."""


# -- settling -------------------------------------------------------------------------------------


class Ack(NamedTuple):
    """The job is done (SET-1); its result, if any, is stored in the same step (RES-2)."""

    receipt: str
    result: bytes | None = None
    """The encoded output; None keeps none."""
    result_ttl_s: float = 3600.0
    """How many seconds the result is kept."""


class Retry(NamedTuple):
    """The attempt failed: ready again after ``delay_s``, with attempt + 1 (SET-2)."""

    receipt: str
    delay_s: float
    error: str
    """Kept in the job's history."""


class Dead(NamedTuple):
    """The job is given up: moved whole to the dead letters, with reason and history (SET-3)."""

    receipt: str
    reason: str
    """One of a few short phrases, to count by."""
    error: str
    """The last error; whoever waits for the result is answered with it (RES-1)."""


class Release(NamedTuple):
    """The job goes back at once, without spending an attempt (SET-4)."""

    receipt: str


Settlement = Ack | Retry | Dead | Release


class SettleOutcome(StrEnum):
    """The answer to one settlement, or to one extension (LSE-4)."""

    OK = "ok"
    """The broker confirmed it."""
    ALREADY = "already"
    """This receipt settled its job before; nothing changed (SET-1)."""
    LOST = "lost"
    """The broker isn't known to have done it, and this receipt settles nothing any more.

    Where the lease had ended before, nothing changed. Where the connection broke before the answer came, the
    broker may have done it all the same: the job is settled or runs again, so rely on neither.
    """


class Settled(NamedTuple):
    """The answers to a batch of settlements, in order, and what was received in the same round trip."""

    outcomes: list[SettleOutcome]
    deliveries: list[Delivery]


# -- looking --------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class QueueCounts:
    """How many jobs of a queue are in which state (CNT-1)."""

    ready: int
    delayed: int
    in_flight: int | None
    """None where the broker can't tell."""
    dead: int

    @property
    def waiting(self) -> int:
        """How many wait to be delivered: ready or delayed."""
        return self.ready + self.delayed


@dataclass(frozen=True, slots=True)
class Failure:
    """One failed attempt in a job's history."""

    attempt: int
    error: str


@dataclass(frozen=True, slots=True)
class DeadLetter:
    """A job that was given up, whole, with what led there (SET-3)."""

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


class ResultStatus(StrEnum):
    """How a job ended."""

    DONE = "done"
    FAILED = "failed"


class JobResult(NamedTuple):
    """What is known of a job that has ended (RES-1)."""

    status: ResultStatus
    body: bytes | None = None
    """The encoded output; None where the handler returned none."""
    error: str | None = None
    """The last error of a job that is dead."""
