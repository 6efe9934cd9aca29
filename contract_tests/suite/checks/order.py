"""ORD: in which order undisturbed jobs are delivered, and where those that came back stand."""

from hypothesis import strategies as st

from ...domain import Queue, QueueKind
from ...domain.errors import QueueNotFound, UnsupportedCapability
from ...ports import Ack, Redelivery, Release
from ..check_context import CheckContext
from ..registry import check, refusal
from ..violation import demand

STEPS = st.lists(st.integers(-3, 4).filter(bool), min_size=1, max_size=12)
"""Positive: publish so many in one batch. Negative: receive and ack so many."""


@check("ORD-1")
def fifo_keeps_the_publish_order(context: CheckContext) -> None:
    """However publishing and receiving interleave, the oldest comes first."""

    @context.property(steps=STEPS)
    def _(steps: list[int]) -> None:
        _interleave(context, QueueKind.FIFO, steps)


@check("ORD-2", needs="stack")
def stack_serves_the_newest(context: CheckContext) -> None:
    """However publishing and receiving interleave, the newest comes first."""

    @context.property(steps=STEPS)
    def _(steps: list[int]) -> None:
        _interleave(context, QueueKind.STACK, steps)


def _interleave(context: CheckContext, kind: QueueKind, steps: list[int]) -> None:
    clause = "ORD-1" if kind is QueueKind.FIFO else "ORD-2"
    with context.queue(kind) as queue:
        consumer, waiting, published = queue.consumer(), list[str](), 0
        for step in [*steps, -100]:
            if step > 0:
                ids = [f"job-{n}" for n in range(published, published + step)]
                queue.publish(*ids)
                waiting += ids
                published += step
                continue
            for _ in range(min(-step, len(waiting))):
                expected = waiting.pop(0 if kind is QueueKind.FIFO else -1)
                (came,) = queue.drain(consumer, 1)
                demand(clause, came == expected, f"{came} came, expected {expected}")


@check("ORD-3", needs="priority")
def the_highest_priority_comes_first(context: CheckContext) -> None:
    """Strictly by priority, and in publish order within one, in batches as one by one."""

    @context.property(
        priorities=st.lists(st.integers(0, 9), min_size=1, max_size=20), batch=st.integers(1, 5)
    )
    def _(priorities: list[int], batch: int) -> None:
        with context.queue(QueueKind.PRIORITY) as queue:
            for number, priority in enumerate(priorities):
                queue.publish(f"job-{number}", priority=priority)
            order = sorted(range(len(priorities)), key=lambda number: (-priorities[number], number))
            consumer, came = queue.consumer(), list[str]()
            while len(came) < len(priorities):
                deliveries = queue.receive(consumer, batch)
                demand("I1", deliveries, f"{len(priorities) - len(came)} jobs never came")
                came += [delivery.id for delivery in deliveries]
                consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
            expected = [f"job-{number}" for number in order]
            demand("ORD-3", came == expected, f"{came} came, expected {expected}")


@refusal("stack")
def a_stack_is_refused(context: CheckContext) -> None:
    """Declaring a stack raises UnsupportedCapability, and creates nothing."""
    _refused(context, QueueKind.STACK)


@refusal("priority")
def a_priority_queue_is_refused(context: CheckContext) -> None:
    """Declaring a priority queue raises UnsupportedCapability, and creates nothing."""
    _refused(context, QueueKind.PRIORITY)


def _refused(context: CheckContext, kind: QueueKind) -> None:
    with context.backends(1) as (backend,):
        try:
            backend.declare(Queue("jobs", kind))
        except UnsupportedCapability:
            pass
        else:
            raise AssertionError(f"a {kind} queue could be declared, against the declared capabilities")
        try:
            backend.counts("jobs")
        except QueueNotFound:
            return
        raise AssertionError(f"the refused {kind} queue exists")


@check("ORD-4")
def a_job_that_came_back_is_not_at_the_end(context: CheckContext) -> None:
    """A released job is delivered before those that were behind it, as near the head as declared."""
    with context.queue() as queue:
        queue.publish("first", *[f"job-{n}" for n in range(20)])
        consumer = queue.consumer()
        queue.settle_ok(consumer, Release(queue.receive_one(consumer).receipt))
        came = queue.drain(consumer, 21)
        furthest = 10 if context.capabilities.redelivery is Redelivery.NEAR_HEAD else 0
        demand("ORD-4", came.index("first") <= furthest, f"it came as number {came.index('first') + 1} of 21")


@check("ORD-4", needs="stack")
def a_job_that_came_back_to_a_stack_is_behind_newer_ones(context: CheckContext) -> None:
    """Jobs that were published while it was away are newer, so they come first; older ones come after it."""
    with context.queue(QueueKind.STACK) as queue:
        queue.publish("oldest", "returned")
        consumer = queue.consumer()
        returned = queue.receive_one(consumer)
        queue.publish("newer", "newest")
        queue.settle_ok(consumer, Release(returned.receipt))
        came = queue.drain(consumer, 4)
        demand("ORD-4", came == ["newest", "newer", "returned", "oldest"], f"they came as {came}")


@check("ORD-4")
def a_crash_puts_jobs_back_where_they_stood(context: CheckContext) -> None:
    """The jobs of a consumer that died come before those that it hadn't taken."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish(*[f"job-{n}" for n in range(20)])
        doomed = queue.consumer(lease_s=harness.lease_s)
        taken = [delivery.id for delivery in queue.receive(doomed, 3)]
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        queue.expect_counts(ready=20)  # a broker on a busy machine may notice the death later than that
        came = queue.drain(queue.consumer(), 20)
        if context.capabilities.redelivery is Redelivery.IN_ORDER:
            demand("ORD-4", came == [f"job-{n}" for n in range(20)], f"they came as {came}")
        elif context.capabilities.redelivery is Redelivery.HEAD:
            demand("ORD-4", set(came[: len(taken)]) == set(taken), f"they came as {came}")
        else:
            demand("ORD-4", max(map(came.index, taken)) <= 10, f"they came as {came}")
