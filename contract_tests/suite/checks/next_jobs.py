"""THEN: acks that publish the next jobs."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from ...domain import Job, Queue, QueueKind
from ...domain.errors import BackendUnavailable, QueueNotFound
from ...domain.then import Then
from ...ports import Ack, ConsumerBackend, Dead, Next, Retry, SettleOutcome
from ..app import QUEUE, Numbers, app_on
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..modes import EVERY_MODE
from ..registry import check, refusal
from ..violation import demand
from .wakeups import WaitingReceiver, demand_soon

_OK, _ALREADY, _LOST = SettleOutcome.OK, SettleOutcome.ALREADY, SettleOutcome.LOST
_REFUSED = SettleOutcome.REFUSED
_MANY = 1200


def jobs_in(queue: QueueUnderTest, *ids: str, priority: int = 0, delay_s: float = 0.0) -> tuple[Next, ...]:
    """Make the next jobs of an ack: of these ids, in one queue."""
    messages = [queue.message(id_, priority=priority, delay_s=delay_s) for id_ in ids]
    return tuple(Next(queue.name, message) for message in messages)


@contextmanager
def two_queues(
    context: CheckContext, kind: QueueKind = QueueKind.FIFO
) -> Iterator[tuple[QueueUnderTest, QueueUnderTest]]:
    """Two queues of one client: one of jobs that are acked, and one of the next, of this kind."""
    with context.backends(1) as (backend,):
        yield context.queue_on(backend), context.queue_on(backend, kind, name="next")


def _take_all(queue: QueueUnderTest, consumer: ConsumerBackend, count: int) -> list[str]:
    """Receive so many jobs, and return their receipts."""
    receipts: list[str] = []
    while len(receipts) < count:
        came = queue.receive(consumer, count)
        demand("RCV-1", came, f"only {len(receipts)} of {count} came")
        receipts += [delivery.receipt for delivery in came]
    return receipts


@check("THEN-1", needs="then")
def an_ack_publishes_the_next_jobs(context: CheckContext) -> None:
    """They are ready in their queues, whole and in order, and the job that was acked is done."""
    with two_queues(context) as (queue, following):
        queue.publish("job", "behind")
        consumer = queue.consumer()
        then = (*jobs_in(following, "b", "a"), *jobs_in(queue, "own"), *jobs_in(following, "c"))
        answer = consumer.settle([Ack(queue.receive_one(consumer).receipt, b"{}", then=then)])
        demand("THEN-1", answer.outcomes == [_OK], f"an ack with next jobs was answered {answer.outcomes}")
        following.expect_counts(ready=3)
        queue.expect_counts(ready=2)
        receiver = following.consumer()
        came = [following.receive_one(receiver) for _ in range(3)]
        ids = [each.id for each in came]
        demand("THEN-1", ids == ["b", "a", "c"], f"b, a and c were to come, and these came: {ids}")
        for each in came:
            whole = (each.body, each.attempt, each.number, each.crashes)
            expected = (following.message(each.id).body, 1, 1, 0)
            demand("THEN-1", whole == expected, f"{each.id} came as {whole}")
        drained = queue.drain(consumer, 2)
        demand("THEN-1", drained == ["behind", "own"], f"in the job's own queue, {drained} came")


@check("THEN-1", "RES-1", needs="then")
def a_job_may_be_its_own_next_one(context: CheckContext) -> None:
    """The id is free as the job ends; publishing it again forgets how the job before ended (RES-1)."""
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        first = queue.receive_one(consumer)
        queue.settle_ok(consumer, Ack(first.receipt, b"{}", then=jobs_in(queue, "job")))
        queue.expect_counts(ready=1)
        again = queue.receive_one(consumer)
        seen = (again.id, again.attempt, again.number)
        demand("THEN-1", seen == ("job", 1, 1), f"the next job came as {seen}")
        queue.settle_ok(consumer, Ack(again.receipt))
        if not context.capabilities.results:
            return
        result = queue.backend.result(queue.name, "job")
        body = None if result is None else result.body
        demand(
            "RES-1", body is None, f"the job ended without a result, and {body!r} of the one before is there"
        )


@check("THEN-1", "RES-2", needs="then")
def an_ack_with_next_jobs_keeps_its_result(context: CheckContext) -> None:
    """The result of a job is kept as without next jobs, and so is that it had none."""
    if not context.capabilities.results:
        return
    with two_queues(context) as (queue, following):
        queue.publish("with", "without")
        consumer = queue.consumer()
        receipts = [queue.receive_one(consumer).receipt for _ in range(2)]
        pairs = zip(receipts, (b'{"total":1}', None), ("a", "b"), strict=True)
        consumer.settle([Ack(receipt, body, then=jobs_in(following, id_)) for receipt, body, id_ in pairs])
        for id_, body in (("with", b'{"total":1}'), ("without", None)):
            found = queue.backend.result("jobs", id_, timeout_s=context.harness.timeout_s)
            demand("RES-2", found is not None and found.body == body, f"the result of {id_} is {found}")


@check("THEN-1", "DLY-1", needs="then")
def a_next_job_keeps_its_delay(context: CheckContext) -> None:
    """It is counted as delayed, and comes when it is due and not before."""
    soon_s = context.capabilities.delay_resolution_s + 0.3
    with two_queues(context) as (queue, following):
        queue.publish("job")
        consumer, receiver = queue.consumer(), following.consumer()
        receipt = queue.receive_one(consumer).receipt
        then = (*jobs_in(following, "soon", delay_s=soon_s), *jobs_in(following, "far", delay_s=3600.0))
        sent = context.harness.now()
        queue.settle_ok(consumer, Ack(receipt, then=then))
        came = following.receive_when_due(receiver, sent + soon_s, "DLY-1")
        demand("THEN-1", came.id == "soon", f"{came.id} came")
        following.settle_ok(receiver, Ack(came.receipt))
        following.expect_counts(delayed=1)


@check("THEN-1", "DLY-2", needs="then")
def a_delayed_next_job_wakes_a_receiver_when_due(context: CheckContext) -> None:
    """A receiver that waits in another queue than that of the ack gets it as soon as any delayed job."""
    resolution_s = context.capabilities.delay_resolution_s
    soon_s = resolution_s + 0.05
    cause = "a next job that was due in another queue"

    def wake() -> float:
        with context.backends(2) as (mine, other):
            queue, following = context.queue_on(mine), context.queue_on(mine, name="next")
            queue.publish("job")
            consumer = queue.consumer()
            receipt = queue.receive_one(consumer).receipt
            waiting = WaitingReceiver(context, following, other.open_consumer(following.name))
            consumer.settle([Ack(receipt, then=jobs_in(following, "new", delay_s=soon_s))])
            answered = context.harness.now()  # the delay began at some moment during the call
            waiting.finish("DLY-2", cause, within_s=soon_s + resolution_s + context.harness.timeout_s)
            return context.harness.now() - answered - soon_s - waiting.take_s

    demand_soon(context, "DLY-2", cause, wake, more_s=resolution_s)


@check("THEN-1", "ORD-3", needs="then")
def a_next_job_keeps_its_priority(context: CheckContext) -> None:
    """In a priority queue, it comes before those of lower priority that were published earlier.

    So does one with a delay, once it is due.
    """
    if not context.capabilities.priority:
        return
    resolution_s = context.capabilities.delay_resolution_s
    soon_s = resolution_s + 0.1
    with two_queues(context, QueueKind.PRIORITY) as (queue, following):
        following.publish("middle", priority=5)
        queue.publish("job")
        consumer = queue.consumer()
        then = (*jobs_in(following, "low"), *jobs_in(following, "high", priority=9))
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, then=then))
        receiver = following.consumer()
        drained = following.drain(receiver, 3)
        demand("ORD-3", drained == ["high", "middle", "low"], f"they came as {drained}")
        queue.publish("job")
        following.publish("middle", priority=5)
        then = tuple(
            step
            for number, id_ in enumerate(("low", "high"))
            for step in jobs_in(following, id_, priority=2 + 6 * number, delay_s=soon_s)
        )
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, then=then))
        context.harness.advance(soon_s + resolution_s)
        context.eventually(lambda: following.expect_counts(ready=3))
        drained = following.drain(receiver, 3)
        demand("ORD-3", drained == ["high", "middle", "low"], f"due after a delay, they came as {drained}")


@check("THEN-1", needs="then")
def a_next_job_is_the_newest_of_its_stack(context: CheckContext) -> None:
    """It comes before those that wait, also in the call that acks and takes."""
    if not context.capabilities.stack:
        return
    with context.queue(QueueKind.STACK) as queue:
        queue.publish("waits", "job")
        consumer = queue.consumer()
        ack = Ack(queue.receive_one(consumer).receipt, then=jobs_in(queue, "next"))
        taken = consumer.settle([ack], take=1).deliveries or [queue.receive_one(consumer)]
        demand("THEN-1", taken[0].id == "next", f"{taken[0].id} came before the job that was published last")


@check("THEN-1", "PUB-5", needs="then")
def a_live_id_counts_as_published(context: CheckContext) -> None:
    """With dedupe, a next job that is in its queue is there once; the id of the job itself is free again."""
    if not context.capabilities.dedupe:
        return
    with two_queues(context) as (queue, following):
        following.publish("live")
        queue.publish("job")
        consumer = queue.consumer()
        then = (*jobs_in(following, "live", "new", "new"), *jobs_in(queue, "job"))
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, then=then))
        ready = following.counts().ready
        demand("PUB-5", ready == 2, f"{ready} are ready: live, which was there before, new, and what else?")
        drained = following.drain(following.consumer(), 2)
        demand("PUB-5", drained == ["live", "new"], f"{drained} came, and live was there before")
        following.expect_counts()
        again = queue.drain(consumer, 1)
        demand("THEN-1", again == ["job"], f"{again} came, and job was to publish itself anew")
        queue.expect_counts()


@check("THEN-3", "SET-1", needs="then")
def an_ack_whose_next_queue_is_missing_is_refused(context: CheckContext) -> None:
    """It changes nothing, all others of its batch count, and the job can be settled otherwise."""
    with two_queues(context) as (queue, following):
        queue.publish("plain", "refused", "chained", "dead")
        consumer = queue.consumer()
        plain, refused, chained, dead = (queue.receive_one(consumer).receipt for _ in range(4))
        nowhere = Next("nowhere", following.message("lost"))
        answer = consumer.settle(
            [
                Ack(plain),
                Ack(refused, then=(*jobs_in(following, "half"), nowhere)),
                Ack(chained, then=jobs_in(following, "next")),
                Dead(dead, "rejected", "no good"),
            ]
        )
        expected = [_OK, _REFUSED, _OK, _OK]
        demand("THEN-3", answer.outcomes == expected, f"the answers were {answer.outcomes}")
        queue.expect_counts(in_flight=1, dead=1)
        if context.capabilities.atomic_then:
            following.expect_counts(ready=1)
        try:
            queue.backend.counts("nowhere")
        except QueueNotFound:
            pass
        else:
            demand("PUB-3", False, "an ack with a next job declared a queue")
        (extended,) = consumer.extend([refused])
        demand("THEN-3", extended is _OK, f"the lease of a refused ack was {extended}")
        outcome = queue.settle(consumer, Retry(refused, 0.0, "no such queue"))
        demand("THEN-3", outcome is _OK, f"a retry after a refused ack was answered {outcome}")
        again = queue.receive_one(consumer)
        demand("THEN-3", again.attempt == 2, f"after that, {again.id} came as attempt {again.attempt}")
        queue.backend.declare(Queue("nowhere"))
        outcome = queue.settle(consumer, Ack(again.receipt, then=(nowhere,)))
        demand("THEN-3", outcome is _OK, f"once the queue was declared, the ack was answered {outcome}")
        there = queue.backend.counts("nowhere").ready
        demand("THEN-1", there == 1, f"after that, {there} jobs are in the queue")


@check("THEN-3", "ADM-3", needs="then")
def a_deleted_queue_refuses_next_jobs(context: CheckContext) -> None:
    """An ack publishes nothing into a queue that was deleted, and goes on in one that is declared anew."""
    with two_queues(context) as (queue, following):
        queue.publish("a", "b")
        consumer = queue.consumer()
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, then=jobs_in(following, "a")))
        following.backend.delete(following.name)
        receipt = queue.receive_one(consumer).receipt
        outcome = queue.settle(consumer, Ack(receipt, then=jobs_in(following, "b")))
        demand("THEN-3", outcome is _REFUSED, f"an ack into a deleted queue was answered {outcome}")
        following.backend.declare(Queue(following.name))
        queue.settle_ok(consumer, Ack(receipt, then=jobs_in(following, "c")))
        drained = following.drain(following.consumer(), 1)
        demand("ADM-3", drained == ["c"], f"{drained} came in the queue that was declared anew")
        following.expect_counts()


@check("THEN-1", "SET-1", needs="then")
def a_large_batch_publishes_every_next_job(context: CheckContext) -> None:
    """1,200 acks in one call, plain ones and chained ones by turns: all are answered, all next jobs there."""
    ids = [f"job-{number:04}" for number in range(_MANY)]
    with two_queues(context) as (queue, following):
        for at in range(0, _MANY, 400):
            queue.publish(*ids[at : at + 400])
        consumer = queue.consumer()
        receipts = _take_all(queue, consumer, _MANY)
        acks = [
            Ack(each, then=jobs_in(following, f"next-{n:04}") if n % 4 else ())
            for n, each in enumerate(receipts)
        ]
        outcomes = consumer.settle(acks).outcomes
        done = outcomes.count(_OK)
        demand("SET-1", done == len(outcomes) == _MANY, f"of {_MANY} acks, {done} were answered OK")
        queue.expect_counts()
        expected = [f"next-{n:04}" for n in range(_MANY) if n % 4]
        following.expect_counts(ready=len(expected))
        receiver, came = following.consumer(), list[str]()
        while len(came) < len(expected):
            batch = following.receive(receiver, _MANY)
            demand("THEN-1", batch, f"only {len(came)} of {len(expected)} next jobs came")
            came += [delivery.id for delivery in batch]
            receiver.settle([Ack(delivery.receipt) for delivery in batch])
        demand("THEN-1", came == expected, "the next jobs came in another order than they were published in")


@check("THEN-1", "SET-1", needs="then")
def one_ack_may_publish_many(context: CheckContext) -> None:
    """A job fans out into 1,200: all are there, whole."""
    ids = [f"next-{number:04}" for number in range(_MANY)]
    with two_queues(context) as (queue, following):
        queue.publish("job")
        consumer = queue.consumer()
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, then=jobs_in(following, *ids)))
        following.expect_counts(ready=_MANY)


@check("THEN-1", "CON-1", needs="then")
def a_chained_ack_whose_reply_is_lost_counts_once(context: CheckContext) -> None:
    """Asked again, the answer is what it was. With `atomic_then` there is one next job, else one at least."""
    for result in (None, b"{}"):
        with two_queues(context) as (queue, following):
            queue.publish("job", "other")
            consumer = queue.consumer()
            receipt = queue.receive_one(consumer).receipt
            acks = [Ack(receipt, result, then=jobs_in(following, "next"))]
            context.cut_reply(queue.backend)
            try:
                (outcome,) = consumer.settle(acks, take=1).outcomes
            except BackendUnavailable:
                (outcome,) = consumer.settle(acks).outcomes
            if context.capabilities.atomic_then:
                demand("CON-1", outcome is not _LOST, f"an ack whose reply was lost was answered {outcome}")
            there = following.counts().ready
            if outcome is _LOST and not there:  # nothing was done, so the job comes again
                again = queue.receive_one(consumer)
                queue.settle_ok(consumer, Ack(again.receipt, then=jobs_in(following, "next")))
                there = following.counts().ready
            least = there == 1 or (there > 1 and not context.capabilities.dedupe)
            demand("THEN-1", least, f"after a lost reply, there are {there} next jobs")


@check("THEN-1", "SET-1", needs="then", modes=EVERY_MODE)
def a_handler_names_the_next_job(context: CheckContext) -> None:
    """A handler that returns ``Then`` has the next job run, here three times in the queue of the first."""
    with app_on(context) as app:
        schema = app.orchestrator.schema_registry.registered(QUEUE).schema

        def go_on(job: Job[Numbers]) -> Any:
            return Then(schema, Numbers(x=job.payload.x + 1)) if job.payload.x < 3 else None

        first = app.publish(Numbers())
        consumer = app.consume(app.recorder(go_on), 4)
        came = sorted(job.payload.x for job in consumer.jobs)
        demand("THEN-1", came == [0, 1, 2, 3], f"of a chain of four, these came: {came}")
        demand("THEN-1", consumer.ids[0] == first and len(set(consumer.ids)) == 4, f"ids {consumer.ids}")
        waiting = app.orchestrator.count_queue_messages(QUEUE)
        demand("THEN-1", waiting == 0, f"at the end of a chain, {waiting} jobs wait")


@refusal("then")
def what_publishes_no_next_jobs_says_so(context: CheckContext) -> None:
    """Where acks publish nothing, a handler that names a next job gets its own job dead, with the reason."""
    assert not context.capabilities.atomic_then, "without `then`, nothing can be done in one step"
    with app_on(context) as app:
        schema = app.orchestrator.schema_registry.registered(QUEUE).schema
        app.publish(Numbers())
        app.consume(app.recorder(lambda job: Then(schema, Numbers(x=1))), 1)
        counts = app.orchestrator.counts(QUEUE)
        assert (counts.waiting, counts.dead) == (0, 1), f"what isn't supported was not refused: {counts}"
