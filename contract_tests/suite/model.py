"""The specification as a program: one queue whose jobs have a state and nothing else.

It shares no code with any adapter, and keeps no order and no clock of its own. It is told what an adapter
did, and raises the clause that this breaks. ``domain/lifecycle.py`` says where each event leads.
"""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from enum import Enum, auto

from ..domain import QueueKind
from ..domain.dead_reasons import DeadReason
from ..domain.lifecycle import LIFE, Count, Event, State
from ..ports import (
    Ack,
    CancelOutcome,
    Dead,
    DeadLetter,
    Delivery,
    JobResult,
    Message,
    Next,
    QueueCounts,
    Redelivery,
    Release,
    ResultStatus,
    Retry,
    Settlement,
    SettleOutcome,
)
from .violation import demand

IN_FLIGHT = (State.IN_FLIGHT, State.CANCELLING)
"""The states in which a consumer holds a job."""


class Placement(Enum):
    """What the contract guarantees about a job's place in the order."""

    UNDISTURBED = auto()
    """Delivered never, or once: it keeps its position (ORD-1 to ORD-3)."""
    RETURNED = auto()
    """Came back by release or a lost lease: it keeps its position as well as the adapter declares (ORD-4)."""
    ANYWHERE = auto()
    """Was delayed, retried or redriven: anywhere."""


@dataclass(slots=True)
class ModelJob:
    """One job."""

    message: Message
    index: int
    """Its place in the order of publishing."""
    state: State = State.NEW
    due: float = 0.0
    """The earliest moment at which a delayed job may be delivered."""
    due_by: float = 0.0
    """The latest moment at which it is due: the broker counted its delay from some moment during the call."""
    placement: Placement = Placement.UNDISTURBED
    attempt: int = 1
    crashes: int = 0
    receipt: str = ""
    errors: tuple[str, ...] = ()
    reason: str = ""
    died: int = 0
    """Its place in the order of deaths."""
    result: bytes | None = None
    """What it was acked with."""

    @property
    def id(self) -> str:
        """The job's id."""
        return self.message.id

    def pass_through(self, event: Event | DeadReason, error: str = "") -> None:
        """``event`` happened to it; ``error`` is that of the attempt which this ends."""
        self.state, counts = LIFE[self.state, event]
        if Count.ANEW in counts:
            self.attempt, self.crashes, self.errors = 1, 0, ()
        self.attempt += Count.ATTEMPT in counts
        self.crashes += Count.CRASH in counts
        self.errors += (error,) if Count.ERROR in counts else ()

    def came_back(self) -> None:
        """Its consumer has it no longer, and it keeps its place in the order if it kept it so far."""
        if self.placement is Placement.UNDISTURBED:
            self.placement = Placement.RETURNED

    def wait(self, delay_s: float, sent: float, answered: float) -> None:
        """It has a new place in the order, after a delay that began between two moments."""
        self.placement = Placement.ANYWHERE
        self.due, self.due_by = sent + delay_s, answered + delay_s


class Model:
    """One queue, as the contract describes it."""

    def __init__(self, kind: QueueKind, redelivery: Redelivery) -> None:
        self.kind = kind
        self._redelivery = redelivery
        self.jobs: dict[str, ModelJob] = {}
        self._published = 0
        self._deaths = 0
        self.settled: set[str] = set()
        """Receipts that settled their job."""
        self.lost: set[str] = set()
        """Receipts whose lease was lost."""
        self.forgotten: set[str] = set()
        """Receipts that settled a job of a queue that was deleted since."""

    # -- reading ----------------------------------------------------------------------------------

    def in_state(self, *states: State) -> list[ModelJob]:
        """The jobs in any of ``states``, in the order of publishing."""
        return [job for job in self.jobs.values() if job.state in states]

    def surely_ready(self, now: float, resolution_s: float) -> list[ModelJob]:
        """The jobs that must be ready by ``now``."""
        return self.in_state(State.READY) + self._surely_due(now, resolution_s)

    def _surely_due(self, now: float, resolution_s: float) -> list[ModelJob]:
        return [job for job in self.in_state(State.DELAYED) if job.due_by + resolution_s <= now]

    def held(self, receipts: Iterable[str]) -> list[ModelJob]:
        """The jobs in flight under ``receipts``."""
        wanted = set(receipts)
        return [job for job in self.in_state(*IN_FLIGHT) if job.receipt in wanted]

    # -- events -----------------------------------------------------------------------------------

    def publish(self, message: Message, sent: float, answered: float) -> None:
        """A message was accepted, by a call that began at ``sent`` and ended at ``answered``.

        It may have the id of a job that has ended: nothing of that is left.
        """
        self._published += 1
        self.jobs.pop(message.id, None)
        job = self.jobs[message.id] = ModelJob(message, self._published)
        if message.delay_s > 0:
            job.wait(message.delay_s, sent, answered)
        job.pass_through(Event.DELAY if message.delay_s > 0 else Event.PUBLISH)

    def receive(self, deliveries: Sequence[Delivery], max_jobs: int, now: float) -> None:
        """``deliveries`` were received, no later than ``now``."""
        demand(
            "RCV-1", len(deliveries) <= max_jobs, f"{len(deliveries)} came where {max_jobs} were asked for"
        )
        for delivery in deliveries:
            self._deliver(delivery, now)

    def _deliver(self, delivery: Delivery, now: float) -> None:
        job = self.jobs.get(delivery.id)
        demand("I2", job is not None, f"job {delivery.id!r} came, and was never published")
        assert job is not None
        demand("I3", job.state not in IN_FLIGHT, f"job {job.id} came while its lease held")
        demand("SET-1", job.state is not State.DONE, f"job {job.id} came after it was done")
        demand("ADM-3", job.state is not State.REMOVED, f"job {job.id} came after it was purged or discarded")
        demand("ADM-3", job.state is not State.DELETED, f"job {job.id} came after its queue was deleted")
        demand("SET-3", job.state is not State.DEAD, f"job {job.id} came while it was dead")
        is_cancelled = job.state in (State.CANCELLED, State.ENDING)
        demand("CAN-3", not is_cancelled, f"job {job.id} came after it was cancelled")
        if job.state is State.DELAYED:
            demand("DLY-1", now >= job.due, f"job {job.id} came {job.due - now:.3f} s early")
            job.pass_through(Event.DUE)
        demand("I2", delivery.body == job.message.body, f"job {job.id} came with another body")
        demand("I6", delivery.attempt == job.attempt, f"attempt {delivery.attempt}, expected {job.attempt}")
        demand(
            "RTY-3", delivery.crashes == job.crashes, f"crashes {delivery.crashes}, expected {job.crashes}"
        )
        known = self.settled | self.lost | self.forgotten
        fresh = delivery.receipt not in known and not self.held([delivery.receipt])
        demand("LSE-4", fresh, f"receipt {delivery.receipt} was given out twice")
        self._check_order(job)
        job.pass_through(Event.TAKE)
        job.receipt = delivery.receipt

    def _check_order(self, job: ModelJob) -> None:
        """No ready job that must come before ``job`` may be left behind."""
        if job.placement is Placement.ANYWHERE:
            return
        clause = {QueueKind.FIFO: "ORD-1", QueueKind.STACK: "ORD-2", QueueKind.PRIORITY: "ORD-3"}[self.kind]
        for other in self.in_state(State.READY):
            if other.placement is Placement.ANYWHERE or self._place(other) >= self._place(job):
                continue
            returned = [each for each in (other, job) if each.placement is Placement.RETURNED]
            if not returned:
                demand(clause, False, f"job {job.id} came before job {other.id}")
            elif self._keep_places(returned):
                came_back = " and ".join(each.id for each in returned)
                demand("ORD-4", False, f"job {job.id} came before job {other.id}; {came_back} had come back")

    def _keep_places(self, returned: Sequence[ModelJob]) -> bool:
        """Whether of two jobs the first one must come first, though one of them or both came back."""
        if self._redelivery is Redelivery.NEAR_HEAD:
            return False
        return self._redelivery is Redelivery.IN_ORDER or len(returned) == 1

    def _place(self, job: ModelJob) -> tuple[int, int]:
        if self.kind is QueueKind.STACK:
            return (0, -job.index)
        return (-job.message.priority if self.kind is QueueKind.PRIORITY else 0, job.index)

    def settle(self, settlement: Settlement, outcome: SettleOutcome, sent: float, answered: float) -> None:
        """A settlement was answered, by a call that began at ``sent`` and ended at ``answered``."""
        receipt = settlement.receipt
        if receipt in self.forgotten:
            demand("ADM-3", outcome is not SettleOutcome.OK, "a receipt of a deleted queue was answered ok")
            return
        if receipt in self.settled:
            demand("SET-1", outcome is SettleOutcome.ALREADY, f"a second settlement was answered {outcome}")
            return
        if receipt in self.lost:
            demand("LSE-4", outcome is SettleOutcome.LOST, f"a stale receipt was answered {outcome}")
            return
        (job,) = self.held([receipt])
        self.settled.add(receipt)
        if job.state is State.CANCELLING and not isinstance(settlement, Ack):
            asked = outcome is SettleOutcome.CANCELLED
            demand("CAN-3", asked, f"settling {job.id}, which was to be cancelled, was answered {outcome}")
        else:
            demand("SET-1", outcome is SettleOutcome.OK, f"settling job {job.id} was answered {outcome}")
        match settlement:
            case Ack(_, result, _, then):
                job.pass_through(Event.ACK)
                job.result = result
                self._publish_next(then, sent, answered)
            case Retry(_, delay_s, error):
                job.wait(delay_s, sent, answered)
                job.pass_through(Event.RETRY_LATER if delay_s > 0 else Event.RETRY, error)
            case Dead(_, reason, error, then):
                self._deaths += 1
                job.reason, job.died = reason, self._deaths
                job.pass_through(DeadReason(reason), error)
                if job.state is State.DEAD:  # not where it was to be cancelled
                    self._publish_next(then, sent, answered)
            case Release(_, delay_s) if delay_s > 0:
                job.wait(delay_s, sent, answered)
                job.pass_through(Event.SNOOZE)
            case Release():
                self.release(job)

    def _publish_next(self, then: Sequence[Next], sent: float, answered: float) -> None:
        for step in then:  # all into this queue
            self.publish(step.message, sent, answered)

    def cancel(self, job: ModelJob, outcome: CancelOutcome) -> None:
        """A cancel of ``job`` was answered."""
        expected = {
            State.IN_FLIGHT: CancelOutcome.REQUESTED,
            State.CANCELLING: CancelOutcome.REQUESTED,
            State.DEAD: CancelOutcome.TOO_LATE,
        }.get(job.state, CancelOutcome.CANCELLED)
        demand("CAN-4", outcome is expected, f"cancelling job {job.id}, {job.state}, was answered {outcome}")
        if (job.state, Event.CANCEL) in LIFE:
            job.pass_through(Event.CANCEL)

    def extend(self, receipt: str, outcome: SettleOutcome) -> None:
        """An extension was answered."""
        if receipt in self.lost:
            demand(
                "LSE-4", outcome is SettleOutcome.LOST, f"extending a stale receipt was answered {outcome}"
            )
        elif receipt in self.settled | self.forgotten:
            demand("LSE-4", outcome is not SettleOutcome.OK, "extending a settled receipt was answered ok")
        elif any(job.state is State.CANCELLING for job in self.held([receipt])):
            told = outcome is SettleOutcome.CANCELLED
            demand("CAN-2", told, f"extending what was to be cancelled was answered {outcome}")
        else:
            demand("LSE-3", outcome is SettleOutcome.OK, f"extending a held lease was answered {outcome}")

    def lose(self, job: ModelJob) -> None:
        """The lease of ``job`` was lost: its consumer died, was cut off, or was too slow."""
        self.lost.add(job.receipt)
        job.pass_through(Event.CRASH)
        job.came_back()

    def release(self, job: ModelJob) -> None:
        """``job`` went back without having spent an attempt: its consumer released it, or closed."""
        job.pass_through(Event.RELEASE)
        job.came_back()

    def pass_delays(self, now: float, resolution_s: float) -> None:
        """What must be due by ``now`` is ready."""
        for job in self._surely_due(now, resolution_s):
            job.pass_through(Event.DUE)

    def redrive(self, jobs: Iterable[ModelJob]) -> None:
        """Dead ``jobs`` were redriven."""
        for job in jobs:
            job.pass_through(Event.REDRIVE)
            job.placement = Placement.ANYWHERE

    def discard(self, jobs: Iterable[ModelJob]) -> None:
        """Dead ``jobs`` were discarded."""
        for job in jobs:
            job.pass_through(Event.DISCARD)

    def purge(self) -> None:
        """The jobs that wait were purged, and for that the broker looked."""
        for job in self.in_state(State.READY, State.DELAYED):
            job.pass_through(Event.PURGE)
        self.look()

    def look(self) -> None:
        """The broker looked: what was to be cancelled, and whose lease had ended, is cancelled."""
        for job in self.in_state(State.ENDING):
            job.pass_through(Event.LOOK)

    def delete(self) -> None:
        """The queue was deleted."""
        for job in self.jobs.values():
            if job.state in IN_FLIGHT:
                self.lost.add(job.receipt)
            job.pass_through(Event.DELETE)
        self.forgotten |= self.settled
        self.settled.clear()

    # -- what must be seen ------------------------------------------------------------------------

    def check_counts(self, counts: QueueCounts, before: float, after: float, resolution_s: float) -> None:
        """``counts`` were read between ``before`` and ``after``."""
        ready = len(self.surely_ready(before, resolution_s))
        maybe = sum(job.due <= after for job in self.in_state(State.DELAYED))
        waiting = len(self.in_state(State.READY, State.DELAYED))
        ending = len(self.in_state(State.ENDING))
        in_flight = len(self.in_state(*IN_FLIGHT))
        dead = len(self.in_state(State.DEAD))
        is_right = waiting <= counts.waiting <= waiting + ending
        names = self._names(State.READY, State.DELAYED)
        demand("I9", is_right, f"{counts.waiting} wait, expected {waiting} and up to {ending} more: {names}")
        most_ready = max(ready, len(self.in_state(State.READY)) + maybe) + ending
        expected = f"expected {ready} to {most_ready}: {self._names(State.READY, State.DELAYED)}"
        demand("I9", ready <= counts.ready <= most_ready, f"{counts.ready} are ready, {expected}")
        expected = f"expected {dead}: {self._names(State.DEAD)}"
        demand("I9", counts.dead == dead, f"{counts.dead} are dead, {expected}")
        if counts.in_flight is not None:
            expected = f"expected {in_flight}: {self._names(State.IN_FLIGHT)}"
            demand("I9", counts.in_flight == in_flight, f"{counts.in_flight} are in flight, {expected}")

    def _names(self, *states: State) -> str:
        """The jobs in these states, for the message of a failure."""
        return ", ".join(f"{job.id} {job.state.name}" for job in self.in_state(*states)) or "none"

    def check_dead(self, letters: Sequence[DeadLetter]) -> None:
        """``letters`` are all that was listed."""
        dead = sorted(self.in_state(State.DEAD), key=lambda job: job.died)
        expected = {job.id: job for job in dead}
        listed = [letter.id for letter in letters]
        demand("DLQ-1", listed == list(expected), f"{listed} were listed, expected {list(expected)}")
        for letter in letters:
            job = expected[letter.id]
            demand("SET-3", letter.body == job.message.body, f"dead job {job.id} has another body")
            demand("SET-3", letter.reason == job.reason, f"dead job {job.id}: reason {letter.reason!r}")
            history = (*(failure.error for failure in letter.history), letter.error)
            kept = job.errors[-11:]
            demand("SET-3", history == kept, f"dead job {job.id}: history {history}, expected {kept}")
            demand("SET-3", letter.attempt == job.attempt, f"dead job {job.id}: attempt {letter.attempt}")
            demand("SET-3", letter.crashes == job.crashes, f"dead job {job.id}: crashes {letter.crashes}")

    def check_results(self, found: Mapping[str, JobResult]) -> None:
        """``found`` is what was found of the ends of all jobs."""
        for job in self.jobs.values():
            if job.state is State.ENDING:
                continue
            clause = {State.DELETED: "ADM-3", State.CANCELLED: "CAN-1"}.get(job.state, "RES-1")
            expected, result = self._result(job), found.get(job.id)
            state = job.state.name.lower().replace("_", " ")
            demand(clause, result == expected, f"job {job.id} is {state}, and its result is {result}")

    def _result(self, job: ModelJob) -> JobResult | None:
        match job.state:
            case State.DONE:
                return JobResult(ResultStatus.DONE, job.result)
            case State.CANCELLED:
                return JobResult(ResultStatus.CANCELLED)
            case State.DEAD:
                return JobResult(ResultStatus.FAILED, error=job.errors[-1])
            case _:
                return None
