"""CAN-1 and CAN-4: cancelling jobs that wait, and what is answered."""

from collections.abc import Callable

from hypothesis import strategies as st

from ...domain import QueueKind
from ...domain.errors import QueueNotFound, UnsupportedCapability
from ...ports import (
    Ack,
    CancelOutcome,
    ConsumerBackend,
    Dead,
    JobResult,
    JobStatus,
    PublishStatus,
    Release,
    ResultStatus,
    Retry,
    SettleOutcome,
)
from ..check_context import CheckContext
from ..check_queue import QueueUnderTest
from ..registry import check, refusal
from ..violation import demand

CANCELLED = JobResult(ResultStatus.CANCELLED)
_MANY = 1200
"""More jobs than an adapter handles in one request."""
_LATER_S = 3600.0


def cancel(queue: QueueUnderTest, *ids: str) -> list[CancelOutcome]:
    """Cancel jobs, and demand one answer for each."""
    outcomes = queue.backend.cancel(queue.name, ids)
    demand("CAN-4", len(outcomes) == len(ids), f"{len(outcomes)} answers for {len(ids)} jobs")
    return outcomes


def expect_cancelled(queue: QueueUnderTest, *ids: str, clause: str = "CAN-1") -> None:
    """Demand that these jobs ended as cancelled, and that this is what their results say."""
    for id_ in ids:
        result, status = queue.backend.result(queue.name, id_), queue.backend.status(queue.name, id_)
        demand(clause, result == CANCELLED, f"the result of {id_}, which was cancelled, is {result}")
        demand(clause, status is JobStatus.CANCELLED, f"{id_}, which was cancelled, is {status}")


def _ready(queue: QueueUnderTest, _: ConsumerBackend) -> None:
    queue.publish("job")


def _delayed(queue: QueueUnderTest, _: ConsumerBackend) -> None:
    queue.publish("job", delay_s=_LATER_S)


def _retried(queue: QueueUnderTest, consumer: ConsumerBackend) -> None:
    queue.publish("job")
    queue.settle_ok(consumer, Retry(queue.receive_one(consumer).receipt, 0.0, "again"))


def _retried_later(queue: QueueUnderTest, consumer: ConsumerBackend) -> None:
    queue.publish("job")
    queue.settle_ok(consumer, Retry(queue.receive_one(consumer).receipt, _LATER_S, "later"))


def _released(queue: QueueUnderTest, consumer: ConsumerBackend) -> None:
    queue.publish("job")
    queue.settle_ok(consumer, Release(queue.receive_one(consumer).receipt))


def _redriven(queue: QueueUnderTest, consumer: ConsumerBackend) -> None:
    queue.publish("job")
    queue.settle_ok(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no good"))
    assert queue.backend.redrive(queue.name) == 1


_WAITS: list[Callable[[QueueUnderTest, ConsumerBackend], None]] = [
    *(_ready, _delayed, _retried, _retried_later, _released, _redriven)
]


@check("CAN-1", needs="cancel")
def a_job_that_waits_is_cancelled(context: CheckContext) -> None:
    """Ready, delayed, retried, released or redriven: it never comes, and the others keep their positions."""

    @context.property(kind=st.sampled_from(_kinds(context)), wait=st.sampled_from(_WAITS))
    def _(kind: QueueKind, wait: Callable[[QueueUnderTest, ConsumerBackend], None]) -> None:
        with context.queue(kind) as queue:
            consumer = queue.consumer()
            wait(queue, consumer)
            queue.publish("a", "b", "c")
            outcomes = cancel(queue, "job", "b")
            demand("CAN-1", set(outcomes) == {CancelOutcome.CANCELLED}, f"what waited was {outcomes}")
            queue.expect_counts(ready=2)
            expect_cancelled(queue, "job", "b")
            context.harness.advance(0.0)
            came = queue.drain(consumer, 2)
            demand("CAN-1", sorted(came) == ["a", "c"], f"{came} came after job and b were cancelled")
            expected = ["c", "a"] if kind is QueueKind.STACK else ["a", "c"]
            demand("CAN-1", came == expected, f"{came} came, expected {expected}")
            queue.receive_nothing(consumer)
            queue.expect_counts()


def _kinds(context: CheckContext) -> list[QueueKind]:
    able = {QueueKind.STACK: context.capabilities.stack, QueueKind.PRIORITY: context.capabilities.priority}
    return [kind for kind in QueueKind if able.get(kind, True)]


@check("CAN-1", needs="cancel")
def a_delayed_job_that_was_cancelled_does_not_come_when_due(context: CheckContext) -> None:
    """It is gone from where delayed jobs wait: when its time has come, another comes, and it doesn't."""
    soon_s = context.capabilities.delay_resolution_s + 0.2
    with context.queue() as queue:
        consumer = queue.consumer()
        queue.publish("cancelled", "stays", delay_s=soon_s)
        due = context.harness.now() + soon_s
        assert cancel(queue, "cancelled") == [CancelOutcome.CANCELLED]
        waiting = queue.backend.counts(queue.name).waiting  # the other may be due by now
        demand("CAN-1", waiting == 1, f"{waiting} wait, where one of two was cancelled")
        came = queue.receive_when_due(consumer, due - soon_s, "CAN-1")
        demand("CAN-1", came.id == "stays", f"{came.id} came when it was due")
        queue.receive_nothing(consumer)


@check("CAN-1", "PUB-5", needs="cancel")
def a_cancelled_id_can_be_used_again(context: CheckContext) -> None:
    """Published again it is a new job, of which nothing was cancelled; it runs, and its own end counts."""
    with context.queue() as queue:
        consumer = queue.consumer()
        for attempt in range(3):
            queue.publish("job")
            assert cancel(queue, "job") == [CancelOutcome.CANCELLED]
            (outcome,) = queue.backend.publish(queue.name, [queue.message("job")])
            accepted = outcome.status is PublishStatus.ACCEPTED
            demand("PUB-5", accepted, f"a cancelled id, published again, was {outcome.status}")
            result, status = queue.backend.result(queue.name, "job"), queue.backend.status(queue.name, "job")
            found = (result, status)
            demand("CAN-1", found == (None, JobStatus.WAITING), f"published again, it is {found}")
            delivery = queue.receive_one(consumer)
            fresh = (delivery.attempt, delivery.number, delivery.crashes)
            demand("CAN-1", fresh == (1, 1, 0), f"attempt, delivery and crashes are {fresh}")
            (told,) = consumer.extend([delivery.receipt])
            demand("CAN-1", told == "ok", f"extending the new job was answered {told}")
            output = b'{"total":1}' if attempt % 2 else None
            queue.settle_ok(consumer, Ack(delivery.receipt, output))
            result = queue.backend.result(queue.name, "job")
            expected = JobResult(ResultStatus.DONE, output)
            demand("CAN-1", result == expected, f"the new job was done, and its result is {result}")


@check("CAN-1", "RES-1", needs="cancel")
def nothing_is_left_of_an_earlier_cancellation(context: CheckContext) -> None:
    """A job that was cancelled, published again and then purged or discarded has no result."""
    with context.queue() as queue:
        consumer = queue.consumer()
        for end in ("purge", "discard"):
            queue.publish("job")
            cancel(queue, "job")
            queue.publish("job")
            if end == "discard":
                queue.settle(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no good"))
                assert queue.backend.discard(queue.name) == 1
            else:
                assert queue.backend.purge(queue.name) == 1
            found = queue.backend.result(queue.name, "job")
            demand("RES-1", found is None, f"after a {end}, the result is {found}")


@check("CAN-1", "RES-1", needs="cancel")
def that_a_job_was_cancelled_is_forgotten_in_time(context: CheckContext) -> None:
    """After its time nothing is known of it, not even that a job of its id was done before."""
    ttl_s = 0.3
    with context.queue() as queue:
        consumer = queue.consumer()
        queue.publish("job")
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt))
        queue.publish("job", "other")
        outcomes = queue.backend.cancel(queue.name, ["job"], result_ttl_s=ttl_s)
        assert outcomes == [CancelOutcome.CANCELLED]
        context.harness.advance(ttl_s - 0.1)
        queue.backend.cancel(queue.name, ["job"], result_ttl_s=3600.0)  # again: that changes nothing
        context.harness.advance(0.2)
        queue.settle_ok(consumer, Ack(queue.receive_one(consumer).receipt, b"{}"))
        found = queue.backend.result(queue.name, "job")
        demand("CAN-1", found is None, f"after its time, the result is {found}")
        (outcome,) = cancel(queue, "job")
        demand("CAN-4", outcome is CancelOutcome.UNKNOWN, f"cancelling what is forgotten was {outcome}")


@check("CAN-4", "CAN-1", "RES-1", needs="cancel")
def the_first_request_to_cancel_a_running_job_counts(context: CheckContext) -> None:
    """It says for how long to remember that the job was cancelled; asking again changes nothing."""
    ttl_s = 0.3
    with context.queue() as queue:
        consumer = queue.consumer()
        queue.publish("job")
        held = queue.receive_one(consumer)
        for asked_s in (ttl_s, 3600.0):
            queue.backend.cancel(queue.name, ["job"], result_ttl_s=asked_s)
        outcome = queue.settle(consumer, Retry(held.receipt, 0.0, "again"))
        demand("CAN-3", outcome is SettleOutcome.CANCELLED, f"a retry of a cancelled job was {outcome}")
        context.harness.advance(ttl_s + 0.2)
        found = queue.backend.result(queue.name, "job")
        demand("CAN-4", found is None, f"asked to be remembered for {ttl_s:g} s first, the result is {found}")


@check("CAN-1", "RES-1", needs="cancel")
def who_waits_for_a_cancelled_job_is_woken(context: CheckContext) -> None:
    """A wait for the result ends when the job is cancelled; who waits for many jobs is told."""
    with context.queue() as queue:
        queue.publish("job", "other")
        waiting = context.start(lambda: queue.backend.result(queue.name, "job", timeout_s=300.0))
        with queue.backend.ended_jobs(queue.name) as ended:
            cancel(queue, "job", "other")
            found = context.finish(waiting)
            demand("CAN-1", found == CANCELLED, f"the wait for a cancelled job ended with {found}")
            missing, elapsed_s = {"job", "other"}, context.stopwatch()
            while missing and elapsed_s() < context.harness.timeout_s:
                told = ended.wait(5.0)
                ask = missing if told is None else missing.intersection(told)
                missing -= queue.backend.results(queue.name, sorted(ask)).keys()
            demand("CAN-1", not missing, f"nobody was told that {missing} ended")


@check("CAN-1", "CAN-4", needs="cancel")
def many_jobs_are_cancelled_at_once(context: CheckContext) -> None:
    """One call cancels 1,200 jobs that are ready, as many that are delayed, and none that isn't named."""
    ready = [f"ready-{number:04}" for number in range(_MANY)]
    delayed = [f"delayed-{number:04}" for number in range(_MANY)]
    with context.queue() as queue:
        queue.publish(*ready, "last")
        queue.publish(*delayed, delay_s=_LATER_S)
        outcomes = cancel(queue, *ready, "never", *delayed)
        expected = [CancelOutcome.CANCELLED] * (2 * _MANY)
        expected.insert(_MANY, CancelOutcome.UNKNOWN)
        wrong = [place for place, found in enumerate(outcomes) if found is not expected[place]]
        demand("CAN-4", not wrong, f"{len(wrong)} answers aren't as they should be: {wrong[:3]}")
        queue.expect_counts(ready=1)
        results = queue.backend.results(queue.name, [*ready, *delayed])
        demand("CAN-1", set(results.values()) == {CANCELLED}, "some results don't say that it was cancelled")
        demand("CAN-1", len(results) == 2 * _MANY, f"{len(results)} of {2 * _MANY} have a result")
        came = queue.drain(queue.consumer(), 1)
        demand("CAN-1", came == ["last"], f"{came} came")


@check("CAN-4", needs="cancel")
def who_cancels_is_told_the_truth(context: CheckContext) -> None:
    """Each answer says what became of that job, in order, an id that is named twice included."""
    with context.queue() as queue:
        queue.publish("done", "dead", "silent", "running", "waiting")
        consumer = queue.consumer()
        receipts = [queue.receive_one(consumer).receipt for _ in range(4)]
        queue.settle_ok(consumer, Ack(receipts[0], b"{}"))
        queue.settle_ok(consumer, Dead(receipts[1], "rejected", "no good"))
        queue.settle_ok(consumer, Ack(receipts[2]))
        late, unknown = CancelOutcome.TOO_LATE, CancelOutcome.UNKNOWN
        requested, cancelled = CancelOutcome.REQUESTED, CancelOutcome.CANCELLED
        ids = ("done", "never", "waiting", "dead", "running", "waiting", "silent", "running")
        expected = [late, unknown, cancelled, late, requested, cancelled, late, requested]
        for _ in range(2):
            outcomes = cancel(queue, *ids)
            demand("CAN-4", outcomes == expected, f"the answers are {outcomes}")
        queue.expect_counts(in_flight=1, dead=1)
        (letter,) = queue.backend.dead_letters(queue.name)
        demand("CAN-4", letter.id == "dead", "cancelling what was dead changed the dead letters")
        result = queue.backend.result(queue.name, "done")
        demand("CAN-4", result == JobResult(ResultStatus.DONE, b"{}"), f"a job that was done has {result}")
        assert cancel(queue) == []


@check("CAN-4", "PUB-3", "CON-2", needs="cancel")
def only_a_job_of_this_queue_is_cancelled(context: CheckContext) -> None:
    """An undeclared queue is refused; jobs of that id in other queues and namespaces stay."""
    with context.backends(1) as (backend,), context.backends(1) as (stranger,):
        queue, other = context.queue_on(backend), context.queue_on(backend, name="other")
        theirs = context.queue_on(stranger)
        for each in (queue, other, theirs):
            each.publish("job")
        assert cancel(queue, "job") == [CancelOutcome.CANCELLED]
        for each in (other, theirs):
            assert each.drain(each.consumer(), 1) == ["job"]
        error = context.failure_of(lambda: backend.cancel("never-declared", ["job"]))
        demand("PUB-3", isinstance(error, QueueNotFound), f"cancelling in no queue raised {error!r}")


@check("CAN-4", "CON-1", needs="cancel")
def a_cancel_whose_reply_is_lost_is_answered_truly(context: CheckContext) -> None:
    """Asked again by itself or by its caller, it says the same; each job is cancelled once."""
    with context.queue() as queue:
        queue.publish("running", "waiting", "stays")
        consumer = queue.consumer()
        receipt = queue.receive_one(consumer).receipt
        outcomes = None
        if context.cut_reply(queue.backend):
            error = context.failure_of(lambda: outcomes_of(queue))
            demand("CON-1", error is None or isinstance(error, ConnectionError), f"it raised {error!r}")
        outcomes = outcomes_of(queue)
        expected = [CancelOutcome.REQUESTED, CancelOutcome.CANCELLED]
        demand("CAN-4", outcomes == expected, f"the answers are {outcomes}")
        queue.expect_counts(ready=1, in_flight=1)
        demand("CAN-2", consumer.extend([receipt]) == ["cancelled"], "its consumer isn't told")
        assert queue.drain(queue.consumer(), 1) == ["stays"]


def outcomes_of(queue: QueueUnderTest) -> list[CancelOutcome]:
    """Cancel a job that runs, and one that waits."""
    return cancel(queue, "running", "waiting")


@refusal("cancel")
def a_cancel_is_refused(context: CheckContext) -> None:
    """A backend that can't cancel jobs says so, changes nothing, and says what to do."""
    with context.queue() as queue:
        queue.publish("job")
        error = context.failure_of(lambda: queue.backend.cancel(queue.name, ["job"]))
        assert isinstance(error, UnsupportedCapability), f"cancelling raised {error!r}"
        assert queue.drain(queue.consumer(), 1) == ["job"]
