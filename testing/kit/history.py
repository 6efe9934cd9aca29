"""What happened in a kit: what was published, and what became of each job."""

from collections import defaultdict
from collections.abc import Callable
from typing import NamedTuple

from ..application.consuming.expiry import expired_at
from ..domain.failure import decode_failure
from ..ports import Ack, Cancel, Dead, Message, Next, Release, Retry, Settlement, SettleOutcome


class HistoryEvent(NamedTuple):
    """Something that happened to a job."""

    after_s: float
    """Seconds since the kit was made, by its clock."""
    what: str
    """``published``, ``started``, ``lease lost``, ``worker killed``; or how an attempt ended: ``done``,
    ``retried``, ``dead``, ``released``, ``cancelled``, ``expired`` or ``not settled``."""
    detail: str = ""
    """What else is known, such as the error and the delay of a retry."""

    def __str__(self) -> str:
        return f"{self.after_s:+.3f} s  {self.what}" + (f": {self.detail}" if self.detail else "")


class Published:
    """A job that was published, and whether a test has asked for it."""

    def __init__(self, queue: str, message: Message, after_s: float) -> None:
        self.queue = queue
        self.message = message
        self.after_s = after_s
        self.is_asserted = False


class History:
    """Notes what happens. Threads may share it, as it only appends.

    Args:
        now: The kit's clock.
    """

    def __init__(self, now: Callable[[], float]) -> None:
        self._now = now
        self._began_s = now()
        self.published: list[Published] = []
        self.errors: dict[str, BaseException] = {}
        """What the last run of a handler raised, by the job's id."""
        self.seen_dead: set[str] = set()
        """The ids of jobs of which the test knows that they are dead."""
        self._events: defaultdict[str, list[HistoryEvent]] = defaultdict(list)

    def of(self, job_id: str) -> tuple[HistoryEvent, ...]:
        """Return what happened to a job."""
        return tuple(self._events.get(job_id, ()))

    def note(self, job_id: str, what: str, detail: str = "") -> None:
        """Note that something happened to a job."""
        self._events[job_id].append(HistoryEvent(self._now() - self._began_s, what, detail))

    def note_published(self, queue: str, message: Message) -> None:
        """Note a job that is in a queue now."""
        self.published.append(Published(queue, message, self._now() - self._began_s))
        delay = f", to run in {message.delay_s:g} s" if message.delay_s else ""
        self.note(message.id, "published", f"in queue {queue}{delay}")

    def note_settled(self, job_id: str, settlement: Settlement, outcome: SettleOutcome) -> None:
        """Note how an attempt ended, and the jobs that were published with that."""
        if outcome is SettleOutcome.OK:
            self.note(job_id, *_told(settlement))
            then: tuple[Next, ...] = settlement.then if isinstance(settlement, Ack | Dead) else ()
            for step in then:
                self.note_published(step.queue, step.message)
        elif outcome is SettleOutcome.CANCELLED:
            self.note(job_id, "cancelled")
        else:
            what, detail = _told(settlement)
            meant = f"{what} ({detail})" if detail else what
            why = "the lease was lost before" if outcome is SettleOutcome.LOST else f"answer {outcome}"
            self.note(job_id, "not settled", f"as {meant}: {why}")


def _told(settlement: Settlement) -> tuple[str, str]:
    """Return in words how a settlement ends an attempt."""
    match settlement:
        case Ack():
            return ("done", "") if expired_at(settlement.result) is None else ("expired", "")
        case Retry():
            error = decode_failure(settlement.error).error
            return "retried", f"{error}; the next attempt is in {settlement.delay_s:g} s"
        case Dead():
            return "dead", f"{settlement.reason}: {decode_failure(settlement.error).error}"
        case Release():
            return "released", f"it is ready again in {settlement.delay_s:g} s"
        case Cancel():
            return "cancelled", ""
