"""ORD: where a job stands that was delayed, retried, redriven or taken with a settlement."""

from collections.abc import Sequence

from ...domain import QueueKind
from ...ports import Ack, Dead, Message, Redelivery, Release, Retry, SettleOutcome
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest, expect_accepted
from ..registry import check
from ..violation import demand


def _arrive_again(
    context: CheckContext, queue: QueueUnderTest, ids: Sequence[str], how: str, soon_s: float
) -> bool:
    """Let jobs arrive anew: retried, redriven or when they are due; behind what was published meanwhile.

    Returns:
        Whether that came before; this machine may be so slow that jobs are due first.
    """
    resolution_s = context.capabilities.delay_resolution_s
    consumer = queue.consumer()
    if how == "delayed":
        sent = context.harness.now()
        for number, id_ in reversed([*enumerate(ids)]):  # what is due first is published last
            queue.publish(id_, delay_s=soon_s * (1 + number))
        queue.publish("before-0", "before-1")
        if context.harness.now() - sent >= soon_s:
            return False
        context.harness.advance(soon_s * len(ids) + 2 * resolution_s)
        queue.expect_counts(ready=len(ids) + 2)
        return True
    queue.publish(*ids)
    receipts = [queue.receive_one(consumer).receipt for _ in ids]
    queue.publish("before-0", "before-1")
    if how == "retried":
        consumer.settle([Retry(receipt, 0.0, "again") for receipt in receipts])
    else:
        consumer.settle([Dead(receipt, "rejected", "no good") for receipt in receipts])
        queue.backend.redrive(queue.name)
    queue.expect_counts(ready=len(ids) + 2)
    return True


@check("SET-2", "DLQ-2", "DLY-2", "ORD-4")
def what_arrives_anew_is_behind_what_waits(context: CheckContext) -> None:
    """A job that was retried or redriven, or is due, joins the queue behind those published before then.

    Delayed jobs join in the order in which they are due. And once there, each has a position that it keeps.
    """
    soon_s = context.capabilities.delay_resolution_s + 0.3
    longer = [("delayed", "DLY-2", factor * soon_s) for factor in (1, 8, 64)]
    for how, clause, delay_s in (("retried", "SET-2", 0.0), ("redriven", "DLQ-2", 0.0), *longer):
        with context.queue() as queue:
            if not _arrive_again(context, queue, ["again-0", "again-1"], how, delay_s):
                continue
            queue.publish("after")
            came = _come_and_go(context, queue, f"jobs {how}")
            demand(clause, came[:2] == ["before-0", "before-1"], f"of jobs {how}, they came as {came}")
            again = [id_ for id_ in came if id_.startswith("again")]
            demand(clause, again == ["again-0", "again-1"], f"of jobs {how} in order, they came as {came}")
            if how != "delayed":  # a broker may notice that a job is due when it next looks
                demand(clause, came[-1] == "after", f"of jobs {how}, they came as {came}")
            else:
                return
    demand("DLY-2", False, f"this machine was too slow to publish within {longer[-1][2]:g} s")


def _come_and_go(context: CheckContext, queue: QueueUnderTest, what: str) -> list[str]:
    """Receive all five jobs and release them, the last one first; return the order in which they came.

    They must then come in that order again, where the broker keeps positions (ORD-4).
    """
    consumer = queue.consumer()
    held = [queue.receive_one(consumer) for _ in range(5)]
    came = [delivery.id for delivery in held]
    for delivery in reversed(held):
        queue.settle_ok(consumer, Release(delivery.receipt))
    again = queue.drain(consumer, 5)
    if context.capabilities.redelivery is Redelivery.IN_ORDER:
        demand("ORD-4", again == came, f"{what} came as {came}, and after a release as {again}")
    return came


@check("ORD-3", needs="priority")
def a_priority_is_kept_over_everything(context: CheckContext) -> None:
    """A job keeps its priority while it is delayed, retried, redriven, released, and after a crash."""
    harness, resolution_s = context.harness, context.capabilities.delay_resolution_s
    soon_s = resolution_s + 0.3
    for how in ("delayed", "retried", "retried later", "redriven", "released", "crashed"):
        with context.queue(QueueKind.PRIORITY) as queue:
            consumer = queue.consumer()
            later = soon_s if how == "delayed" else 0.0
            expect_accepted(queue.backend.publish(queue.name, [Message("high", b"{}", 7, later)]))
            if how == "crashed":
                doomed = queue.consumer(lease_s=harness.lease_s)
                queue.receive_one(doomed)
                harness.crash(doomed)
                harness.advance(harness.redelivery_s(harness.lease_s))
            elif how != "delayed":
                receipt = queue.receive_one(consumer).receipt
                consumer.settle([_give_back(receipt, how, soon_s)])
            if how == "redriven":
                queue.backend.redrive(queue.name)
            harness.advance(soon_s + resolution_s if how in ("delayed", "retried later") else 0.0)
            queue.expect_counts(ready=1)
            queue.publish("low", priority=6)  # its neighbours: no change of its priority goes unseen
            queue.publish("highest", priority=8)
            came = queue.drain(consumer, 3)
            demand("ORD-3", came == ["highest", "high", "low"], f"one of 7 that was {how}: {came} came")


def _give_back(receipt: str, how: str, soon_s: float) -> Retry | Release | Dead:
    match how:
        case "released":
            return Release(receipt)
        case "redriven":
            return Dead(receipt, "rejected", "no good")
        case _:
            return Retry(receipt, soon_s if how == "retried later" else 0.0, "again")


@check("ORD-1", "ORD-4")
def what_is_taken_with_a_settlement_is_in_order(context: CheckContext) -> None:
    """Settling and taking serves the queue's order, jobs that came back included."""
    near_head = context.capabilities.redelivery is Redelivery.NEAR_HEAD
    with context.queue() as queue:
        queue.publish(*[f"job-{number}" for number in range(8)])
        consumer = queue.consumer()
        first = queue.receive_one(consumer)
        came = [first.id]
        receipts = [first.receipt]
        while len(came) < 8:
            settled = consumer.settle([Ack(receipt) for receipt in receipts], take=2)
            demand("SET-1", set(settled.outcomes) == {SettleOutcome.OK}, f"{settled.outcomes}")
            deliveries = settled.deliveries or queue.receive(consumer, 2)
            demand("I1", deliveries, f"only {came} came")
            came += [delivery.id for delivery in deliveries]
            receipts = [delivery.receipt for delivery in deliveries]
        expected = [f"job-{number}" for number in range(8)]
        demand("ORD-1", came == expected, f"taken with settlements, {came} came")
        consumer.settle([Release(receipt) for receipt in receipts])
        queue.publish("newer-0", "newer-1")
        settled = consumer.settle([], take=1)
        first_back = (settled.deliveries or queue.receive(consumer))[0].id
        demand("ORD-4", near_head or first_back in came, f"{first_back} came before one that was released")


@check("ORD-4")
def jobs_released_together_stand_before_those_behind_them(context: CheckContext) -> None:
    """Several jobs that one call releases come before those that were published after them."""
    with context.queue() as queue:
        ids = [f"job-{number}" for number in range(24)]
        queue.publish(*ids)
        consumer = queue.consumer()
        receipts = [queue.receive_one(consumer).receipt for _ in range(4)]
        consumer.settle([Release(receipt) for receipt in receipts])
        queue.expect_counts(ready=24)
        came = queue.drain(consumer, 24)
        furthest = {Redelivery.NEAR_HEAD: 12, Redelivery.HEAD: 3, Redelivery.IN_ORDER: 3}
        positions = [came.index(id_) for id_ in ids[:4]]
        declared = context.capabilities.redelivery
        demand("ORD-4", max(positions) <= furthest[declared], f"released together, they came at {positions}")
        if declared is Redelivery.IN_ORDER:
            demand("ORD-4", came == ids, f"released together, they came as {came}")
