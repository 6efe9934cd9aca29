"""THEN-4: the next jobs of a death exist if the job is dead; in one step, only then."""

import time
from collections.abc import Callable
from functools import partial

from hypothesis import strategies as st

from ...domain import Job, JobSchema, Queue, QueueKind, Reject, RetryPolicy
from ...domain.dead_job import DeadJob
from ...domain.dead_reasons import DeadReason
from ...domain.errors import BackendUnavailable, QueueNotFound
from ...domain.then import Then
from ...ports import (
    Ack,
    Cancel,
    CancelOutcome,
    ConsumerBackend,
    Dead,
    JobResult,
    Next,
    ResultStatus,
    Retry,
    Settlement,
    SettleOutcome,
)
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..modes import EVERY_MODE
from ..registry import check
from ..violation import demand
from .next_jobs import jobs_in, two_queues
from .wakeups import WaitingReceiver, demand_soon

_OK, _ALREADY, _LOST = SettleOutcome.OK, SettleOutcome.ALREADY, SettleOutcome.LOST
_MANY = 1200
_ALERTS = JobSchema("alerts", Numbers)


def _dead(receipt: str, then: tuple[Next, ...]) -> Dead:
    return Dead(receipt, "rejected", "no good", then)


def _hold(queue: QueueUnderTest, consumer: ConsumerBackend, *ids: str) -> list[str]:
    """Publish jobs, take them, and return their receipts."""
    queue.publish(*ids)
    receipts: list[str] = []
    while len(receipts) < len(ids):
        came = queue.receive(consumer, len(ids) - len(receipts))
        demand("RCV-1", came, f"only {len(receipts)} of {len(ids)} came")
        receipts += [delivery.receipt for delivery in came]
    return receipts


@check("THEN-4", "SET-3", needs="then")
def a_death_publishes_the_next_jobs(context: CheckContext) -> None:
    """They are ready in their queues, whole and in order, and the job is dead, with what is known of it."""
    with two_queues(context) as (queue, following):
        consumer = queue.consumer()
        (receipt,) = _hold(queue, consumer, "job")
        then = (*jobs_in(following, "b", "a"), *jobs_in(queue, "own"), *jobs_in(following, "c"))
        answer = consumer.settle([_dead(receipt, then)])
        demand("THEN-4", answer.outcomes == [_OK], f"a death with next jobs was answered {answer.outcomes}")
        letters = queue.backend.dead_letters(queue.name)
        kept = [(each.id, each.body, each.reason, each.error) for each in letters]
        expected = [("job", queue.message("job").body, "rejected", "no good")]
        demand("SET-3", kept == expected, f"the dead letters are {letters}")
        following.expect_counts(ready=3)
        queue.expect_counts(ready=1, dead=1)
        if context.capabilities.results:
            result = queue.backend.result(queue.name, "job", timeout_s=context.harness.timeout_s)
            failed = JobResult(ResultStatus.FAILED, error="no good")
            demand("RES-1", result == failed, f"the result of the dead job is {result}")
        receiver = following.consumer()
        came = [following.receive_one(receiver) for _ in range(3)]
        ids = [each.id for each in came]
        demand("THEN-4", ids == ["b", "a", "c"], f"b, a and c were to come, and these came: {ids}")
        for each in came:
            whole = (each.body, each.attempt, each.number, each.crashes)
            first = (following.message(each.id).body, 1, 1, 0)
            demand("THEN-4", whole == first, f"{each.id} came as {whole}")
        own = queue.drain(consumer, 1)
        demand("THEN-4", own == ["own"], f"in the dead job's own queue, {own} came")


@check("THEN-4", "DLY-1", "ORD-3", needs="then")
def a_next_job_of_a_death_keeps_its_delay_and_priority(context: CheckContext) -> None:
    """It is delayed as its message says, and stands where its priority puts it."""
    soon_s = context.capabilities.delay_resolution_s + 0.3
    with two_queues(context) as (queue, following):
        consumer, receiver = queue.consumer(), following.consumer()
        (receipt,) = _hold(queue, consumer, "job")
        then = (*jobs_in(following, "soon", delay_s=soon_s), *jobs_in(following, "far", delay_s=3600.0))
        sent = context.harness.now()
        queue.settle_ok(consumer, _dead(receipt, then))
        came = following.receive_when_due(receiver, sent + soon_s, "DLY-1")
        demand("THEN-4", came.id == "soon", f"{came.id} came")
        following.settle_ok(receiver, Ack(came.receipt))
        following.expect_counts(delayed=1)
        if not context.capabilities.priority:
            return
        ranked = context.queue_on(queue.backend, QueueKind.PRIORITY, name="ranked")
        (receipt,) = _hold(queue, consumer, "other")
        ranked.publish("middle", priority=5)
        then = (*jobs_in(ranked, "low"), *jobs_in(ranked, "high", priority=9))
        queue.settle_ok(consumer, _dead(receipt, then))
        drained = ranked.drain(ranked.consumer(), 3)
        demand("ORD-3", drained == ["high", "middle", "low"], f"they came as {drained}")


@check("THEN-4", "THEN-3", needs="then")
def a_death_whose_next_queue_is_missing_is_refused(context: CheckContext) -> None:
    """It changes nothing, all others of its batch count, and the job can be settled otherwise."""
    with two_queues(context) as (queue, following):
        consumer = queue.consumer()
        acked, refused, chained, plain = _hold(queue, consumer, "acked", "refused", "chained", "plain")
        nowhere = Next("nowhere", following.message("lost"))
        answer = consumer.settle(
            [
                Ack(acked, then=jobs_in(following, "of-ack")),
                _dead(refused, (*jobs_in(following, "half"), nowhere)),
                _dead(chained, jobs_in(following, "of-death")),
                Dead(plain, "rejected", "no good"),
            ]
        )
        expected = [_OK, SettleOutcome.REFUSED, _OK, _OK]
        demand("THEN-3", answer.outcomes == expected, f"the answers were {answer.outcomes}")
        queue.expect_counts(in_flight=1, dead=2)
        if context.capabilities.atomic_then:
            following.expect_counts(ready=2)
        try:
            queue.backend.counts("nowhere")
        except QueueNotFound:
            pass
        else:
            demand("PUB-3", False, "a death with a next job declared a queue")
        (extended,) = consumer.extend([refused])
        demand("THEN-3", extended is _OK, f"the lease of a refused death was {extended}")
        outcome = queue.settle(consumer, Retry(refused, 0.0, "no such queue"))
        demand("THEN-3", outcome is _OK, f"a retry after a refused death was answered {outcome}")
        again = queue.receive_one(consumer)
        demand("THEN-3", again.attempt == 2, f"after that, {again.id} came as attempt {again.attempt}")
        queue.backend.declare(Queue("nowhere"))
        outcome = queue.settle(consumer, _dead(again.receipt, (nowhere,)))
        demand("THEN-3", outcome is _OK, f"once the queue was declared, the death was answered {outcome}")
        there = queue.backend.counts("nowhere").ready
        demand("THEN-4", there == 1, f"after that, {there} jobs are in the queue")
        queue.expect_counts(dead=3)


@check("THEN-4", "SET-1", needs="then")
def a_large_batch_publishes_the_next_job_of_every_death(context: CheckContext) -> None:
    """1,200 settlements in one call, of all kinds by turns: all are answered, each has its next jobs."""
    ids = [f"job-{number:04}" for number in range(_MANY)]
    kinds: tuple[Callable[[str, tuple[Next, ...]], Settlement], ...] = (
        lambda receipt, then: Dead(receipt, "rejected", "no good", then),
        lambda receipt, then: Ack(receipt, None, then=then),
        lambda receipt, _: Retry(receipt, 3600.0, "later"),
        lambda receipt, then: Ack(receipt, b"{}", then=then),
        lambda receipt, _: Dead(receipt, "rejected", "no good"),
    )
    with two_queues(context) as (queue, following):
        consumer = queue.consumer()
        receipts = [
            receipt for at in range(0, _MANY, 400) for receipt in _hold(queue, consumer, *ids[at : at + 400])
        ]
        outcomes = consumer.settle(
            [kinds[n % 5](each, jobs_in(following, f"next-{n:04}")) for n, each in enumerate(receipts)]
        ).outcomes
        done = outcomes.count(_OK)
        demand("SET-1", done == len(outcomes) == _MANY, f"of {_MANY} settlements, {done} were answered OK")
        queue.expect_counts(delayed=_MANY // 5, dead=2 * _MANY // 5)
        expected = {f"next-{n:04}" for n in range(_MANY) if n % 5 in (0, 1, 3)}
        following.expect_counts(ready=len(expected))
        receiver, came = following.consumer(), set[str]()
        while len(came) < len(expected):
            batch = following.receive(receiver, _MANY)
            demand("THEN-4", batch, f"only {len(came)} of {len(expected)} next jobs came")
            came |= {delivery.id for delivery in batch}
            receiver.settle([Ack(delivery.receipt) for delivery in batch])
        demand("THEN-4", came == expected, f"these weren't to come: {sorted(came - expected)[:5]}")


@check("THEN-4", needs="then")
def a_job_that_dies_again_publishes_again(context: CheckContext) -> None:
    """A dead letter that is redriven has next jobs with its next death; its redrive publishes none."""
    with two_queues(context) as (queue, following):
        consumer, receiver = queue.consumer(), following.consumer()
        (receipt,) = _hold(queue, consumer, "job")
        for _ in range(2):
            queue.settle_ok(consumer, _dead(receipt, jobs_in(following, "next")))
            drained = following.drain(receiver, 1)
            demand("THEN-4", drained == ["next"], f"{drained} came as the job died")
            queue.backend.redrive(queue.name)
            following.expect_counts()
            receipt = queue.receive_one(consumer).receipt
        queue.settle_ok(consumer, Ack(receipt))
        following.expect_counts()


@check("THEN-4", "CON-1", needs="then")
def a_chained_death_whose_reply_is_lost_counts_once(context: CheckContext) -> None:
    """Asked again, the answer is what it was. With `atomic_then` there is one next job, else one at least."""
    with two_queues(context) as (queue, following):
        consumer = queue.consumer()
        receipt, _ = _hold(queue, consumer, "job", "other")
        deaths = [_dead(receipt, jobs_in(following, "next"))]
        context.cut_reply(queue.backend)
        try:
            (outcome,) = consumer.settle(deaths).outcomes
        except BackendUnavailable:
            (outcome,) = consumer.settle(deaths).outcomes
        if context.capabilities.atomic_then:
            demand("CON-1", outcome is not _LOST, f"a death whose reply was lost was answered {outcome}")
        there = following.counts().ready
        if outcome is _LOST and not there:  # nothing was done, so the job comes again
            again = queue.receive_one(consumer)
            queue.settle_ok(consumer, _dead(again.receipt, jobs_in(following, "next")))
            there = following.counts().ready
        least = there == 1 or (there > 1 and not context.capabilities.dedupe)
        demand("THEN-4", least, f"after a lost reply, there are {there} next jobs")


@check("THEN-4", "RCV-2", needs="then")
def a_next_job_of_a_death_wakes_a_receiver_soon(context: CheckContext) -> None:
    """It ends a blocked receive, in its own queue or another, as any job does that is published."""

    def wake(cause: str, *, is_own: bool) -> float:
        with context.backends(2) as (mine, other):
            queue = context.queue_on(mine)
            waiting = WaitingReceiver(context, queue, other.open_consumer(queue.name))
            consumer, receipt = waiting.holder, waiting.held.receipt
            if not is_own:
                before = context.queue_on(mine, name="before")
                consumer = before.consumer()
                (receipt,) = _hold(before, consumer, "job")
            consumer.settle([_dead(receipt, jobs_in(queue, "new"))])
            began = time.monotonic()
            waiting.finish("RCV-2", cause)
            return time.monotonic() - began - waiting.take_s

    for where, is_own in (("another", False), ("its own", True)):
        cause = f"a next job of a death in {where} queue"
        demand_soon(context, "RCV-2", cause, partial(wake, cause, is_own=is_own))


@check("THEN-4", "SET-1", "LSE-4", needs="atomic_then")
def each_end_of_a_batch_publishes_its_own(context: CheckContext) -> None:
    """The acks and deaths of a batch that count publish their next jobs, and no other settlement does.

    The others are of receipts that settled their job before, or were lost as its queue was deleted.
    """
    answers = {"held": _OK, "settled": _ALREADY, "lost": _LOST}
    kinds: dict[str, Callable[[str, tuple[Next, ...]], Settlement]] = {
        "dead": _dead,
        "ack": lambda receipt, then: Ack(receipt, None, then=then),
        "result": lambda receipt, then: Ack(receipt, b"1", then=then),
        "retry": lambda receipt, _: Retry(receipt, 3600.0, "later"),
    }
    ends = st.tuples(st.sampled_from(list(answers)), st.sampled_from(list(kinds)), st.integers(0, 2))

    @context.property(batch=st.lists(ends, min_size=2, max_size=6))
    def _(batch: list[tuple[str, str, int]]) -> None:
        with two_queues(context) as (queue, following):
            consumer = queue.consumer()
            names = [f"job-{place}" for place in range(len(batch))]
            lost = _hold(queue, consumer, *names)
            queue.backend.delete(queue.name)
            context.queue_on(queue.backend)
            held = _hold(queue, consumer, *names)
            consumer.settle([Ack(held[n]) for n, (what, *_) in enumerate(batch) if what == "settled"])
            settlements: list[Settlement] = []
            expected: list[str] = []
            for place, (what, kind, next_jobs) in enumerate(batch):
                ids = [f"next-{place}-{number}" for number in range(next_jobs)]
                receipt = (lost if what == "lost" else held)[place]
                settlements.append(kinds[kind](receipt, jobs_in(following, *ids)))
                expected += ids if what == "held" and kind != "retry" else []
            outcomes = consumer.settle(settlements).outcomes
            right = outcomes == [answers[what] for what, *_ in batch]
            demand("SET-1", right, f"a batch of {batch} was answered {outcomes}")
            drained = following.drain(following.consumer(), following.counts().ready)
            demand("THEN-4", sorted(drained) == sorted(expected), f"{drained} were published, not {expected}")


@check("THEN-4", "LSE-4", needs="atomic_then")
def a_stale_death_publishes_nothing(context: CheckContext) -> None:
    """A job whose lease is lost, or whose consumer died, has no next job until it runs again and dies."""
    harness = context.harness
    with two_queues(context) as (queue, following):
        queue.publish("slow", "killed")
        slow, doomed = (queue.consumer(lease_s=harness.lease_s) for _ in range(2))
        stale = queue.receive_one(slow).receipt
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        outcome = queue.settle(slow, _dead(stale, jobs_in(following, "stale")))
        demand("LSE-4", outcome is _LOST, f"a stale death was answered {outcome}")
        demand("THEN-4", following.counts().waiting == 0, "a death that was LOST has published its next job")
        consumer = queue.consumer()
        for _ in range(2):
            delivery = queue.receive_one(consumer)
            queue.settle_ok(consumer, _dead(delivery.receipt, jobs_in(following, f"after-{delivery.id}")))
        drained = sorted(following.drain(following.consumer(), 2))
        demand("THEN-4", drained == ["after-killed", "after-slow"], f"{drained} were published")
        following.expect_counts()


@check("THEN-4", needs="then", modes=EVERY_MODE)
def on_dead_names_the_next_job_of_each_death(context: CheckContext) -> None:
    """A job whose attempts are spent, one that is rejected and one that is malformed: each has its alert.

    Those that are done, or retried, have none.
    """
    told: dict[str, DeadJob[Numbers]] = {}

    def alert(dead: DeadJob[Numbers]) -> Then:
        told[dead.id] = dead
        return Then(_ALERTS, Numbers(note=dead.id))

    def handler(job: Job[Numbers]) -> None:
        if job.payload.note == "rejected":
            raise Reject("not ours")
        if job.payload.note == "failed":
            raise ValueError("no good")

    with app_on(context, retry=RetryPolicy(max_attempts=2, base_delay_s=0.0), on_dead=alert) as app:
        app.orchestrator.register(_ALERTS)
        rejected, failed, _ = (app.publish(Numbers(note=note)) for note in ("rejected", "failed", "done"))
        app.publish_raw({"malformed": b"{"})
        app.consume(app.recorder(handler), 5)
        found = {id_: (dead.reason, dead.payload) for id_, dead in told.items()}
        expected = {
            rejected: (DeadReason.REJECTED, Numbers(note="rejected")),
            failed: (DeadReason.ATTEMPTS, Numbers(note="failed")),
            "malformed": (DeadReason.MALFORMED, None),
        }
        demand("THEN-4", found == expected, f"on_dead was told {found}")
        came = set[str]()
        while (job := app.orchestrator.receive_message(_ALERTS)) is not None:
            came.add(job.payload.note)
        demand("THEN-4", came == set(expected), f"alerts came for {came}, not for {set(expected)}")


@check("THEN-4", needs="then")
def a_job_that_kills_its_worker_has_its_next_job(context: CheckContext) -> None:
    """Its crash budget is spent. The next consumer that takes it settles it as dead, with its next job."""
    harness = context.harness
    policy = RetryPolicy(max_attempts=2, base_delay_s=0.0, max_crashes=1)
    with app_on(context, retry=policy, on_dead=lambda dead: Then(_ALERTS, Numbers(note=dead.reason))) as app:
        app.orchestrator.register(_ALERTS)
        app.publish(Numbers())
        doomed = app.backend.open_consumer(QUEUE, lease_s=harness.lease_s)
        demand("RCV-1", context.receive(doomed), "the job didn't come")
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = app.consume(app.recorder(), 1)
        demand("RTY-3", consumer.ids == [], f"these were run: {consumer.ids}")
        came = app.orchestrator.receive_message(_ALERTS)
        note = None if came is None else came.payload.note
        demand("THEN-4", note == DeadReason.CRASHES, f"its alert says {note!r}")


@check("THEN-4", "CAN-3", needs="cancel")
def a_cancelled_job_has_no_next_job_of_its_death(context: CheckContext) -> None:
    """A death of a job that was asked to be cancelled cancels it instead; the others of its batch count."""
    if not context.capabilities.then:
        return  # what is refused of it, others check
    with two_queues(context) as (queue, following):
        consumer = queue.consumer()
        names = ["dead", "x-dead", "acked", "x-acked", "later-dead", "x-cancel"]
        receipts = _hold(queue, consumer, *names)
        asked = queue.backend.cancel(queue.name, [name for name in names if name.startswith("x-")])
        demand("CAN-4", set(asked) == {CancelOutcome.REQUESTED}, f"cancelling what runs was {asked}")
        then = {name: jobs_in(following, f"after-{name}") for name in names}
        outcomes = consumer.settle(
            [
                _dead(receipts[0], then["dead"]),
                _dead(receipts[1], then["x-dead"]),
                Ack(receipts[2], then=then["acked"]),
                Ack(receipts[3], b"{}", then=then["x-acked"]),
                _dead(receipts[4], then["later-dead"]),
                Cancel(receipts[5]),
            ]
        ).outcomes
        expected = [_OK, SettleOutcome.CANCELLED, _OK, _OK, _OK, _OK]
        demand("CAN-3", outcomes == expected, f"the answers are {outcomes}")
        drained = sorted(following.drain(following.consumer(), following.counts().ready))
        right = ["after-acked", "after-dead", "after-later-dead", "after-x-acked"]
        demand("THEN-4", drained == right, f"{drained} were published, not {right}")
        queue.expect_counts(dead=2)
