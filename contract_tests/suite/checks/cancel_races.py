"""CAN: a cancel and something else at once, many times: one comes first, and both are told the truth."""

from functools import partial
from typing import Any

from ...ports import (
    Ack,
    CancelOutcome,
    Delivery,
    JobResult,
    JobStatus,
    PublishStatus,
    ResultStatus,
    Retry,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand
from .cancelling import CANCELLED, cancel, expect_cancelled
from .races import at_once

_ROUNDS = 25


@check("CAN-1", "CAN-4", needs="cancel")
def a_cancel_and_a_take_at_once_agree(context: CheckContext) -> None:
    """Either the job is gone and doesn't come, or it came and its consumer is told."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        consumer = other.open_consumer(queue.name, lease_s=600.0)
        for number in range(2 * _ROUNDS):
            id_ = f"job-{number}"
            queue.publish(id_)
            calls: list[Any] = [partial(cancel, queue, id_), partial(consumer.receive, 1, 0.0)]
            (outcome,), came = at_once(context, *calls)
            deliveries: list[Delivery] = came
            if outcome is CancelOutcome.CANCELLED:
                demand("CAN-1", not deliveries, f"{id_} came, and was answered {outcome}")
                queue.receive_nothing(consumer)
                expect_cancelled(queue, id_)
                continue
            demand("CAN-4", outcome is CancelOutcome.REQUESTED, f"{id_} was answered {outcome}")
            demand("CAN-4", len(deliveries) == 1, f"{id_} was answered {outcome}, and didn't come")
            receipt = deliveries[0].receipt
            told = consumer.extend([receipt])
            demand("CAN-2", told == [SettleOutcome.CANCELLED], f"{id_} came, and its consumer is told {told}")
            outcome_ = queue.settle(consumer, Retry(receipt, 0.0, "again"))
            demand("CAN-3", outcome_ is SettleOutcome.CANCELLED, f"its retry was answered {outcome_}")
        queue.expect_counts()


@check("CAN-4", needs="cancel")
def two_that_cancel_at_once_are_both_told(context: CheckContext) -> None:
    """Two clients that cancel one job, waiting or running, get the same answer."""
    with context.backends(2) as backends:
        queue = context.queue_on(backends[0])
        consumer = queue.consumer()
        for number in range(_ROUNDS):
            id_, runs = f"job-{number}", number % 2
            queue.publish(id_)
            receipt = queue.receive_one(consumer).receipt if runs else ""
            calls = [partial(each.cancel, queue.name, [id_]) for each in backends]
            answers = at_once(context, *calls)
            expected = CancelOutcome.REQUESTED if runs else CancelOutcome.CANCELLED
            demand("CAN-4", answers == [[expected]] * 2, f"{id_}, cancelled twice at once, got {answers}")
            if runs:
                told = queue.settle(consumer, Retry(receipt, 0.0, "again"))
                demand("CAN-3", told is SettleOutcome.CANCELLED, f"its retry was answered {told}")
            expect_cancelled(queue, id_)
        queue.expect_counts()


@check("CAN-3", "CAN-4", needs="cancel")
def a_cancel_and_an_ack_at_once_agree(context: CheckContext) -> None:
    """The ack counts in any case: whether the cancel came too late or just before."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        consumer = other.open_consumer(queue.name, lease_s=600.0)
        for number in range(_ROUNDS):
            id_ = f"job-{number}"
            queue.publish(id_)
            receipt = queue.receive_one(consumer).receipt
            calls: list[Any] = [
                partial(cancel, queue, id_),
                partial(queue.settle, consumer, Ack(receipt, b"{}")),
            ]
            (outcome,), settled = at_once(context, *calls)
            demand("CAN-3", settled is SettleOutcome.OK, f"the ack of {id_} was answered {settled}")
            fits = outcome in (CancelOutcome.TOO_LATE, CancelOutcome.REQUESTED)
            demand("CAN-4", fits, f"{id_}, which was acked, was answered {outcome}")
            result = queue.backend.result(queue.name, id_)
            demand("CAN-3", result == JobResult(ResultStatus.DONE, b"{}"), f"its result is {result}")
        queue.expect_counts()


@check("CAN-3", "CAN-4", needs="cancel")
def a_cancel_and_a_retry_at_once_agree(context: CheckContext) -> None:
    """Whichever comes first, the job ends as cancelled, and nobody receives it again."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        consumer = other.open_consumer(queue.name, lease_s=600.0)
        for number in range(2 * _ROUNDS):
            id_ = f"job-{number}"
            queue.publish(id_)
            receipt = queue.receive_one(consumer).receipt
            retry = Retry(receipt, 3600.0 if number % 2 else 0.0, "again")
            calls: list[Any] = [partial(cancel, queue, id_), partial(queue.settle, consumer, retry)]
            (outcome,), settled = at_once(context, *calls)
            answers = (outcome, settled)
            expected = [
                (CancelOutcome.CANCELLED, SettleOutcome.OK),
                (CancelOutcome.REQUESTED, SettleOutcome.CANCELLED),
            ]
            demand("CAN-4", answers in expected, f"{id_} was answered {answers}")
            expect_cancelled(queue, id_, clause="CAN-3")
        queue.receive_nothing(consumer)
        queue.expect_counts()


@check("CAN-1", "CAN-4", needs="cancel")
def a_cancel_and_a_publish_at_once_agree(context: CheckContext) -> None:
    """Published again as it is cancelled, the id stands for the job that waits, or for one that is gone."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(mine)
        for number in range(_ROUNDS):
            id_ = f"job-{number}"
            queue.publish(id_)
            message = queue.message(id_)
            calls: list[Any] = [partial(cancel, queue, id_), partial(other.publish, queue.name, [message])]
            (outcome,), (published,) = at_once(context, *calls)
            demand("CAN-4", outcome is CancelOutcome.CANCELLED, f"{id_} was answered {outcome}")
            is_new = published.status is PublishStatus.ACCEPTED
            _expect_one_end(queue, id_, is_new=is_new)


def _expect_one_end(queue: QueueUnderTest, id_: str, *, is_new: bool) -> None:
    status, result = queue.backend.status(queue.name, id_), queue.backend.result(queue.name, id_)
    expected = (JobStatus.WAITING, None) if is_new else (JobStatus.CANCELLED, CANCELLED)
    # The cancel may also have come last, and taken the new job.
    fits = (status, result) in (expected, (JobStatus.CANCELLED, CANCELLED))
    demand("CAN-1", fits, f"{id_} is {status}, with {result}")
    queue.expect_counts(ready=int(status is JobStatus.WAITING))
    cancel(queue, id_)
