"""RES: what a handler gave back."""

from functools import partial
from typing import Any

from hypothesis import strategies as st

from ...domain import Job, Reject
from ...domain.dead_reasons import DeadReason
from ...domain.errors import JobFailed, QueueNotFound, ResultNotReady, UnsupportedCapability
from ...ports import Ack, Dead, JobResult, JobStatus, Release, ResultStatus, Retry, SettleOutcome
from ..app import QUEUE, Numbers, Total, add, app_on
from ..check_context import CheckContext
from ..modes import EVERY_MODE, ONE_AT_A_TIME
from ..registry import check, refusal
from ..violation import demand


@check("RES-1", needs="results", modes=EVERY_MODE)
def a_result_comes_back_typed(context: CheckContext) -> None:
    """What the handler returned, as a model or a dict, is read back as the schema's output model."""

    @context.property(x=st.floats(-1e6, 1e6), as_dict=st.booleans())
    def _(x: float, as_dict: bool) -> None:
        with app_on(context) as app:
            job_id = app.publish(Numbers(x=x, y=1))
            app.consume(app.recorder(lambda job: add(job).model_dump() if as_dict else add(job)), 1)
            found = app.orchestrator.result(QUEUE, job_id)
            demand("RES-1", found == Total(total=x + 1), f"the result is {found!r}")


@check("RES-1", needs="results", modes=EVERY_MODE)
def a_waiter_is_woken_by_the_result(context: CheckContext) -> None:
    """Waiting for a result ends when the job does, not when the timeout does."""
    with app_on(context) as app:
        job_id = app.publish(Numbers(x=1, y=2))
        waiting = context.start(lambda: app.orchestrator.result(QUEUE, job_id, timeout_s=300.0))
        app.consume(app.recorder(), 1)
        assert context.finish(waiting) == Total(total=3)


@check("RES-1", needs="results")
def waiting_has_an_end(context: CheckContext) -> None:
    """A job that hasn't ended, or was never published, has no result: at once, or after the timeout."""
    with app_on(context) as app:
        job_id = app.publish(Numbers())
        for asked, timeout_s in ((job_id, 0.0), (job_id, 0.3), ("never-published", 0.0)):
            elapsed_s = context.stopwatch()
            ask = partial(app.orchestrator.result, QUEUE, asked, timeout_s=timeout_s)
            assert isinstance(context.failure_of(ask), ResultNotReady)
            demand("RES-1", elapsed_s() >= timeout_s - 0.01, "it gave up early")


@check("RES-1", needs="results", modes=EVERY_MODE)
def a_dead_job_answers_with_its_error(context: CheckContext) -> None:
    """Whoever asks for the result of a job that failed gets its error; after a redrive, its result."""
    with app_on(context) as app:
        job_id = app.publish(Numbers(x=1, y=2))

        def reject(_job: object) -> None:
            raise Reject("a broken image")

        app.consume(app.recorder(reject), 1)
        error = context.failure_of(lambda: app.orchestrator.result(QUEUE, job_id))
        told = error.error if isinstance(error, JobFailed) else None
        demand("RES-1", told == "a broken image", f"the result of a dead job raised {error!r}")
        app.orchestrator.redrive(QUEUE)
        app.consume(app.recorder(), 1)
        assert app.orchestrator.result(QUEUE, job_id) == Total(total=3)


@check("RES-1", needs="results")
def an_earlier_life_answers_nothing(context: CheckContext) -> None:
    """A job that ended, was published again and then purged or discarded has no result."""
    with context.queue() as queue:
        consumer = queue.consumer()
        for body in (None, b'{"total":1}'):
            queue.publish("purged", "discarded")
            first, second = queue.receive_one(consumer), queue.receive_one(consumer)
            consumer.settle([Ack(first.receipt, body), Ack(second.receipt, body)])
            queue.publish("discarded", "purged")
            queue.settle(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no good"))
            assert (queue.backend.discard(queue.name), queue.backend.purge(queue.name)) == (1, 1)
            for id_ in ("purged", "discarded"):
                found = queue.backend.result(queue.name, id_)
                demand("RES-1", found is None, f"{id_} is said to have ended: {found}")


@check("RES-1", needs="results", modes=EVERY_MODE)
def a_handler_that_returns_nothing_is_done(context: CheckContext) -> None:
    """The result of a job whose handler returned None is None, and its waiter doesn't wait on."""
    with app_on(context) as app:
        job_id = app.publish(Numbers())
        app.consume(app.recorder(lambda _job: None), 1)
        assert app.orchestrator.result(QUEUE, job_id) is None


@check("RES-1", modes=EVERY_MODE)
def an_output_that_does_not_fit_is_a_failure(context: CheckContext) -> None:
    """A job whose output doesn't validate is dead at once, whatever attempts are left; it can be redriven."""
    wrong: list[Any] = [{"total": "many"}, {}, 7, Numbers()]
    with app_on(context) as app:
        for output in wrong:
            app.publish(Numbers(x=1, y=2))
            app.consume(app.recorder(lambda _job, output=output: output), 1)  # type: ignore[misc]
        letters = app.orchestrator.dead_letters(QUEUE)
        reasons = [letter.reason for letter in letters]
        demand("RES-1", reasons == [DeadReason.RESULT] * len(wrong), f"the reasons are {reasons}")
        demand("SET-3", all("Total" in letter.error for letter in letters), f"the letters are {letters}")
        assert app.orchestrator.redrive(QUEUE) == len(wrong)
        assert len(app.consume(app.recorder(), len(wrong)).jobs) == len(wrong)
        assert app.orchestrator.counts(QUEUE).dead == 0


@check("RES-1", needs="results", modes=EVERY_MODE)
def an_id_used_again_forgets_its_former_result(context: CheckContext) -> None:
    """The result of a job is its own, and not that of one that had its id before."""
    with app_on(context) as app:
        job = Job(schema_name=QUEUE, payload=Numbers(x=1, y=2), id="daily")
        app.publish(job)
        app.consume(app.recorder(), 1)
        assert app.orchestrator.result(QUEUE, "daily") == Total(total=3)
        app.publish(job)
        ask = partial(app.orchestrator.result, QUEUE, "daily")
        demand(
            "RES-1", isinstance(context.failure_of(ask), ResultNotReady), "it answers before it has run again"
        )
        app.consume(app.recorder(lambda _job: None), 1)
        demand("RES-1", app.orchestrator.result(QUEUE, "daily") is None, "it answers with the former result")


@check("RES-1", needs="results", modes=EVERY_MODE)
def a_result_is_kept_for_its_time(context: CheckContext) -> None:
    """A result can be read, any number of times, until its time is over."""
    with app_on(context) as app:
        job_id = app.publish(Numbers(x=1, y=2))
        app.consume(app.recorder(), 1)
        for _ in range(3):
            assert app.orchestrator.result(QUEUE, job_id) == Total(total=3)
    if context.mode is not ONE_AT_A_TIME:
        return  # how the job was run makes no difference to the broker's clock
    ttl_s = 1.0
    with app_on(context, result_ttl_s=ttl_s) as app:
        job_id = app.publish(Numbers(x=1, y=2))
        began = context.harness.now()
        app.consume(app.recorder(), 1)
        ask = partial(app.orchestrator.result, QUEUE, job_id)
        is_gone = context.failure_of(ask) is not None
        kept_s = context.harness.now() - began
        demand("RES-1", not is_gone or kept_s >= ttl_s, f"it was gone after {kept_s:.3f} s, not {ttl_s:g} s")
        context.harness.advance(ttl_s + 0.5)
        assert isinstance(context.failure_of(ask), ResultNotReady)


@check("RES-1", needs="results")
def where_a_job_is_can_be_told(context: CheckContext) -> None:
    """A backend that says where jobs are tells one that waits, runs, is done, is dead or isn't known."""
    harness = context.harness
    with context.queue() as queue:
        status = partial(queue.backend.status, queue.name)
        try:
            status("never-published")
        except UnsupportedCapability:  # which is allowed
            return

        def expect(id_: str, expected: JobStatus) -> None:
            found = status(id_)
            demand("RES-1", found is expected, f"{id_} is said to be {found}, not {expected}")

        assert isinstance(context.failure_of(partial(queue.backend.status, "nowhere", "job")), QueueNotFound)
        expect("never-published", JobStatus.UNKNOWN)
        queue.publish("job", "silent", "purged")
        consumer = queue.consumer()
        held, silent, purged = (queue.receive_one(consumer) for _ in range(3))
        expect("job", JobStatus.RUNNING)
        queue.settle(consumer, Release(held.receipt))
        expect("job", JobStatus.WAITING)
        queue.settle(consumer, Dead(queue.receive_one(consumer).receipt, "rejected", "no good"))
        expect("job", JobStatus.FAILED)
        queue.backend.redrive(queue.name)
        expect("job", JobStatus.WAITING)
        queue.settle(consumer, Ack(queue.receive_one(consumer).receipt, b'"mine"'))
        queue.settle(consumer, Ack(silent.receipt))
        expect("job", JobStatus.DONE)
        expect("silent", JobStatus.DONE)
        queue.settle(consumer, Retry(purged.receipt, 3600.0, "later"))
        expect("purged", JobStatus.WAITING)
        queue.backend.purge(queue.name)
        expect("purged", JobStatus.UNKNOWN)
        queue.publish("lost")
        doomed = queue.consumer(lease_s=harness.lease_s)
        queue.receive_one(doomed)
        harness.crash(doomed)
        harness.advance(harness.redelivery_s(harness.lease_s))
        expect("lost", JobStatus.WAITING)


@check("RES-2", needs="results")
def a_result_is_stored_with_the_ack(context: CheckContext) -> None:
    """There is no result before the ack, and one right after it; a stale ack stores none."""
    harness = context.harness
    with context.queue() as queue:
        queue.publish("job")
        slow = queue.consumer(lease_s=harness.lease_s)
        stale = queue.receive_one(slow)
        assert queue.backend.result(queue.name, "job") is None
        harness.crash(slow)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = queue.consumer()
        held = queue.receive_one(consumer)
        if slow.lease_s is not None:
            assert queue.settle(slow, Ack(stale.receipt, b'"stale"')) is SettleOutcome.LOST
        demand("RES-2", queue.backend.result(queue.name, "job") is None, "a stale ack stored its result")
        queue.settle_ok(consumer, Ack(held.receipt, b'"mine"'))
        found = queue.backend.result(queue.name, "job")
        demand("RES-2", found == JobResult(ResultStatus.DONE, b'"mine"'), f"the result is {found}")


@check("RES-2", needs="results")
def a_failure_is_stored_with_the_death(context: CheckContext) -> None:
    """The error of a dead job is known as soon as it is dead, and not before."""
    with context.queue() as queue:
        queue.publish("job")
        consumer = queue.consumer()
        held = queue.receive_one(consumer)
        assert queue.backend.result(queue.name, "job") is None
        queue.settle_ok(consumer, Dead(held.receipt, "rejected", "no good"))
        found = queue.backend.result(queue.name, "job")
        demand("RES-2", found == JobResult(ResultStatus.FAILED, None, "no good"), f"the result is {found}")


@refusal("results")
def a_question_for_a_result_is_refused(context: CheckContext) -> None:
    """Where no results are kept, asking for one raises UnsupportedCapability; a handler may return one."""
    with app_on(context) as app:
        job_id = app.publish(Numbers())
        app.consume(app.recorder(), 1)
        assert app.orchestrator.counts(QUEUE).dead == 0
        try:
            app.orchestrator.result(QUEUE, job_id)
        except UnsupportedCapability:
            return
        raise AssertionError("asking for a result was not refused")
