"""RES: what a handler gave back."""

from functools import partial
from typing import Any

from hypothesis import strategies as st

from ...domain import Job, Reject
from ...domain.dead_reasons import DeadReason
from ...domain.errors import JobFailed, ResultNotReady, UnsupportedCapability
from ...ports import Ack, Dead, JobResult, ResultStatus, SettleOutcome
from ..app import QUEUE, Numbers, Recorder, Total, add, app_on
from ..bench import Bench
from ..registry import check, refusal
from ..violation import demand


@check("RES-1", needs="results")
def a_result_comes_back_typed(bench: Bench) -> None:
    """What the handler returned, as a model or a dict, is read back as the schema's output model."""

    @bench.property(x=st.floats(-1e6, 1e6), as_dict=st.booleans())
    def _(x: float, as_dict: bool) -> None:
        with app_on(bench) as app:
            job_id = app.publish(Numbers(x=x, y=1))
            app.consume(Recorder(lambda job: add(job).model_dump() if as_dict else add(job)), 1)
            found = app.orchestrator.result(QUEUE, job_id)
            demand("RES-1", found == Total(total=x + 1), f"the result is {found!r}")


@check("RES-1", needs="results")
def a_waiter_is_woken_by_the_result(bench: Bench) -> None:
    """Waiting for a result ends when the job does, not when the timeout does."""
    with app_on(bench) as app:
        job_id = app.publish(Numbers(x=1, y=2))
        waiting = bench.start(lambda: app.orchestrator.result(QUEUE, job_id, timeout_s=300.0))
        app.consume(Recorder(), 1)
        assert bench.finish(waiting) == Total(total=3)


@check("RES-1", needs="results")
def waiting_has_an_end(bench: Bench) -> None:
    """A job that hasn't ended, or was never published, has no result: at once, or after the timeout."""
    with app_on(bench) as app:
        job_id = app.publish(Numbers())
        for asked, timeout_s in ((job_id, 0.0), (job_id, 0.3), ("never-published", 0.0)):
            elapsed_s = bench.stopwatch()
            ask = partial(app.orchestrator.result, QUEUE, asked, timeout_s=timeout_s)
            assert isinstance(bench.failure_of(ask), ResultNotReady)
            demand("RES-1", elapsed_s() >= timeout_s - 0.01, "it gave up early")


@check("RES-1", needs="results")
def a_dead_job_answers_with_its_error(bench: Bench) -> None:
    """Whoever asks for the result of a job that failed gets its error; after a redrive, its result."""
    with app_on(bench) as app:
        job_id = app.publish(Numbers(x=1, y=2))

        def reject(_job: object) -> None:
            raise Reject("a broken image")

        app.consume(Recorder(reject), 1)
        error = bench.failure_of(lambda: app.orchestrator.result(QUEUE, job_id))
        demand("RES-1", isinstance(error, JobFailed), f"the result of a dead job raised {error!r}")
        demand("RES-1", str(error) == "a broken image", f"the error is {error}")
        app.orchestrator.redrive(QUEUE)
        app.consume(Recorder(), 1)
        assert app.orchestrator.result(QUEUE, job_id) == Total(total=3)


@check("RES-1", needs="results")
def an_earlier_life_answers_nothing(bench: Bench) -> None:
    """A job that ended, was published again and then purged or discarded has no result."""
    with bench.rig() as rig:
        consumer = rig.consumer()
        for body in (None, b'{"total":1}'):
            rig.publish("purged", "discarded")
            first, second = rig.receive_one(consumer), rig.receive_one(consumer)
            consumer.settle([Ack(first.receipt, body), Ack(second.receipt, body)])
            rig.publish("discarded", "purged")
            rig.settle(consumer, Dead(rig.receive_one(consumer).receipt, "rejected", "no good"))
            assert (rig.backend.discard(rig.queue), rig.backend.purge(rig.queue)) == (1, 1)
            for id_ in ("purged", "discarded"):
                found = rig.backend.result(rig.queue, id_)
                demand("RES-1", found is None, f"{id_} is said to have ended: {found}")


@check("RES-1", needs="results")
def a_handler_that_returns_nothing_is_done(bench: Bench) -> None:
    """The result of a job whose handler returned None is None, and its waiter doesn't wait on."""
    with app_on(bench) as app:
        job_id = app.publish(Numbers())
        app.consume(Recorder(lambda _job: None), 1)
        assert app.orchestrator.result(QUEUE, job_id) is None


@check("RES-1")
def an_output_that_does_not_fit_is_a_failure(bench: Bench) -> None:
    """A handler whose output doesn't validate has failed, and its job is retried and dies as any other."""
    wrong: list[Any] = [{"total": "many"}, {}, 7, Numbers()]
    with app_on(bench) as app:
        for output in wrong:
            app.publish(Job(schema_name=QUEUE, payload=Numbers(), max_attempts=1))
            app.consume(Recorder(lambda _job, output=output: output), 1)  # type: ignore[misc]
        letters = app.orchestrator.dead_letters(QUEUE)
        assert [letter.reason for letter in letters] == [DeadReason.ATTEMPTS] * len(wrong)
        assert all("Total" in letter.error for letter in letters)


@check("RES-1", needs="results")
def an_id_used_again_forgets_its_former_result(bench: Bench) -> None:
    """The result of a job is its own, and not that of one that had its id before."""
    with app_on(bench) as app:
        job = Job(schema_name=QUEUE, payload=Numbers(x=1, y=2), id="daily")
        app.publish(job)
        app.consume(Recorder(), 1)
        assert app.orchestrator.result(QUEUE, "daily") == Total(total=3)
        app.publish(job)
        ask = partial(app.orchestrator.result, QUEUE, "daily")
        demand(
            "RES-1", isinstance(bench.failure_of(ask), ResultNotReady), "it answers before it has run again"
        )
        app.consume(Recorder(lambda _job: None), 1)
        demand("RES-1", app.orchestrator.result(QUEUE, "daily") is None, "it answers with the former result")


@check("RES-1", needs="results")
def a_result_is_kept_for_its_time(bench: Bench) -> None:
    """A result can be read, any number of times, until its time is over."""
    with app_on(bench, result_ttl_s=3600.0) as app:
        job_id = app.publish(Numbers(x=1, y=2))
        app.consume(Recorder(), 1)
        for _ in range(3):
            assert app.orchestrator.result(QUEUE, job_id) == Total(total=3)
    ttl_s = 1.0
    with app_on(bench, result_ttl_s=ttl_s) as app:
        job_id = app.publish(Numbers(x=1, y=2))
        began = bench.harness.now()
        app.consume(Recorder(), 1)
        ask = partial(app.orchestrator.result, QUEUE, job_id)
        is_gone = bench.failure_of(ask) is not None
        kept_s = bench.harness.now() - began
        demand("RES-1", not is_gone or kept_s >= ttl_s, f"it was gone after {kept_s:.3f} s, not {ttl_s:g} s")
        bench.harness.advance(ttl_s + 0.5)
        assert isinstance(bench.failure_of(ask), ResultNotReady)


@check("RES-2", needs="results")
def a_result_is_stored_with_the_ack(bench: Bench) -> None:
    """There is no result before the ack, and one right after it; a stale ack stores none."""
    harness = bench.harness
    with bench.rig() as rig:
        rig.publish("job")
        slow = rig.consumer(lease_s=harness.lease_s)
        stale = rig.receive_one(slow)
        assert rig.backend.result(rig.queue, "job") is None
        harness.crash(slow)
        harness.advance(harness.redelivery_s(harness.lease_s))
        consumer = rig.consumer()
        held = rig.receive_one(consumer)
        if slow.lease_s is not None:
            assert rig.settle(slow, Ack(stale.receipt, b'"stale"')) is SettleOutcome.LOST
        demand("RES-2", rig.backend.result(rig.queue, "job") is None, "a stale ack stored its result")
        assert rig.settle(consumer, Ack(held.receipt, b'"mine"')) is SettleOutcome.OK
        found = rig.backend.result(rig.queue, "job")
        demand("RES-2", found == JobResult(ResultStatus.DONE, b'"mine"'), f"the result is {found}")


@check("RES-2", needs="results")
def a_failure_is_stored_with_the_death(bench: Bench) -> None:
    """The error of a dead job is known as soon as it is dead, and not before."""
    with bench.rig() as rig:
        rig.publish("job")
        consumer = rig.consumer()
        held = rig.receive_one(consumer)
        assert rig.backend.result(rig.queue, "job") is None
        assert rig.settle(consumer, Dead(held.receipt, "rejected", "no good")) is SettleOutcome.OK
        found = rig.backend.result(rig.queue, "job")
        demand("RES-2", found == JobResult(ResultStatus.FAILED, None, "no good"), f"the result is {found}")


@refusal("results")
def a_question_for_a_result_is_refused(bench: Bench) -> None:
    """Where no results are kept, asking for one raises UnsupportedCapability; a handler may return one."""
    with app_on(bench) as app:
        job_id = app.publish(Numbers())
        app.consume(Recorder(), 1)
        assert app.orchestrator.counts(QUEUE).dead == 0
        try:
            app.orchestrator.result(QUEUE, job_id)
        except UnsupportedCapability:
            return
        raise AssertionError("asking for a result was not refused")
