"""How a consumer settles jobs, and what the broker answers.

Values made once per job are named tuples, which cost a quarter of a frozen dataclass.
"""

from enum import StrEnum
from typing import NamedTuple

from ..domain.defaults import DEFAULT_RESULT_TTL_S
from .delivery import Delivery
from .publishing import Message


class Next(NamedTuple):
    """A job that an ack publishes, or a death (THEN-1, THEN-4)."""

    queue: str
    """The name of a declared queue of the same backend; it may be the queue of the job that ends."""
    message: Message


class Ack(NamedTuple):
    """The job is done (SET-1); its result, if any, is stored in the same step (RES-2)."""

    receipt: str
    result: bytes | None = None
    """The encoded output. With None, a backend that keeps results still remembers that the job is done, for
    a limited time or number of jobs."""
    result_ttl_s: float = DEFAULT_RESULT_TTL_S
    """Seconds for which the result is kept."""
    then: tuple[Next, ...] = ()
    """Jobs to publish in the same step, in this order; needs the capability ``then``.

    With ``atomic_then`` they are published if and only if the job is acked (THEN-2). Without it they are
    published and confirmed first, so that a failure in between may publish one twice, and loses none. A
    message whose id is live in its queue counts as published. The id of the job that is acked is free by
    then: a job may be its own next one.
    """


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

    Up to ``domain.bounds.MAX_FAILURE_CHARS`` characters, of any kind that UTF-8 can encode. A backend stores
    them as they are. If it has too little room, it keeps the end. What UTF-8 can't encode, such as half of a
    surrogate pair, raises nothing; a backend may keep something else in its place.
    """
    then: tuple[Next, ...] = ()
    """Jobs to publish in the same step, as those of an :class:`Ack`: they exist if the job is dead, and with
    ``atomic_then`` only then (THEN-4). If the job ends as cancelled instead, none is published. The id of a
    dead letter isn't free.
    """
    ttl_s: float | None = None
    """Seconds after which the dead letter is removed, by the broker's clock; None for never (DLQ-5). A time
    needs the capability ``dead_ttl``."""


class Release(NamedTuple):
    """The job goes back, and spends no attempt: to its position in the queue at once, or later (SET-4)."""

    receipt: str
    delay_s: float = 0.0
    """Seconds after which it is ready again, by the broker's clock. It then joins the queue as if it were
    published at that moment. With 0 it goes back to its old place at once (ORD-4)."""


class Cancel(NamedTuple):
    """The job was cancelled: it ends without a retry and without a dead letter (CAN-3).

    Only a backend with the capability ``cancel`` takes it, and one that borrows a coordination store. The job
    needn't have been asked to be cancelled.
    """

    receipt: str
    result_ttl_s: float = DEFAULT_RESULT_TTL_S
    """Seconds for which it is remembered that the job was cancelled."""


Settlement = Ack | Retry | Dead | Release | Cancel


class SettleOutcome(StrEnum):
    """The broker's answer to one settlement or one extension (LSE-4)."""

    OK = "ok"
    """The broker confirmed it."""
    CANCELLED = "cancelled"
    """The job was asked to be cancelled. To an extension: the lease is extended; stop the job, and settle it
    by :class:`Cancel` (CAN-2). To a retry, a death or a release: the job ended as cancelled instead
    (CAN-3)."""
    ALREADY = "already"
    """This receipt settled its job before; nothing changed (SET-1)."""
    LOST = "lost"
    """The settlement isn't known to have taken effect, and this receipt can settle nothing any more.

    If the lease had ended before, nothing changed. If the connection was the lease and broke before the
    answer came, the broker may have done it: the job is settled, or runs again, or both. Rely on none.
    """
    REFUSED = "refused"
    """A job that this was to publish can't be: its queue isn't declared, or there is no room for it.

    The job isn't settled, and the receipt is still held: settle it in another way (THEN-3). Only an ack or a
    death that has ``then`` is answered so.
    """
    DEFERRED = "deferred"
    """The broker takes no messages at present, and this settlement has to write one: a retry, a dead letter,
    a release, or a next job.

    The job isn't settled, and the receipt is still held: send the same settlement again later. Only a backend
    whose lease is the connection answers so; with a timed lease, such a call raises ``BackendUnavailable``.
    """

    @property
    def keeps_receipt(self) -> bool:
        """Whether the receipt of the settlement is still held."""
        return self is SettleOutcome.REFUSED or self is SettleOutcome.DEFERRED


class Settled(NamedTuple):
    """The answers to a batch of settlements, in order, and the jobs received in the same round trip."""

    outcomes: list[SettleOutcome]
    deliveries: list[Delivery]
