"""CON-1: requests that the broker carried out, and whose replies were lost with the connection.

A harness that can't lose a reply says so (``Harness.cut_reply``), and these checks then prove less.
"""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ...domain.errors import BackendUnavailable
from ...ports import Ack, Dead, Lease, PublishStatus, Settlement, SettleOutcome
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

AnswerT = TypeVar("AnswerT")


def _without_reply(
    context: CheckContext, queue: QueueUnderTest, call: Callable[[], AnswerT]
) -> AnswerT | None:
    """Make a call whose first reply is lost; return its answer, or None if it says that it doesn't know."""
    if not context.cut_reply(queue.backend):
        return call()
    try:
        return call()
    except BackendUnavailable:
        return None


@check("CON-1", "PUB-1")
def a_publish_whose_reply_is_lost_is_answered_truly(context: CheckContext) -> None:
    """It is ACCEPTED or UNKNOWN, never a duplicate of itself or rejected; each job is there once."""
    dedupes = context.capabilities.dedupe
    for size in (1, 3):
        with context.queue() as queue:
            queue.publish("before")
            ids = [f"job-{number}" for number in range(size)]
            messages = [queue.message(id_) for id_ in ids]
            outcomes = _without_reply(context, queue, partial(queue.backend.publish, queue.name, messages))
            statuses = {outcome.status for outcome in outcomes or ()}
            demand("PUB-1", PublishStatus.DUPLICATE not in statuses, f"new jobs were answered {statuses}")
            demand("CON-1", PublishStatus.REJECTED not in statuses, f"new jobs were answered {statuses}")
            if statuses != {PublishStatus.ACCEPTED}:
                for message in messages if dedupes else ():
                    queue.backend.publish(queue.name, [message])
            came = queue.drain(queue.consumer(), queue.counts().waiting)
            demand("CON-1", set(came) == {"before", *ids}, f"{came} came, expected {ids}")
            demand("CON-1", not dedupes or len(came) == size + 1, f"{came} came: one of them twice")
            queue.expect_counts()


@check("CON-1", "SET-1")
def a_settlement_whose_reply_is_lost_counts_once(context: CheckContext) -> None:
    """It is answered as it counted, or isn't known; what was taken with it is delivered, and not charged.

    Where the connection is the lease it may be LOST: then its job is settled, or comes again, or both.
    """
    ends: tuple[Callable[[str], Settlement], ...] = (
        lambda receipt: Dead(receipt, "rejected", "no good"),
        Ack,
    )
    for end in ends:
        with context.queue() as queue:
            _settle_without_reply(context, queue, end)


def _settle_without_reply(
    context: CheckContext, queue: QueueUnderTest, end: Callable[[str], Settlement]
) -> None:
    may_be_lost = context.capabilities.lease is Lease.CONNECTION
    queue.publish("done", "ended", "next-0", "next-1")
    consumer = queue.consumer()
    done, ended = (queue.receive_one(consumer).receipt for _ in range(2))
    batch = (Ack(done), end(ended))
    answer = _without_reply(context, queue, lambda: consumer.settle(batch, take=1))
    answer = answer or consumer.settle(batch)
    lost = {
        id_
        for id_, outcome in zip(("done", "ended"), answer.outcomes, strict=True)
        if outcome is SettleOutcome.LOST
    }
    demand("CON-1", may_be_lost or not lost, f"settlements that counted were answered {answer.outcomes}")
    held = {delivery.id: delivery for delivery in answer.deliveries}
    while not {"next-0", "next-1"} <= held.keys():
        came = queue.receive(consumer)
        demand("CON-1", came, f"only {held} came: what the lost reply leased stays leased")
        for delivery in came:
            demand("CON-1", delivery.id not in held, f"{delivery.id} came twice after the lost reply")
            held[delivery.id] = delivery
    charged = [each for each in held.values() if (each.attempt, each.crashes) != (1, 0)]
    demand("CON-1", may_be_lost or not charged, f"{charged} came")
    consumer.settle([Ack(delivery.receipt) for delivery in held.values()])
    again = {*(held.keys() - {"next-0", "next-1"}), *queue.drain(consumer, queue.counts().waiting)}
    demand("CON-1", again <= lost, f"{again} came after the lost reply, and {lost} was LOST")
    dead = [letter.id for letter in queue.backend.dead_letters(queue.name)]
    expected = ["ended"] if end is not Ack else []
    settled = dead == expected or (dead == [] and "ended" in again)
    demand("CON-1", settled, f"{dead} are dead letters, expected {expected}; {again} came again")
    queue.expect_counts(dead=len(dead))


@check("CON-1", "DLQ-2", "ADM-2", "ADM-3")
def administration_whose_reply_is_lost_is_answered_truly(context: CheckContext) -> None:
    """A redrive, discard, purge and delete say what they did, though it was done when they asked again.

    Without dedupe, what was redriven may be dead as well: then the redrive says that it doesn't know.
    """
    with context.queue() as queue:
        consumer = queue.consumer()
        for clause, act, rest in (
            ("DLQ-2", queue.backend.redrive, 2),
            ("DLQ-3", queue.backend.discard, 0),
        ):
            queue.publish("a", "b")
            receipts = [queue.receive_one(consumer).receipt for _ in range(2)]
            consumer.settle([Dead(receipt, "rejected", "no good") for receipt in receipts])
            queue.expect_counts(dead=2)
            count = _without_reply(context, queue, partial(act, queue.name))
            demand(clause, count in (2, None), f"{act.__name__} of 2 says {count}")
            if count is None and not context.capabilities.dedupe:
                queue.backend.discard(queue.name)  # jobs that it published again may be dead as well
            queue.expect_counts(ready=rest)
            queue.drain(consumer, rest)
        queue.publish("a", "b")
        purged = _without_reply(context, queue, lambda: queue.backend.purge(queue.name))
        demand("ADM-2", purged in (2, None), f"purge of 2 says {purged}")
        queue.expect_counts()
        error = context.failure_of(
            lambda: _without_reply(context, queue, lambda: queue.backend.delete(queue.name))
        )
        demand("ADM-3", error is None, f"deleting a queue raised {error!r}")
