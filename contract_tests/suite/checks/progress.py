"""RES-1: progress is that of one delivery, and ends with it."""

from collections.abc import Callable
from functools import partial

from ...domain.job_progress import Progress
from ...ports import ConsumerBackend, Dead, Release, Retry
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

_HALF = Progress(1, 2)


@check("RES-1")
def progress_ends_with_its_delivery(context: CheckContext) -> None:
    """Where it is kept, the next delivery of the job begins without any, however the one before ended."""

    def released(queue: QueueUnderTest, consumer: ConsumerBackend, receipt: str) -> None:
        queue.settle_ok(consumer, Release(receipt))

    def retried(queue: QueueUnderTest, consumer: ConsumerBackend, receipt: str) -> None:
        queue.settle_ok(consumer, Retry(receipt, 0.0, "again"))

    def redriven(queue: QueueUnderTest, consumer: ConsumerBackend, receipt: str) -> None:
        queue.settle_ok(consumer, Dead(receipt, "rejected", "no good"))
        queue.backend.redrive(queue.name)

    def left(_queue: QueueUnderTest, consumer: ConsumerBackend, _receipt: str) -> None:
        consumer.close()

    def lost(_queue: QueueUnderTest, consumer: ConsumerBackend, _receipt: str) -> None:
        context.harness.crash(consumer)
        context.harness.advance(context.harness.redelivery_s(context.harness.lease_s))

    for end in (released, retried, redriven, left):
        _expect_fresh(context, end, partial(QueueUnderTest.consumer))
    _expect_fresh(context, lost, partial(QueueUnderTest.consumer, lease_s=context.harness.lease_s))


def _expect_fresh(
    context: CheckContext,
    end: Callable[[QueueUnderTest, ConsumerBackend, str], None],
    open_consumer: Callable[[QueueUnderTest], ConsumerBackend],
) -> None:
    with context.queue() as queue:
        queue.publish("job", "other")
        consumer, other = open_consumer(queue), queue.consumer()
        receipt, beside = queue.receive_one(consumer).receipt, queue.receive_one(other).receipt
        consumer.report(receipt, _HALF)
        other.report(beside, _HALF)
        if len(queue.backend.progress(queue.name)) != 2:  # it isn't kept, or the lease was too short for that
            return
        end(queue, consumer, receipt)
        queue.receive_one(queue.consumer())
        found = queue.backend.progress(queue.name)
        fresh = found == {"other": _HALF}
        demand("RES-1", fresh, f"a job that was {end.__name__} is delivered again, and there is {found}")
