"""CNT-2: looking at the first ready job."""

from functools import partial

from ...domain import QueueKind
from ...domain.errors import UnsupportedCapability
from ...ports import Ack, Dead, Lease, Release, Retry
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check, refusal
from ..violation import demand

_DELAY_S = 0.3


def _expect(queue: QueueUnderTest, expected: bytes | None, why: str) -> None:
    """Look twice: the first look must change nothing."""
    for _ in range(2):
        found = queue.backend.first_ready(queue.name)
        demand("CNT-2", found == expected, f"{why}: it showed {found!r:.80}, not {expected!r:.80}")


@check("CNT-2", needs="first_ready")
def the_first_ready_job_is_shown(context: CheckContext) -> None:
    """It is the job that comes next, all along a queue; none that is delayed, in flight, dead or done."""
    with context.queue() as queue:
        _expect(queue, None, "nothing was published")
        queue.publish("late", delay_s=3600)
        _expect(queue, None, "the only job is delayed")
        queue.publish("a", "b", "c", "d")
        consumer = queue.consumer()
        reject, retry = partial(Dead, reason="rejected", error=""), partial(Retry, delay_s=3600, error="")
        for settle in (Ack, reject, retry):
            shown = queue.backend.first_ready(queue.name)
            delivery = queue.receive_one(consumer)
            demand("CNT-2", shown == delivery.body, f"{delivery.id} came, and it had shown {shown!r:.80}")
            again = queue.backend.first_ready(queue.name)
            demand("CNT-2", shown != again, "a job that is in flight is shown")
            queue.settle_ok(consumer, settle(delivery.receipt))
        last = queue.receive_one(consumer)
        _expect(queue, None, "the only job that isn't delayed or dead is in flight")
        queue.settle_ok(consumer, Release(last.receipt))
        _expect(queue, last.body, "the job was released")
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt))
        _expect(queue, None, "all are dead, delayed or done")


@check("CNT-2", needs="first_ready")
def the_first_is_that_of_the_queues_order(context: CheckContext) -> None:
    """On a stack the newest, and on a priority queue the oldest of the highest priority."""
    kinds = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    for kind in [kind for kind, able in kinds.items() if able]:
        with context.queue(kind) as queue:
            queue.publish("a", "b")
            queue.publish("c", "d", priority=5 if kind is QueueKind.PRIORITY else 0)
            queue.publish("e", priority=2 if kind is QueueKind.PRIORITY else 0)
            consumer = queue.consumer()
            for _ in range(5):
                shown = queue.backend.first_ready(queue.name)
                delivery = queue.receive_one(consumer)
                demand("CNT-2", shown == delivery.body, f"{delivery.id} came, and it had shown {shown!r:.80}")
                queue.settle_ok(consumer, Ack(delivery.receipt))


@check("CNT-2", needs="first_ready")
def what_came_to_its_time_is_shown(context: CheckContext) -> None:
    """A job whose delay or lease is over is shown though no consumer asks for jobs, if no other is ready."""
    with context.queue() as queue:
        queue.publish("due", delay_s=_DELAY_S)
        context.harness.advance(_DELAY_S)
        context.eventually(lambda: _shows_one(queue, "its delay is over"))
        consumer = queue.consumer()
        delivery = queue.receive_one(consumer)
        queue.settle_ok(consumer, Ack(delivery.receipt))
        if context.capabilities.lease is not Lease.TIMED:
            return
        queue.publish("leased")
        lease_s = context.harness.lease_s
        queue.receive_one(queue.consumer(lease_s=lease_s))
        context.harness.advance(context.harness.redelivery_s(lease_s))
        context.eventually(lambda: _shows_one(queue, "its lease is over"))


def _shows_one(queue: QueueUnderTest, why: str) -> None:
    demand("CNT-2", queue.backend.first_ready(queue.name) is not None, f"{why}, and it isn't shown")


@refusal("first_ready")
def a_look_is_refused(context: CheckContext) -> None:
    """Where a job can be seen only by taking it, looking raises UnsupportedCapability."""
    with context.queue() as queue:
        queue.publish("a")
        try:
            queue.backend.first_ready(queue.name)
        except UnsupportedCapability:
            return
        raise AssertionError("a look at the first ready job was not refused")
