"""LSE-4: a receipt settles and extends its own delivery, and no other of the same job or consumer."""

from collections.abc import Callable, Sequence
from functools import partial

from ...domain import Queue
from ...domain.job_progress import Progress
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    JobResult,
    Lease,
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

_ENDS: tuple[Callable[[str], Settlement], ...] = (
    Ack,
    lambda receipt: Ack(receipt, b"{}"),
    lambda receipt: Retry(receipt, 0.0, "late"),
    lambda receipt: Dead(receipt, "rejected", "late"),
    Release,
    lambda receipt: Release(receipt, 3600.0),
)
_JOBS = [f"job-{number}" for number in range(len(_ENDS) + 1)]
"""One for each way to settle, and one to extend: an adapter may remember that a receipt is lost."""


def _hold(queue: QueueUnderTest, consumer: ConsumerBackend) -> list[str]:
    """Receive every job, and return their receipts in the order of :data:`_JOBS`."""
    held: dict[str, str] = {}
    while len(held) < len(_JOBS):
        came = queue.receive(consumer, len(_JOBS))
        assert came, f"of {len(_JOBS)} jobs only {len(held)} came"
        held |= {delivery.id: delivery.receipt for delivery in came}
    return [held[id_] for id_ in _JOBS]


def _lose(context: CheckContext, queue: QueueUnderTest, lease_s: float) -> None:
    """Have all leases of the queue's client be lost."""
    if context.capabilities.lease is Lease.CONNECTION:
        context.harness.sever(queue.backend)
    else:
        context.harness.advance(context.harness.redelivery_s(lease_s))


def _expect_no_effect(
    consumer: ConsumerBackend, receipts: Sequence[str], whose: str, clause: str, expected: SettleOutcome
) -> None:
    """Settle, each in another way, and extend, by receipts that must do nothing."""
    (outcome,) = consumer.extend(receipts[-1:])
    demand("LSE-4", outcome is not SettleOutcome.OK, f"extending {whose} was answered {outcome}")
    for make, receipt in zip(_ENDS, receipts, strict=False):
        settlement = make(receipt)
        (outcome,) = consumer.settle([settlement]).outcomes
        kind = type(settlement).__name__
        demand(clause, outcome is expected, f"{kind} by {whose} was answered {outcome}, not {expected}")


def _ack_all(consumer: ConsumerBackend, receipts: Sequence[str], clause: str) -> None:
    """Ack what is held, which must be undisturbed."""
    outcomes = consumer.settle([Ack(receipt) for receipt in receipts]).outcomes
    demand(clause, set(outcomes) == {SettleOutcome.OK}, f"then the holder's acks were answered {outcomes}")


@check("LSE-4")
def a_consumer_that_holds_its_job_again_has_another_receipt(context: CheckContext) -> None:
    """After a lease was lost and the same consumer got the job again, the first receipt is LOST."""
    context.keep_lease(lambda lease: _hold_again(context, lease))


def _hold_again(context: CheckContext, lease: HeldLease) -> None:
    with context.queue() as queue:
        queue.publish(*_JOBS)
        consumer = queue.consumer(lease_s=lease.seconds)
        stale: list[list[str]] = []
        for _ in range(2):
            stale.append(_hold(queue, consumer))
            _lose(context, queue, lease.seconds)
        held = lease.renewed_by(lambda: _hold(queue, consumer))
        for receipts in stale:
            demand("LSE-4", not set(held) & set(receipts), "a job came again under the same receipt")
            _expect_no_effect(consumer, receipts, "a stale receipt", "LSE-4", SettleOutcome.LOST)
        _ack_all(consumer, held, "LSE-4")
        queue.expect_counts()


@check("LSE-4")
def what_is_stale_and_what_is_held_are_told_apart(context: CheckContext) -> None:
    """One call with held and stale receipts of the same jobs by turns acks what is held, and no more."""
    context.keep_lease(lambda lease: _settle_both(context, lease))


def _settle_both(context: CheckContext, lease: HeldLease) -> None:
    with context.queue() as queue:
        queue.publish(*_JOBS)
        consumer = queue.consumer(lease_s=lease.seconds)
        stale = _hold(queue, consumer)
        _lose(context, queue, lease.seconds)
        held = lease.renewed_by(lambda: _hold(queue, consumer))
        mixed = [receipt for pair in zip(held, reversed(stale), strict=True) for receipt in pair]
        outcomes = consumer.settle([Ack(receipt) for receipt in mixed]).outcomes
        expected = [SettleOutcome.OK, SettleOutcome.LOST] * len(held)
        demand("LSE-4", outcomes == expected, f"acks of held and stale receipts by turns got {outcomes}")
        queue.expect_counts()


@check("LSE-3", "LSE-4")
def a_stale_receipt_extends_nothing(context: CheckContext) -> None:
    """Extending by the first receipt doesn't keep the lease that the same consumer has on the job again."""
    if context.capabilities.lease is Lease.CONNECTION:
        a_consumer_that_holds_its_job_again_has_another_receipt(context)
        return
    harness = context.harness
    with context.queue() as queue:
        queue.publish("job")
        consumer, heir = queue.consumer(lease_s=harness.lease_s), queue.consumer()
        stale = queue.receive_one(consumer).receipt
        _lose(context, queue, harness.lease_s)
        queue.receive_one(consumer)
        for _ in range(4):
            harness.advance(harness.redelivery_s(harness.lease_s) / 3)
            (outcome,) = consumer.extend([stale])
            demand("LSE-4", outcome is SettleOutcome.LOST, f"extending a stale receipt got {outcome}")
        demand("LSE-4", queue.receive_one(heir).number == 3, "a stale receipt extended the lease of another")


@check("LSE-3", "LSE-4")
def what_is_lost_disturbs_nothing_that_is_held(context: CheckContext) -> None:
    """One call extends, and one settles, what is held and what was lost: each has its own answer."""
    if context.capabilities.lease is Lease.CONNECTION:
        return  # all leases of a connection are lost together
    context.keep_lease(partial(_lose_some, context), shortest_s=1.0)


_LOST = {0, 1, 3, 4, 8, 11}
"""Of twelve jobs, those whose leases are lost: for each way to settle one, and in no regular order."""


def _lose_some(context: CheckContext, lease: HeldLease) -> None:
    """Hold twelve jobs of two queues, lose half of them, and settle all in six ways, by one call.

    One consumer has extended all by one call before, and so knows what is lost; the other doesn't.
    """
    advance, ways = context.harness.advance, _ENDS * 2
    expected = [SettleOutcome.LOST if n in _LOST else SettleOutcome.OK for n in range(len(ways))]
    with context.queues(2) as queues:
        for queue in queues:
            queue.publish(*[f"job-{n}" for n in range(len(ways))])
        holders = [queue.consumer(lease_s=lease.seconds) for queue in queues]
        lease.begin()
        held = lease.renewed_by(
            lambda: [
                [queue.receive_one(holder).receipt for _ in ways]
                for queue, holder in zip(queues, holders, strict=True)
            ]
        )
        kept = [[receipt for n, receipt in enumerate(receipts) if n not in _LOST] for receipts in held]
        advance(lease.seconds / 2)
        lease.renewed_by(lambda: [holder.extend(some) for holder, some in zip(holders, kept, strict=True)])
        advance(context.harness.redelivery_s(lease.seconds / 2))
        extended, _ = lease.renewed_by(lambda: (holders[0].extend(held[0]), holders[1].extend(kept[1])))
        demand("LSE-4", extended == expected, f"extended together, they were answered {extended}")
        advance(0.7 * lease.seconds)  # longer than what is held would be, but for that
        for queue, holder, receipts in zip(queues, holders, held, strict=True):
            heir = queue.consumer()
            back = {queue.receive_one(heir).id for _ in _LOST}
            demand("LSE-3", back == {f"job-{n}" for n in _LOST}, f"{back} came back, and {_LOST} were lost")
            queue.receive_nothing(heir)
            batch = [make(receipt) for make, receipt in zip(ways, receipts, strict=True)]
            outcomes = holder.settle(batch).outcomes
            demand("LSE-4", outcomes == expected, f"settled together, they were answered {outcomes}")


@check("LSE-4", "RES-2")
def a_late_settlement_after_the_heirs_is_lost(context: CheckContext) -> None:
    """When another consumer has acked the job, the first one's receipt is LOST, not ALREADY."""
    lease_s = context.harness.lease_s
    results = context.capabilities.results
    with context.backends(2) as (first, second):
        queue, other = context.queue_on(first), context.queue_on(second)
        queue.publish(*_JOBS)
        slow, heir = queue.consumer(lease_s=lease_s), other.consumer()
        stale = _hold(queue, slow)
        _lose(context, queue, lease_s)
        acks = [Ack(receipt, b'"heir"' if results else None) for receipt in _hold(other, heir)]
        outcomes = heir.settle(acks).outcomes
        demand("SET-1", set(outcomes) == {SettleOutcome.OK}, f"the heir's acks were answered {outcomes}")
        _expect_no_effect(slow, stale, "a stale receipt of a job that is done", "LSE-4", SettleOutcome.LOST)
        queue.expect_counts()
        for id_ in _JOBS if results else ():
            found = queue.backend.result(queue.name, id_)
            expected = JobResult(ResultStatus.DONE, b'"heir"')
            demand("RES-2", found == expected, f"the result is {found}, expected the heir's")


@check("LSE-4")
def a_siblings_receipt_is_lost(context: CheckContext) -> None:
    """A consumer can't settle or extend what another holds, of the same client or not, by its receipt."""
    with context.backends(2) as (first, second):
        queue = context.queue_on(first)
        queue.publish(*_JOBS)
        holder = queue.consumer()
        held = _hold(queue, holder)
        for sibling in (queue.consumer(), second.open_consumer(queue.name)):
            _expect_no_effect(sibling, held, "a sibling's receipt", "LSE-4", SettleOutcome.LOST)
        queue.expect_counts(in_flight=len(_JOBS))
        _ack_all(holder, held, "LSE-4")


@check("SET-1", "LSE-4")
def a_settled_receipt_settles_no_other_delivery(context: CheckContext) -> None:
    """After a retry or a release the receipt is ALREADY, though another consumer holds the job by then."""
    ends: tuple[Callable[[str], Settlement], ...] = (lambda receipt: Retry(receipt, 0.0, "again"), Release)
    for make in ends:
        with context.queue() as queue:
            queue.publish(*_JOBS)
            consumer, heir = queue.consumer(), queue.consumer()
            settled = _hold(queue, consumer)
            outcomes = consumer.settle([make(receipt) for receipt in settled]).outcomes
            demand("SET-1", set(outcomes) == {SettleOutcome.OK}, f"settling what is held got {outcomes}")
            held = _hold(queue, heir)
            _expect_no_effect(consumer, settled, "a settled receipt", "SET-1", SettleOutcome.ALREADY)
            _ack_all(heir, held, "SET-1")
            queue.expect_counts()


@check("ADM-3", "LSE-4")
def receipts_of_a_deleted_queue_settle_nothing_of_its_successor(context: CheckContext) -> None:
    """Receipts of a deleted queue are LOST, also while jobs of the next queue of its name are in flight."""
    with context.queue() as queue:
        queue.publish(*_JOBS)
        consumer = queue.consumer()
        old = _hold(queue, consumer)
        queue.backend.delete(queue.name)
        queue.backend.declare(Queue(queue.name))
        queue.publish(*_JOBS)
        held = _hold(queue, consumer)
        demand("ADM-3", not set(old) & set(held), "the successor gives out the same receipts")
        _expect_no_effect(consumer, old, "a deleted queue's receipt", "ADM-3", SettleOutcome.LOST)
        queue.expect_counts(in_flight=len(_JOBS))
        _ack_all(consumer, held, "ADM-3")


@check("LSE-4")
def a_lost_receipt_reports_nothing(context: CheckContext) -> None:
    """Where progress is kept, what a consumer tells of a job that another has by now changes nothing."""
    lease_s = context.harness.lease_s
    if context.capabilities.lease is Lease.CONNECTION:
        return  # its receipts are lost with the connection by which they could be told
    with context.queue() as queue:
        queue.publish("job")
        late, heir = queue.consumer(lease_s=lease_s), queue.consumer()
        lost = queue.receive_one(late).receipt
        late.report(lost, Progress(1, 10))
        if not queue.backend.progress(queue.name):
            return  # it isn't kept
        context.harness.advance(context.harness.redelivery_s(lease_s))
        heir.report(queue.receive_one(heir).receipt, Progress(2, 10))
        late.report(lost, Progress(9, 10))
        found = queue.backend.progress(queue.name)
        demand(
            "LSE-4", found == {"job": Progress(2, 10)}, f"after a report by a lost receipt, there is {found}"
        )
