"""ADM-2, ADM-3, CAN-1, DLQ, SET-1: what is left of a job to the next one of its id, field by field."""

from collections.abc import Callable, Sequence
from contextlib import suppress

from ...domain import Queue, QueueKind
from ...domain.errors import UnsupportedCapability
from ...domain.job_progress import Progress
from ...ports import Ack, ConsumerBackend, Dead, DeadLetter, Delivery, JobStatus, Message, Retry
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_OLD, _NEW, _BETWEEN = 9, 2, 5
"""The priorities of the first job of an id and of the next, and of one that is served between them."""
_ERRORS = ("first", "second")
"""What the first job of an id failed with before it ended."""
_End = Callable[[QueueUnderTest, ConsumerBackend, Delivery], object]
"""Ends the job of a delivery."""


def _discard(queue: QueueUnderTest, consumer: ConsumerBackend, held: Delivery) -> None:
    consumer.settle([Dead(held.receipt, "rejected", "of the first life")])
    queue.backend.discard(queue.name, [held.id])


def _redrive(queue: QueueUnderTest, consumer: ConsumerBackend, held: Delivery) -> None:
    consumer.settle([Dead(held.receipt, "rejected", "of the first life")])
    queue.backend.redrive(queue.name, [held.id])


def _cancel_while_it_runs(queue: QueueUnderTest, consumer: ConsumerBackend, held: Delivery) -> None:
    queue.backend.cancel(queue.name, [held.id])
    consumer.settle([Retry(held.receipt, 0.0, "of the first life")])


def _cancel_while_it_waits(queue: QueueUnderTest, consumer: ConsumerBackend, held: Delivery) -> None:
    consumer.settle([Retry(held.receipt, _later(queue), "of the first life")])
    queue.backend.cancel(queue.name, [held.id])


def _purge(queue: QueueUnderTest, consumer: ConsumerBackend, held: Delivery) -> None:
    consumer.settle([Retry(held.receipt, 0.0, "of the first life")])
    queue.expect_counts(ready=1)
    queue.backend.purge(queue.name)


def _purge_while_it_is_delayed(queue: QueueUnderTest, consumer: ConsumerBackend, held: Delivery) -> None:
    consumer.settle([Retry(held.receipt, _later(queue), "of the first life")])
    queue.backend.purge(queue.name)


def _delete(queue: QueueUnderTest, consumer: ConsumerBackend, held: Delivery) -> None:
    queue.backend.delete(queue.name)
    queue.backend.declare(Queue(queue.name, _kind(queue)))


def _later(queue: QueueUnderTest) -> float:
    """Seconds after which a delay that outlives its job would be over."""
    return queue.backend.capabilities.delay_resolution_s + 0.5


def _kind(queue: QueueUnderTest) -> QueueKind:
    return QueueKind.PRIORITY if queue.backend.capabilities.priority else QueueKind.FIFO


def _ends(context: CheckContext) -> dict[str, tuple[str, _End]]:
    """The ways in which a job ends, each with the clause that is broken if something of it is left."""
    able = context.capabilities
    ends: dict[str, tuple[str, _End]] = {
        "acked": ("SET-1", lambda _, consumer, held: consumer.settle([Ack(held.receipt)])),
        "discarded": ("DLQ-3", _discard),
        "redriven": ("DLQ-2", _redrive),
        "purged": ("ADM-2", _purge),
        "purged while it was delayed": ("ADM-2", _purge_while_it_is_delayed),
        "deleted with its queue": ("ADM-3", _delete),
    }
    if able.results:
        ends["acked with a result"] = (
            "RES-1",
            lambda _, consumer, held: consumer.settle([Ack(held.receipt, b"{}")]),
        )
    if able.cancel:
        ends["cancelled while it ran"] = ("CAN-1", _cancel_while_it_runs)
        ends["cancelled while it waited"] = ("CAN-1", _cancel_while_it_waits)
    return ends


@check("SET-1", "DLQ-2", "DLQ-3", "ADM-2", "ADM-3", "CAN-1", "RES-1", "SET-3", takes_long=True)
def the_next_job_of_an_id_has_nothing_of_the_one_before(context: CheckContext) -> None:
    """However a job ended that crashed and failed, the next of its id begins as new, and dies as new."""
    ends = _ends(context)
    with context.backends(1) as (backend,):
        kind = QueueKind.PRIORITY if context.capabilities.priority else QueueKind.FIFO
        lives = [
            _Life(context.queue_on(backend, kind, name=f"jobs-{number}"), f"job-{number}", how, *end)
            for number, (how, end) in enumerate(ends.items())
        ]
        context.harness.advance(context.harness.redelivery_s(context.harness.lease_s))
        for life in lives:
            life.fail_and_end()
        for life in lives:
            life.begin_again()
        context.harness.advance(_later(lives[0].queue) + 2 * context.capabilities.delay_resolution_s)
        for life in lives:
            life.demand_nothing_comes()


class _Life:
    """A queue, and a job on it that ends in one way.

    Args:
        queue: The queue, which is empty.
        id_: The job's id.
        how: The way, in words.
        clause: What is broken if anything is left of the job.
        end: Ends it.
    """

    def __init__(self, queue: QueueUnderTest, id_: str, how: str, clause: str, end: _End) -> None:
        self.queue = queue
        self._id, self._how, self._clause, self._end = id_, how, clause, end
        self._publish(id_, _OLD, b'"old"')
        doomed = queue.consumer(lease_s=queue.context.harness.lease_s)
        queue.receive_one(doomed)
        queue.context.harness.crash(doomed)
        self._consumer = queue.consumer()

    def _publish(self, id_: str, priority: int, body: bytes) -> None:
        level = priority if _kind(self.queue) is QueueKind.PRIORITY else 0
        (outcome,) = self.queue.backend.publish(self.queue.name, [Message(id_, body, level)])
        demand("PUB-5", outcome.status.name == "ACCEPTED", f"{self._what}, {id_} was {outcome.status}")

    @property
    def _what(self) -> str:
        return f"once the job of its id was {self._how}"

    def fail_and_end(self) -> None:
        """Fail the job as often as it has errors, then end it."""
        queue = self.queue
        for error in _ERRORS:
            queue.settle_ok(self._consumer, Retry(queue.receive_one(self._consumer).receipt, 0.0, error))
        held = queue.receive_one(self._consumer)
        self._consumer.report(held.receipt, Progress(9.0, 10.0))
        self._end(queue, self._consumer, held)

    def begin_again(self) -> None:
        """Demand that the next job of the id is told in no field from one whose id is new."""
        queue, is_redriven = self.queue, self._how == "redriven"
        if not is_redriven:
            self._publish(self._id, _NEW, b'"new"')
        self._publish("between", _BETWEEN, b"{}")
        with suppress(UnsupportedCapability):
            status = queue.backend.status(queue.name, self._id)
            is_open = status in (JobStatus.WAITING, JobStatus.UNKNOWN)
            self._demand(status if not is_open else None, "the status of the next, before it ran,", None)
        if queue.backend.capabilities.results:
            self._demand(queue.backend.result(queue.name, self._id), "the result of the next", None)
        self._demand(queue.backend.progress(queue.name), "the progress of the queue", {})
        held = {each.id: each for each in (queue.receive_one(self._consumer) for _ in range(2))}
        if _kind(queue) is QueueKind.PRIORITY:
            order = [self._id, "between"] if is_redriven else ["between", self._id]
            self._demand(list(held), f"of priorities {_NEW}, and {_BETWEEN} between, the order", order)
        job = held[self._id]
        self._demand(job.body, "the body of the next", b'"old"' if is_redriven else b'"new"')
        self._demand((job.attempt, job.crashes), "attempt and crashes of the next", (1, 0))
        if not is_redriven:
            self._demand(job.number, "number of the first delivery of the next", 1)
        extended = self._consumer.extend([job.receipt])[0].name
        self._demand(extended, "an extension of the next", "OK")
        queue.settle_ok(self._consumer, Dead(job.receipt, "anew", "of the second life"))
        queue.settle_ok(self._consumer, Ack(held["between"].receipt))
        self._demand_letters(queue.backend.dead_letters(queue.name), job)

    def _demand_letters(self, letters: Sequence[DeadLetter], job: Delivery) -> None:
        self._demand([letter.id for letter in letters], "the dead letters", [self._id])
        (letter,) = letters
        for field, expected in (
            ("body", job.body),
            ("reason", "anew"),
            ("error", "of the second life"),
            ("attempt", 1),
            ("crashes", 0),
            ("history", []),
        ):
            self._demand_of_letter(field, getattr(letter, field), expected)

    def _demand_of_letter(self, field: str, found: object, expected: object) -> None:
        found = list(found) if isinstance(found, tuple) else found
        what = f"{self._what}, the dead letter of the next one has {field} {found!r}, expected {expected!r}"
        demand(self._clause, found == expected, what)

    def demand_nothing_comes(self) -> None:
        """Demand that no delay or lease of the first job brings anything back."""
        came = [each.id for each in self._consumer.receive(10, 0.0)]
        demand(self._clause, not came, f"{self._what}, and the next one too, {came} came later")

    def _demand(self, found: object, field: str, expected: object) -> None:
        demand(self._clause, found == expected, f"{self._what}, {field} is {found!r}, expected {expected!r}")
