"""Two callers that do the same at once, many times: one of them comes first, and both are told the truth."""

import threading
from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ...domain import Queue, QueueKind
from ...domain.errors import QueueConflict
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Message,
    PublishStatus,
    Release,
    Retry,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check
from ..violation import demand

AnswerT = TypeVar("AnswerT")

_ROUNDS = 25


def at_once(context: CheckContext, *calls: Callable[[], AnswerT]) -> list[AnswerT]:
    """Make calls on threads that leave a barrier together, and return their answers, in order."""
    barrier = threading.Barrier(len(calls))

    def meet(call: Callable[[], AnswerT]) -> AnswerT:
        barrier.wait(context.harness.timeout_s)
        return call()

    running = [context.start(partial(meet, call)) for call in calls]
    return [context.finish(future) for future in running]


@check("PUB-5", needs="dedupe")
def one_id_published_twice_at_once_is_one_job(context: CheckContext) -> None:
    """Of two clients that publish one id at once, one is told ACCEPTED and one DUPLICATE: it is one job."""
    ids = [f"job-{number}" for number in range(_ROUNDS)]
    with context.backends(2) as backends:
        queue = context.queue_on(backends[0])
        for backend in backends:
            backend.publish(queue.name, [])  # so that both are connected when they meet
        for id_ in ids:
            message = queue.message(id_)
            answers = at_once(context, *[partial(each.publish, queue.name, [message]) for each in backends])
            statuses = sorted(outcome.status for (outcome,) in answers)
            expected = [PublishStatus.ACCEPTED, PublishStatus.DUPLICATE]
            demand("PUB-5", statuses == expected, f"{id_}, published twice at once, was answered {statuses}")
        queue.expect_counts(ready=len(ids))
        came = queue.drain(queue.consumer(), len(ids))
        demand("PUB-5", came == ids, f"{came} came, expected {ids}")


@check("SET-1", "I4")
def one_receipt_settled_twice_at_once_counts_once(context: CheckContext) -> None:
    """Of two threads that settle one receipt at once, one is told OK and one ALREADY; one effect is there."""
    with context.queue() as queue:
        queue.publish(*[f"job-{number}" for number in range(2 * _ROUNDS)])
        consumer, dead = queue.consumer(), 0
        for number in range(2 * _ROUNDS):
            receipt = queue.receive_one(consumer).receipt
            other = Dead(receipt, "rejected", "no good") if number % 2 else Ack(receipt)
            calls = [partial(queue.settle, consumer, each) for each in (Ack(receipt), other)]
            answers = at_once(context, *calls)
            expected = {SettleOutcome.OK, SettleOutcome.ALREADY}
            demand("SET-1", set(answers) == expected, f"settled twice at once, {receipt} got {answers}")
            dead += bool(number % 2) and answers[1] is SettleOutcome.OK
        queue.expect_counts(dead=dead)


@check("DLQ-2", "DLQ-3")
def redrives_and_discards_at_once_move_each_job_once(context: CheckContext) -> None:
    """Two clients redrive, or discard, or do either, at once: together they say how many there were."""
    pairs = [("redrive", "redrive", None), ("redrive", "redrive", "named"), ("discard", "discard", None)]
    pairs += [("redrive", "discard", None)]
    with context.backends(2) as (first, second):
        queue, other = context.queue_on(first), context.queue_on(second)
        consumer = queue.consumer()
        for number in range(3):
            for mine, its, named in pairs:
                ids = [f"{mine}-{its}-{named}-{number}-{n}" for n in range(4)]
                _bury(queue, consumer, ids)
                chosen = ids if named else None
                calls = [
                    partial(getattr(each.backend, how), queue.name, chosen)
                    for each, how in ((queue, mine), (other, its))
                ]
                counts = at_once(context, *calls)
                clause = "DLQ-3" if its == "discard" else "DLQ-2"
                found = f"{mine} and {its} of 4 at once say {counts}"
                demand(clause, sum(counts) == 4, found)
                back = sum(count for count, how in zip(counts, (mine, its), strict=True) if how == "redrive")
                _expect_ready(queue, back, clause, found)
                came = queue.drain(consumer, back)
                demand(clause, len(set(came)) == back, f"{found}, and then {came} came")


def _bury(queue: QueueUnderTest, consumer: ConsumerBackend, ids: list[str]) -> None:
    queue.publish(*ids)
    receipts = [queue.receive_one(consumer).receipt for _ in ids]
    consumer.settle([Dead(receipt, "rejected", "no good") for receipt in receipts])


def _expect_ready(queue: QueueUnderTest, count: int, clause: str, found: str) -> None:
    def ready() -> None:
        counts = queue.counts()
        demand(clause, (counts.ready, counts.dead) == (count, 0), f"{found}, and then there are {counts}")

    queue.context.eventually(ready)


@check("ADM-1")
def two_declare_a_queue_at_once(context: CheckContext) -> None:
    """Two clients declare a new queue at once, and publish: neither fails, and what was accepted is there.

    A broker may reject a job while it is still making the queue for the other client, as long as it says so.
    """

    def declare_and_publish(number: int, name: str) -> PublishStatus | BaseException:
        try:
            backends[number].declare(Queue(name))
            (outcome,) = backends[number].publish(name, [Message(f"job-{number}", b"{}")])
        except Exception as error:
            return error
        return outcome.status

    with context.backends(2) as backends:
        for round_ in range(10):
            name = f"jobs-{round_}"
            answers = at_once(context, *[partial(declare_and_publish, number, name) for number in range(2)])
            told = {PublishStatus.ACCEPTED, PublishStatus.REJECTED}
            demand("ADM-1", told.issuperset(answers), f"two that declared a queue at once got {answers}")
            queue = QueueUnderTest(context, backends[0], name)
            waiting, accepted = queue.counts().waiting, answers.count(PublishStatus.ACCEPTED)
            found = f"of {accepted} jobs accepted after two declares at once, {waiting} wait"
            demand("ADM-1", waiting == accepted > 0, found)


@check("ADM-1")
def two_kinds_declared_at_once_conflict(context: CheckContext) -> None:
    """Of two clients that declare a new queue as different kinds at once, one gets QueueConflict."""
    able = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    kinds = [QueueKind.FIFO, *[kind for kind, is_able in able.items() if is_able]]

    def conflicts(number: int, queue: Queue) -> bool:
        try:
            backends[number].declare(queue)
        except QueueConflict:
            return True
        return False

    with context.backends(2) as backends:
        for round_ in range(10 if len(kinds) > 1 else 0):
            two = [Queue(f"jobs-{round_}", kind) for kind in (kinds[0], kinds[1 + round_ % (len(kinds) - 1)])]
            answers = at_once(context, *[partial(conflicts, number, two[number]) for number in range(2)])
            demand("ADM-1", sum(answers) == 1, f"{[each.kind for each in two]} at once: conflicts {answers}")


@check("ADM-3")
def a_purge_among_drainers_takes_nothing_in_flight(context: CheckContext) -> None:
    """While three consumers drain a queue it is purged: each job is received and settled, or purged."""
    jobs = 150

    def drain(consumer: ConsumerBackend) -> int:
        came = 0
        while deliveries := consumer.receive(2, 0.0):
            came += len(deliveries)
            outcomes = consumer.settle([Ack(delivery.receipt) for delivery in deliveries]).outcomes
            demand("ADM-3", set(outcomes) == {SettleOutcome.OK}, f"acks of what was in flight got {outcomes}")
        return came

    for _ in range(4):
        with context.queue() as queue:
            queue.publish(*[f"job-{number}" for number in range(jobs)])
            consumers = [queue.consumer() for _ in range(3)]
            calls = [partial(drain, consumer) for consumer in consumers]
            purged, *received = at_once(context, partial(queue.backend.purge, queue.name), *calls)
            total = purged + sum(received) + sum(map(drain, consumers))
            demand("ADM-3", total == jobs, f"{purged} purged and {received} received, {total} of {jobs}")
            queue.expect_counts()


@check("RCV-3", "I3")
def two_that_take_at_once_share_no_job(context: CheckContext) -> None:
    """Two consumers that receive at once, or settle and take at once, never get the same job."""
    published = 0
    with context.backends(2) as (first, second):
        queue, other = context.queue_on(first), context.queue_on(second)
        consumers = (queue.consumer(), other.consumer())
        taken: list[str] = []
        for number in range(_ROUNDS):
            fresh = [f"job-{number}"] if number % 5 == 0 else [f"job-{number}", f"other-{number}"]
            queue.publish(*fresh)
            published += len(fresh)
            if number % 2:
                calls = [partial(consumer.receive, 1, 0.0) for consumer in consumers]
            else:
                calls = [partial(_take, consumer) for consumer in consumers]
            answers = at_once(context, *calls)
            for consumer, deliveries in zip(consumers, answers, strict=True):
                taken += [delivery.id for delivery in deliveries]
                consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
            again = [id_ for id_ in set(taken) if taken.count(id_) > 1]
            demand("RCV-3", not again, f"{again} went to both of two that took at once")
        left = queue.counts().waiting
        demand("I1", len(taken) + left == published, f"{len(taken)} came and {left} wait, of {published}")


def _take(consumer: ConsumerBackend) -> list[Delivery]:
    return consumer.settle([], take=1).deliveries


@check("SET-2", "SET-4")
def settlements_and_takes_at_once_lose_nothing(context: CheckContext) -> None:
    """Two consumers give jobs back and take others at once, many times: at the end each is there once."""
    jobs = [f"job-{number}" for number in range(12)]

    def churn(consumer: ConsumerBackend) -> None:
        held = consumer.receive(4, 0.0)
        for round_ in range(_ROUNDS):
            back = [
                Retry(each.receipt, 0.0, "again") if round_ % 2 else Release(each.receipt) for each in held
            ]
            settled = consumer.settle(back, take=4)
            demand("SET-1", set(settled.outcomes) <= {SettleOutcome.OK}, f"{settled.outcomes} were answered")
            held = settled.deliveries
        consumer.settle([Release(delivery.receipt) for delivery in held])

    with context.backends(2) as backends:
        queue = context.queue_on(backends[0])
        queue.publish(*jobs)
        consumers = [backend.open_consumer(queue.name, lease_s=600.0) for backend in backends]
        at_once(context, *[partial(churn, consumer) for consumer in consumers])
        for consumer in consumers:
            consumer.close()  # which gives back what the broker sent ahead
        queue.expect_counts(ready=len(jobs))
        came = sorted(queue.drain(queue.consumer(), len(jobs)))
        demand("I1", came == sorted(jobs), f"{came} came, expected {sorted(jobs)}")
