"""THEN-2: next jobs exist if and only if their job was acked."""

from functools import partial

from hypothesis import strategies as st

from ...ports import Ack, ConsumerBackend, Dead, Delivery, Retry, SettleOutcome
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check, refusal
from ..violation import demand
from .next_jobs import jobs_in, two_queues

_OK, _ALREADY, _LOST = SettleOutcome.OK, SettleOutcome.ALREADY, SettleOutcome.LOST
_RACERS = 4
_RACED = 40


@check("THEN-2", "SET-1", needs="atomic_then")
def what_settled_before_publishes_nothing(context: CheckContext) -> None:
    """Whatever settled a receipt first, an ack of it that comes later, also in one batch, is ALREADY."""
    with two_queues(context) as (queue, following):
        queue.publish("acked", "dead", "retried", "twice")
        consumer = queue.consumer()
        acked, dead, retried, twice = (queue.receive_one(consumer).receipt for _ in range(4))
        consumer.settle([Ack(acked), Dead(dead, "rejected", "no good"), Retry(retried, 3600.0, "later")])
        late = [
            Ack(each, then=jobs_in(following, f"late-{n}")) for n, each in enumerate((acked, dead, retried))
        ]
        outcomes = consumer.settle(late).outcomes
        demand("SET-1", outcomes == [_ALREADY] * 3, f"settled again, they were answered {outcomes}")
        both = [
            Ack(twice, then=jobs_in(following, "first")),
            Ack(twice, then=jobs_in(following, "second")),
        ]
        outcomes = consumer.settle(both).outcomes
        demand("SET-1", outcomes == [_OK, _ALREADY], f"one receipt twice in a batch was {outcomes}")
        drained = following.drain(following.consumer(), following.counts().ready)
        demand("THEN-2", drained == ["first"], f"{drained} were published, and only first was acked in time")


@check("THEN-2", "SET-1", "LSE-4", needs="atomic_then")
def each_ack_of_a_batch_publishes_its_own(context: CheckContext) -> None:
    """The acks of a batch that count publish their next jobs, and no other does, with results or without.

    The others are of receipts that settled their job before, or were lost as its queue was deleted.
    """
    answers = {"held": _OK, "settled": _ALREADY, "lost": _LOST}
    acks = st.tuples(st.sampled_from(list(answers)), st.sampled_from([None, b"1"]), st.integers(0, 2))

    @context.property(batch=st.lists(acks, min_size=2, max_size=6))
    def _(batch: list[tuple[str, bytes | None, int]]) -> None:
        with two_queues(context) as (queue, following):
            consumer = queue.consumer()
            lost = _hold(queue, consumer, len(batch))
            queue.backend.delete(queue.name)
            context.queue_on(queue.backend)
            held = _hold(queue, consumer, len(batch))
            consumer.settle([Ack(held[n]) for n, (what, *_) in enumerate(batch) if what == "settled"])
            settlements: list[Ack] = []
            expected: list[str] = []
            for place, (what, result, next_jobs) in enumerate(batch):
                ids = [f"next-{place}-{number}" for number in range(next_jobs)]
                receipt = (lost if what == "lost" else held)[place]
                settlements.append(Ack(receipt, result, then=jobs_in(following, *ids)))
                expected += ids if what == "held" else []
            outcomes = consumer.settle(settlements).outcomes
            right = outcomes == [answers[what] for what, *_ in batch]
            demand("SET-1", right, f"a batch of {[what for what, *_ in batch]} was answered {outcomes}")
            drained = following.drain(following.consumer(), following.counts().ready)
            demand("THEN-2", sorted(drained) == sorted(expected), f"{drained} were published, not {expected}")


def _hold(queue: QueueUnderTest, consumer: ConsumerBackend, count: int) -> list[str]:
    """Publish so many jobs, take them, and return their receipts."""
    queue.publish(*(f"job-{place}" for place in range(count)))
    return [queue.receive_one(consumer).receipt for _ in range(count)]


@check("THEN-2", "LSE-4", needs="atomic_then")
def a_stale_ack_publishes_nothing(context: CheckContext) -> None:
    """A job whose lease is lost, or whose consumer died, has no next job until it runs again."""
    harness = context.harness
    with two_queues(context) as (queue, following):
        queue.publish("slow", "killed")
        slow, doomed = (queue.consumer(lease_s=harness.lease_s) for _ in range(2))
        stale = queue.receive_one(slow).receipt
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        outcome = queue.settle(slow, Ack(stale, then=jobs_in(following, "stale")))
        demand("LSE-4", outcome is _LOST, f"a stale ack was answered {outcome}")
        demand("THEN-2", following.counts().waiting == 0, "an ack that was LOST has published its next job")
        consumer = queue.consumer()
        for _ in range(2):
            delivery = queue.receive_one(consumer)
            queue.settle_ok(consumer, Ack(delivery.receipt, then=jobs_in(following, f"after-{delivery.id}")))
        drained = sorted(following.drain(following.consumer(), 2))
        demand("THEN-2", drained == ["after-killed", "after-slow"], f"{drained} were published")
        following.expect_counts()


@check("THEN-2", "I4", needs="atomic_then")
def of_many_acks_of_a_job_one_publishes(context: CheckContext) -> None:
    """Consumers whose leases run out race for the same jobs: each job that is done has one next job."""
    harness = context.harness
    with two_queues(context) as (queue, following):
        ids = [f"job-{number}" for number in range(_RACED)]
        queue.publish(*ids)
        stale = queue.consumer(lease_s=harness.lease_s)
        receipts = [delivery.receipt for delivery in _all_of(queue, stale)]
        harness.advance(harness.redelivery_s(harness.lease_s))
        racers = [queue.consumer() for _ in range(_RACERS)]

        def race(consumer: ConsumerBackend, name: str) -> list[SettleOutcome]:
            outcomes: list[SettleOutcome] = []
            while came := consumer.receive(3, 0.0):
                acks = [Ack(each.receipt, then=jobs_in(following, f"{name}-{each.id}")) for each in came]
                outcomes += consumer.settle(acks).outcomes
            return outcomes

        late = [Ack(each, then=jobs_in(following, f"late-{n}")) for n, each in enumerate(receipts)]
        calls = [context.start(partial(race, each, f"racer-{n}")) for n, each in enumerate(racers)]
        calls.append(context.start(lambda: stale.settle(late).outcomes))
        outcomes = [outcome for call in calls for outcome in context.finish(call)]
        done = outcomes.count(_OK)
        demand("I4", done == _RACED, f"of {_RACED} jobs, {done} acks were answered OK")
        following.expect_counts(ready=_RACED)
        drained = following.drain(following.consumer(), _RACED)
        origins = {id_.split("-", 2)[2] for id_ in drained if not id_.startswith("late")}
        demand("THEN-2", origins == set(ids), "some job has no next job, or that of a stale ack")


def _all_of(queue: QueueUnderTest, consumer: ConsumerBackend) -> list[Delivery]:
    """Receive all that is ready."""
    came = queue.receive(consumer, _RACED)
    while len(came) < _RACED and (more := consumer.receive(_RACED, 0.0)):  # its lease may end meanwhile
        came += more
    return came


@refusal("atomic_then")
def what_isnt_one_step_loses_nothing(context: CheckContext) -> None:
    """Where it takes several steps, a consumer that dies before its ack leaves a job that runs again."""
    if not context.capabilities.then:
        return
    harness = context.harness
    with two_queues(context) as (queue, following):
        queue.publish("job")
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = queue.consumer()
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, then=jobs_in(following, "next")))
        following.expect_counts(ready=1)
