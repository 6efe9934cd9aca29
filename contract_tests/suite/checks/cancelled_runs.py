"""CAN-2 and CAN-3: jobs that are asked to be cancelled while they are in flight."""

from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from ...domain import QueueKind
from ...ports import (
    Ack,
    Cancel,
    CancelOutcome,
    ConsumerBackend,
    Dead,
    JobResult,
    JobStatus,
    Next,
    Release,
    ResultStatus,
    Retry,
    Settlement,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..held_lease import HeldLease
from ..registry import check
from ..violation import demand
from .cancelling import CANCELLED, cancel, expect_cancelled

_OK, _CANCELLED, _LOST = SettleOutcome.OK, SettleOutcome.CANCELLED, SettleOutcome.LOST
_MANY = 1200
_PAGE = 500

_ENDS: list[Callable[[str], Settlement]] = [
    lambda receipt: Retry(receipt, 0.0, "again"),
    lambda receipt: Retry(receipt, 3600.0, "later"),
    lambda receipt: Dead(receipt, "rejected", "no good"),
    lambda receipt: Release(receipt),
    lambda receipt: Release(receipt, 3600.0),
]


def _request(queue: QueueUnderTest, *ids: str) -> None:
    """Ask that running jobs are cancelled."""
    outcomes = cancel(queue, *ids)
    demand("CAN-4", set(outcomes) == {CancelOutcome.REQUESTED}, f"cancelling what runs was {outcomes}")


@check("CAN-2", needs="cancel")
def a_consumer_learns_of_a_cancellation_by_extend(context: CheckContext) -> None:
    """It is told of that job each time, and of no other; both clients see the job run on until it ends."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        queue.publish("a", "b", "c")
        consumer = other.open_consumer(queue.name, lease_s=600.0)
        receipts = [queue.receive_one(consumer).receipt for _ in range(3)]
        demand("CAN-2", consumer.extend(receipts) == [_OK] * 3, "told before anybody cancelled")
        _request(queue, "b")
        for _ in range(2):
            told = consumer.extend(receipts)
            demand("CAN-2", told == [_OK, _CANCELLED, _OK], f"after b was cancelled, extend says {told}")
        status = queue.backend.status(queue.name, "b")
        demand("CAN-2", status is JobStatus.RUNNING, f"a job that is to be cancelled, and runs, is {status}")
        demand("CAN-2", queue.backend.result(queue.name, "b") is None, "it has a result while it runs")
        queue.expect_counts(in_flight=3)
        queue.settle_ok(consumer, Cancel(receipts[1]))
        expect_cancelled(queue, "b", clause="CAN-3")
        told = consumer.extend(receipts)
        demand("CAN-2", (told[0], told[2]) == (_OK, _OK), f"the others are {told}")
        demand("CAN-2", told[1] not in (_OK, _CANCELLED), f"extending what ended was answered {told[1]}")


@check("CAN-2", "LSE-3", needs="cancel")
def a_lease_is_extended_also_of_a_job_to_be_cancelled(context: CheckContext) -> None:
    """Its handler may need time to stop: as long as its consumer extends the lease, it goes to nobody."""
    context.keep_lease(lambda lease: _extend_and_wait(context, lease))


def _extend_and_wait(context: CheckContext, lease: HeldLease) -> None:
    with context.queue() as queue:
        queue.publish("job")
        consumer, other = queue.consumer(lease_s=lease.seconds), queue.consumer()
        receipt = lease.renewed_by(lambda: queue.receive_one(consumer)).receipt
        _request(queue, "job")
        for _ in range(4):
            context.harness.advance(lease.seconds / 2)
            told = lease.renewed_by(lambda: consumer.extend([receipt]))
            demand("CAN-2", told == [_CANCELLED], f"extending it was answered {told}")
            queue.receive_nothing(other)
        queue.settle_ok(consumer, Cancel(receipt))


@check("CAN-3", needs="cancel")
def a_job_asked_to_be_cancelled_ends_so(context: CheckContext) -> None:
    """Whatever else its consumer settles it with, it is gone: not ready, not delayed, not dead."""

    @context.property(kind=st.sampled_from(_kinds(context)), told=st.booleans())
    def _(kind: QueueKind, told: bool) -> None:
        with context.queue(kind) as queue:
            consumer = queue.consumer()
            for number, end in enumerate(_ENDS):
                id_ = f"job-{number}"
                queue.publish(id_, priority=3 if kind is QueueKind.PRIORITY else 0)
                receipt = queue.receive_one(consumer).receipt
                _request(queue, id_)
                if told:
                    consumer.extend([receipt])
                settlement = end(receipt)
                outcome = queue.settle(consumer, settlement)
                demand("CAN-3", outcome is _CANCELLED, f"{type(settlement).__name__} was answered {outcome}")
                queue.expect_counts()
                expect_cancelled(queue, id_, clause="CAN-3")
                again = queue.settle(consumer, settlement)
                demand("SET-1", again is SettleOutcome.ALREADY, f"settling it again was answered {again}")
                assert cancel(queue, id_) == [CancelOutcome.CANCELLED]
            queue.receive_nothing(consumer)
            assert queue.backend.redrive(queue.name) == queue.backend.purge(queue.name) == 0


def _kinds(context: CheckContext) -> list[QueueKind]:
    able = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    return [kind for kind in QueueKind if able.get(kind, True)]


@check("CAN-3", "RES-2", needs="cancel")
def a_job_that_is_done_first_stays_done(context: CheckContext) -> None:
    """An ack counts, with its output, though the job was asked to be cancelled; a cancel then is too late."""
    for output in (None, b'{"total":1}'):
        with context.queue() as queue:
            queue.publish("job")
            consumer = queue.consumer()
            receipt = queue.receive_one(consumer).receipt
            _request(queue, "job")
            consumer.extend([receipt])
            outcome = queue.settle(consumer, Ack(receipt, output))
            demand("CAN-3", outcome is _OK, f"the ack was answered {outcome}")
            result = queue.backend.result(queue.name, "job")
            demand("CAN-3", result == JobResult(ResultStatus.DONE, output), f"its result is {result}")
            demand("CAN-4", cancel(queue, "job") == [CancelOutcome.TOO_LATE], "cancelling it isn't too late")
            queue.expect_counts()


@check("CAN-3", "THEN-1", needs="cancel")
def a_job_that_is_done_first_has_its_next_jobs(context: CheckContext) -> None:
    """An ack counts with all that it says, though the job was asked to be cancelled."""
    if not context.capabilities.then:
        return  # what is refused of it, others check
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        receipt = queue.receive_one(consumer).receipt
        _request(queue, "job")
        then = (Next(queue.name, queue.message("next")),)
        outcome = queue.settle(consumer, Ack(receipt, then=then))
        demand("CAN-3", outcome is _OK, f"the ack was answered {outcome}")
        came = queue.receive_one(consumer)
        demand("THEN-1", came.id == "next", f"after the job, {came.id} came")
        queue.settle_ok(consumer, Ack(came.receipt))


@check("CAN-3", needs="cancel")
def a_consumer_may_end_a_job_as_cancelled(context: CheckContext) -> None:
    """A Cancel counts once, also of a job that nobody asked to be cancelled."""
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        receipt = queue.receive_one(consumer).receipt
        queue.settle_ok(consumer, Cancel(receipt))
        expect_cancelled(queue, "job", clause="CAN-3")
        again = queue.settle(consumer, Cancel(receipt))
        demand("SET-1", again is SettleOutcome.ALREADY, f"a second Cancel was answered {again}")
        queue.expect_counts()


@check("CAN-3", "SET-1", needs="cancel")
def a_batch_with_cancelled_jobs_is_answered_in_order(context: CheckContext) -> None:
    """Of one batch, those that were asked to be cancelled are, and the others are settled as they say."""
    with context.queue() as queue:
        names = ("acked", "retried", "x-retried", "dead", "x-dead", "released", "x-released", "x-acked")
        queue.publish(*names)
        consumer = queue.consumer()
        receipts = [queue.receive_one(consumer).receipt for _ in names]
        _request(queue, *(name for name in names if name.startswith("x-")))
        batch: list[Settlement] = [
            Ack(receipts[0], b"{}"),
            Retry(receipts[1], 3600.0, "later"),
            Retry(receipts[2], 3600.0, "later"),
            Dead(receipts[3], "rejected", "no good"),
            Dead(receipts[4], "rejected", "no good"),
            Release(receipts[5]),
            Release(receipts[6]),
            Ack(receipts[7]),
        ]
        outcomes = consumer.settle(batch).outcomes
        expected = [_OK, _OK, _CANCELLED, _OK, _CANCELLED, _OK, _CANCELLED, _OK]
        demand("CAN-3", outcomes == expected, f"the answers are {outcomes}")
        queue.expect_counts(ready=1, delayed=1, dead=1)
        expect_cancelled(queue, "x-retried", "x-dead", "x-released", clause="CAN-3")
        done = queue.backend.result(queue.name, "x-acked")
        demand("CAN-3", done == JobResult(ResultStatus.DONE), f"what was acked has {done}")


@check("CAN-3", "LSE-2", needs="cancel")
def a_cancelled_job_whose_consumer_died_comes_to_nobody(context: CheckContext) -> None:
    """When its lease ends, it has ended as cancelled: who waits is woken, and the old receipt is lost."""
    context.with_longer_leases(partial(_a_cancelled_job_ends_with_its_lease, context))


def _cancel_a_leased_job(
    context: CheckContext, queue: QueueUnderTest, doomed: ConsumerBackend, lease_s: float
) -> str | None:
    """Have a consumer with such a lease take two jobs, and cancel the first; return its receipt.

    Returns:
        None if the lease may have ended before the cancel.
    """
    queue.publish("job", "other")
    elapsed_s = context.stopwatch()
    receipt, _ = (queue.receive_one(doomed).receipt for _ in range(2))
    (outcome,) = queue.backend.cancel(queue.name, ["job"])
    if elapsed_s() >= lease_s:
        return None
    demand("CAN-4", outcome is CancelOutcome.REQUESTED, f"cancelling what runs was answered {outcome}")
    return receipt


def _a_cancelled_job_ends_with_its_lease(context: CheckContext, lease_s: float) -> bool:
    """Check it, and return True; return False if the lease may have ended before the cancel."""
    harness = context.harness
    with context.queue() as queue:
        doomed = queue.consumer(lease_s=lease_s)
        receipt = _cancel_a_leased_job(context, queue, doomed, lease_s)
        if receipt is None:
            return False
        harness.crash(doomed)
        waiting = context.start(lambda: queue.backend.result(queue.name, "job", timeout_s=300.0))
        harness.advance(harness.redelivery_s(lease_s))
        consumer = queue.consumer()
        delivery = queue.receive_one(consumer)
        demand("CAN-3", delivery.id == "other", f"{delivery.id} was delivered again")
        demand("RTY-3", delivery.crashes == 1, f"the other job has {delivery.crashes} crashes")
        queue.receive_nothing(consumer)
        found = context.finish(waiting)
        demand("CAN-3", found == CANCELLED, f"the wait ended with {found}")
        expect_cancelled(queue, "job", clause="CAN-3")
        queue.expect_counts(in_flight=1)
        late = queue.settle(doomed, Ack(receipt))
        demand("LSE-4", late is _LOST, f"an ack after the lease had ended was answered {late}")
        return True


@check("CAN-3", needs="cancel")
def a_purge_does_not_hide_that_a_job_was_cancelled(context: CheckContext) -> None:
    """A job whose lease ended after it was cancelled has ended so: a purge neither drops nor counts it."""
    context.with_longer_leases(partial(_a_purge_leaves_a_cancelled_job, context))


def _a_purge_leaves_a_cancelled_job(context: CheckContext, lease_s: float) -> bool:
    """Check it, and return True; return False if the lease may have ended before the cancel."""
    harness = context.harness
    with context.queue() as queue:
        doomed = queue.consumer(lease_s=lease_s)
        if _cancel_a_leased_job(context, queue, doomed, lease_s) is None:
            return False
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(lease_s))
        purged = queue.backend.purge(queue.name)
        demand("CAN-3", purged == 1, f"of a job that waited and one that had ended, {purged} were purged")
        expect_cancelled(queue, "job", clause="CAN-3")
        queue.expect_counts()
        queue.receive_nothing(queue.consumer())
        return True


@check("CAN-3", "SET-4", needs="cancel")
def a_consumer_that_closes_leaves_no_cancelled_job(context: CheckContext) -> None:
    """What it holds goes back, but what was asked to be cancelled has ended."""
    with context.queue() as queue:
        queue.publish("a", "b")
        consumer = queue.consumer()
        for _ in range(2):
            queue.receive_one(consumer)
        _request(queue, "a")
        consumer.close()
        expect_cancelled(queue, "a", clause="CAN-3")
        assert queue.drain(queue.consumer(), 1) == ["b"]
        queue.expect_counts()


@check("CAN-3", "CAN-2", "ADM-3", needs="cancel")
def a_request_ends_with_its_job(context: CheckContext) -> None:
    """A later job of the same id isn't asked to be cancelled: after an ack, or if the queue was deleted."""
    with context.queue() as queue:
        consumer = queue.consumer()
        for end in ("ack", "retry", "delete"):
            queue.publish("job")
            receipt = queue.receive_one(consumer).receipt
            _request(queue, "job")
            if end == "delete":
                queue.backend.delete(queue.name)
                queue = context.queue_on(queue.backend)
                consumer = queue.consumer()
                demand("ADM-3", queue.backend.result(queue.name, "job") is None, "a deleted queue's result")
            else:
                queue.settle(consumer, Ack(receipt) if end == "ack" else Retry(receipt, 0.0, "again"))
            queue.publish("job")
            delivery = queue.receive_one(consumer)
            told = consumer.extend([delivery.receipt])
            demand("CAN-2", told == [_OK], f"after {end}, a new job of that id is {told}")
            queue.settle_ok(consumer, Retry(delivery.receipt, 0.0, "again"))
            delivery = queue.receive_one(consumer)
            demand("CAN-3", delivery.attempt == 2, f"the new job comes with attempt {delivery.attempt}")
            queue.settle_ok(consumer, Ack(delivery.receipt))


@check("CAN-2", "CAN-3", needs="cancel")
def many_running_jobs_are_cancelled_at_once(context: CheckContext) -> None:
    """One call asks 1,200 running jobs to be cancelled, one extend tells of all, and one settle ends all."""
    ids = [f"job-{number:04}" for number in range(_MANY)]
    with context.queue() as queue:
        queue.publish(*ids, "stays")
        consumer = queue.consumer()
        held: dict[str, str] = {}
        while len(held) <= _MANY:
            came = queue.receive(consumer, _PAGE)
            demand("CAN-2", came, f"only {len(held)} came")
            held |= {delivery.id: delivery.receipt for delivery in came}
        _request(queue, *ids)
        told = dict(zip(held, consumer.extend(list(held.values())), strict=True))
        demand("CAN-2", told.pop("stays") is _OK, "told of a job that nobody cancelled")
        demand("CAN-2", set(told.values()) == {_CANCELLED}, "some jobs weren't told of")
        outcomes = set(consumer.settle([Cancel(held[id_]) for id_ in ids]).outcomes)
        demand("CAN-3", outcomes == {_OK}, f"the answers are {outcomes}")
        queue.expect_counts(in_flight=1)
        results = queue.backend.results(queue.name, ids)
        demand("CAN-3", list(results.values()) == [CANCELLED] * _MANY, f"{len(results)} results")
