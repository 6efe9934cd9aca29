"""How a consumer settles jobs, and what the broker answers.

Values made once per job are named tuples, which cost a quarter of a frozen dataclass.
"""

from enum import StrEnum
from typing import NamedTuple

from .delivery import Delivery


class Ack(NamedTuple):
    """The job is done (SET-1); its result, if any, is stored in the same step (RES-2)."""

    receipt: str
    result: bytes | None = None
    """The encoded output. With None, a backend that keeps results still remembers that the job is done, for
    a limited time or number of jobs."""
    result_ttl_s: float = 3600.0
    """Seconds for which the result is kept."""


class Retry(NamedTuple):
    """The attempt failed: the job is ready again after ``delay_s``, with ``attempt`` one higher (SET-2).

    It then joins the queue as if it were published at that moment, behind the jobs that are ready.
    """

    receipt: str
    delay_s: float
    error: str
    """What is known of the failure, kept in the job's history; see :class:`Dead`."""


class Dead(NamedTuple):
    """The job has failed for good: it becomes a dead letter, with body, reason and history (SET-3)."""

    receipt: str
    reason: str
    """One of a few short phrases, to count by."""
    error: str
    """What is known of the last failure; a caller that waits for the result gets it (RES-1).

    Up to ``domain.limits.MAX_FAILURE_CHARS`` characters, of any kind that UTF-8 can encode. A backend stores
    them as they are. If it has too little room, it keeps the end. What UTF-8 can't encode, such as half of a
    surrogate pair, raises nothing; a backend may keep something else in its place.
    """


class Release(NamedTuple):
    """The job goes back to its place in the queue at once, without spending an attempt (SET-4, ORD-4)."""

    receipt: str


Settlement = Ack | Retry | Dead | Release


class SettleOutcome(StrEnum):
    """The broker's answer to one settlement or one extension (LSE-4)."""

    OK = "ok"
    """The broker confirmed it."""
    ALREADY = "already"
    """This receipt settled its job before; nothing changed (SET-1)."""
    LOST = "lost"
    """The settlement isn't known to have taken effect, and this receipt can settle nothing any more.

    If the lease had ended before, nothing changed. If the connection was the lease and broke before the
    answer came, the broker may have done it: the job is settled, or runs again, or both. Rely on none.
    """


class Settled(NamedTuple):
    """The answers to a batch of settlements, in order, and the jobs received in the same round trip."""

    outcomes: list[SettleOutcome]
    deliveries: list[Delivery]
