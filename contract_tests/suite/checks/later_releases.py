"""SET-4: releases that have a delay: the job is ready later, and nothing is spent."""

from hypothesis import strategies as st

from ...domain import QueueKind
from ...ports import Ack, Dead, Release, Retry, Settlement, SettleOutcome
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_OK, _ALREADY = SettleOutcome.OK, SettleOutcome.ALREADY
_LATER_S = 3600.0


@check("SET-4", "DLY-1", takes_long=True)
def a_later_release_is_never_early_and_spends_nothing(context: CheckContext) -> None:
    """Released for a time, again and again, a job comes when it is due, with its attempt and its crashes."""
    soon_s = context.capabilities.delay_resolution_s + 0.2

    @context.waited_property(
        delays=st.lists(st.sampled_from([0.0, soon_s]), min_size=1, max_size=2), tried=st.booleans()
    )
    def _(delays: list[float], tried: bool) -> None:
        with context.queue() as queue:
            queue.publish("job")
            consumer = queue.consumer()
            delivery = queue.receive_one(consumer)
            if tried:
                queue.settle_ok(consumer, Retry(delivery.receipt, 0.0, "error of the first attempt"))
                delivery = queue.receive_one(consumer)
            expected, number = (1 + tried, 0), delivery.number
            for delay_s in [soon_s, *delays]:
                sent, number = context.harness.now(), number + 1
                queue.settle_ok(consumer, Release(delivery.receipt, delay_s))
                delivery = queue.receive_when_due(consumer, sent + delay_s, "SET-4")
                spent = (delivery.attempt, delivery.crashes)
                demand("SET-4", spent == expected, f"attempt and crashes are {spent}, not {expected}")
                demand("SET-4", delivery.number == number, f"delivery {delivery.number} came as {number}")
            queue.settle_ok(consumer, Dead(delivery.receipt, "rejected", "no good"))
            (letter,) = queue.backend.dead_letters(queue.name)
            history = [failure.error for failure in letter.history]
            kept = ["error of the first attempt"] * tried
            demand("SET-4", history == kept, f"after later releases, the history is {history}")


@check("SET-4")
def a_later_release_keeps_a_crash(context: CheckContext) -> None:
    """What a job has spent before, crashes included, it has spent after a later release as well."""
    harness = context.harness
    soon_s = context.capabilities.delay_resolution_s + 0.1
    with context.queue() as queue:
        queue.publish("job")
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = queue.consumer()
        before = queue.receive_one(consumer)
        sent = harness.now()
        queue.settle_ok(consumer, Release(before.receipt, soon_s))
        after = queue.receive_when_due(consumer, sent + soon_s, "SET-4")
        spent = [(each.attempt, each.crashes) for each in (before, after)]
        demand("SET-4", spent == [(1, 1)] * 2, f"attempt and crashes, before and after: {spent}")


@check("SET-4", "CNT-1", "SET-1")
def a_later_release_is_counted_as_delayed(context: CheckContext) -> None:
    """It is delayed and not in flight, its receipt has settled, and consumer and client may go."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        queue.publish("job", "next")
        consumer = queue.consumer()
        receipt = queue.receive_one(consumer).receipt
        queue.settle_ok(consumer, Release(receipt, _LATER_S))
        queue.expect_counts(ready=1, delayed=1)
        late = (
            Ack(receipt),
            Release(receipt),
            Release(receipt, _LATER_S),
            Retry(receipt, 0.0, "late"),
            Dead(receipt, "rejected", "late"),
        )
        for settlement in late:
            outcome = queue.settle(consumer, settlement)
            name = type(settlement).__name__
            demand("SET-4", outcome is _ALREADY, f"{name} after a later release was answered {outcome}")
        (extended,) = consumer.extend([receipt])
        demand("LSE-4", extended is not _OK, "a receipt that was released could be extended")
        came = queue.receive_one(consumer).id
        demand("SET-4", came == "next", f"{came} came, and job was released for an hour")
        consumer.close()
        mine.close()
        rest = context.queue_on(other)
        rest.expect_counts(ready=1, delayed=1)
        purged = other.purge(rest.name)
        demand("ADM-2", purged == 2, f"a purge dropped {purged}, of one ready and one delayed job")


@check("SET-4", "SET-1")
def a_batch_releases_each_as_it_says(context: CheckContext) -> None:
    """Among others in one batch, each release has its own delay, and each receipt its own answer."""
    names = ["later", "at once", "acked", "retried", "dead", "much later", "kept"]
    with context.queue() as queue:
        queue.publish(*[name.replace(" ", "-") for name in names])
        consumer = queue.consumer()
        later, at_once, acked, retried, dead, much_later, _ = (
            queue.receive_one(consumer).receipt for _ in names
        )
        batch: list[Settlement] = [
            Release(later, _LATER_S),
            Release(at_once),
            Ack(acked),
            Retry(retried, _LATER_S, "later"),
            Dead(dead, "rejected", "no good"),
            Release(much_later, 2 * _LATER_S),
            Release(later, 0.0),
        ]
        outcomes = consumer.settle(batch).outcomes
        demand("SET-1", outcomes == [_OK] * 6 + [_ALREADY], f"the answers were {outcomes}")
        queue.expect_counts(ready=1, delayed=3, in_flight=1, dead=1)
        came = queue.receive_one(queue.consumer()).id
        demand("SET-4", came == "at-once", f"{came} came, and at-once was released without a delay")


@check("SET-4")
def what_is_released_for_later_blocks_no_other(context: CheckContext) -> None:
    """1,200 jobs are released for an hour in one call; one that is published then comes at once."""
    ids = [f"job-{number:04}" for number in range(1200)]
    with context.queue() as queue:
        for at in range(0, len(ids), 400):
            queue.publish(*ids[at : at + 400])
        consumer = queue.consumer()
        receipts: list[str] = []
        while len(receipts) < len(ids):
            came = queue.receive(consumer, len(ids))
            demand("RCV-1", came, f"only {len(receipts)} of {len(ids)} came")
            receipts += [delivery.receipt for delivery in came]
        outcomes = consumer.settle([Release(receipt, _LATER_S) for receipt in receipts]).outcomes
        done = outcomes.count(_OK)
        demand("SET-4", done == len(outcomes) == len(ids), f"of {len(ids)}, {done} were answered OK")
        queue.expect_counts(delayed=len(ids))
        queue.publish("new")
        first = queue.receive_one(consumer).id
        demand("SET-4", first == "new", f"{first} came, and was released for an hour")


_PLACES = {
    QueueKind.FIFO: ["before-0", "before-1", "again", "after"],
    QueueKind.STACK: ["after", "again", "before-1", "before-0"],
    QueueKind.PRIORITY: ["before-0", "again", "after", "before-1"],
}
"""In which order jobs come of which one was released for a moment, and those between were published."""


@check("SET-4")
def a_later_release_joins_when_it_is_due(context: CheckContext) -> None:
    """It is behind those published before then, on a stack before them, and by its own priority."""
    able = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    for kind, expected in _PLACES.items():
        if able.get(kind, True):
            _expect_place(context, kind, expected)


def _expect_place(context: CheckContext, kind: QueueKind, expected: list[str]) -> None:
    """Release a job for a moment, publish two before it is due and one after, and demand their order.

    With a longer moment again where this machine was too slow to publish before it was due.
    """
    shortest_s = context.capabilities.delay_resolution_s + 0.3
    high = 7 if kind is QueueKind.PRIORITY else 0
    for factor in (1, 8, 64):
        with context.queue(kind) as queue:
            queue.publish("again", priority=high)
            consumer = queue.consumer()
            receipt = queue.receive_one(consumer).receipt
            began = context.harness.now()
            queue.settle_ok(consumer, Release(receipt, factor * shortest_s))
            queue.publish("before-0", priority=high)
            queue.publish("before-1")
            if context.harness.now() - began >= factor * shortest_s:
                continue
            _wait_until_due(queue, factor * shortest_s)
            queue.publish("after", priority=high)
            came = queue.drain(queue.consumer(), 4)
            # A broker may notice that a job is due when it next looks, and have "after" before it.
            either = [expected, _swapped(expected)]
            demand("SET-4", came in either, f"in a {kind} they came as {came}, not {expected}")
            return
    raise AssertionError(f"this machine was too slow to publish within {factor * shortest_s:g} s")


def _wait_until_due(queue: QueueUnderTest, delay_s: float) -> None:
    queue.context.harness.advance(delay_s + queue.backend.capabilities.delay_resolution_s)
    queue.expect_counts(ready=3)


def _swapped(ids: list[str]) -> list[str]:
    names = {"again": "after", "after": "again"}
    return [names.get(id_, id_) for id_ in ids]
