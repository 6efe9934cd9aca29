"""Results: validated, kept with the ack, read back typed, and waited for."""

import threading
from typing import Any

import pytest

from mindtrace.jobs import JobSchema, LocalClient, Orchestrator, Reject
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.domain.errors import JobFailed, ResultNotReady


@pytest.mark.parametrize("as_dict", [True, False])
def test_a_result_is_read_back_as_the_output_model(
    orchestrator: Orchestrator, make_consumer: Any, schema: Any, as_dict: bool
) -> None:
    """Whether the handler returned a dict or an instance (RES-1)."""
    job_id = orchestrator.publish("points", {"x": 1.5, "y": 2})

    def add(job: Any) -> Any:
        total = job.payload.x + job.payload.y
        return {"total": total} if as_dict else schema.output(total=total)

    make_consumer(add).consume(1)

    assert orchestrator.result("points", job_id) == schema.output(total=3.5)


def test_no_result_is_none_and_not_an_error(orchestrator: Orchestrator, make_consumer: Any) -> None:
    """The job is known to have ended."""
    job_id = orchestrator.publish("points", {})
    make_consumer().consume(1)

    assert orchestrator.result("points", job_id) is None


def test_a_failed_job_answers_with_its_error(orchestrator: Orchestrator, make_consumer: Any) -> None:
    """Whoever waits is told why, not left waiting (RES-1)."""
    job_id = orchestrator.publish("points", {})

    def refuse(job: Any) -> None:
        raise Reject("no such thing")

    make_consumer(refuse).consume(1)

    with pytest.raises(JobFailed, match="no such thing"):
        orchestrator.result("points", job_id, timeout_s=60)


@pytest.mark.parametrize("known", [True, False])
def test_a_result_that_is_not_there_is_not_ready(orchestrator: Orchestrator, known: bool) -> None:
    """Not ended, or never heard of: both say how long was waited (RES-1)."""
    job_id = orchestrator.publish("points", {}) if known else "unknown"

    with pytest.raises(ResultNotReady, match=f"job {job_id}: no result within 0.01 s"):
        orchestrator.result("points", job_id, timeout_s=0.01)


def test_waiting_ends_with_the_job(
    client: LocalClient, orchestrator: Orchestrator, make_consumer: Any, background: Any, eventually: Any
) -> None:
    """The one who waits is woken by the ack, however long the timeout (RES-1)."""
    job_id = orchestrator.publish("points", {})
    waiting = background(orchestrator.result, "points", job_id, timeout_s=3600)
    eventually(lambda: client._store("points")._result_waiters)

    make_consumer(lambda job: {"total": 7}).consume(1)

    assert waiting.result().total == 7


def test_a_result_is_stored_with_the_ack_and_not_before(
    orchestrator: Orchestrator, make_consumer: Any, background: Any
) -> None:
    """While its handler runs, a job has no result (RES-2)."""
    running, finish = threading.Event(), threading.Event()

    def wait(job: Any) -> dict[str, float]:
        running.set()
        finish.wait()
        return {"total": 1}

    job_id = orchestrator.publish("points", {})
    consuming = background(make_consumer(wait).consume, 1)
    running.wait()
    with pytest.raises(ResultNotReady):
        orchestrator.result("points", job_id)

    finish.set()
    consuming.result()
    assert orchestrator.result("points", job_id).total == 1


def test_a_result_is_kept_for_its_time(clock: ManualClock, far: Orchestrator, make_consumer: Any) -> None:
    """An hour by default, by the broker's clock (RES-1)."""
    job_id = far.publish("points", {})
    make_consumer(lambda job: {"total": 1}, to=far).consume(1)

    clock.advance(3599)
    assert far.result("points", job_id).total == 1
    clock.advance(1)
    with pytest.raises(ResultNotReady):
        far.result("points", job_id)


def test_a_schema_says_how_long(
    clock: ManualClock, far: Orchestrator, make_consumer: Any, schema: Any
) -> None:
    """``result_ttl_s`` is the schema's (RES-1)."""
    far.register(JobSchema("points", schema.input, schema.output, result_ttl_s=5))
    job_id = far.publish("points", {})
    make_consumer(lambda job: {"total": 1}, to=far).consume(1)

    clock.advance(5)
    with pytest.raises(ResultNotReady):
        far.result("points", job_id)


def test_a_result_that_does_not_fit_any_more_is_refused(
    client: LocalClient, orchestrator: Orchestrator, make_consumer: Any, schema: Any
) -> None:
    """A reader of another release learns which field it misses (RES-1)."""
    job_id = orchestrator.publish("points", {})
    make_consumer(lambda job: {"total": 1}).consume(1)
    reader = Orchestrator(client)

    class Renamed(schema.output):
        sum: int

    reader.register(JobSchema("points", schema.input, Renamed))
    with pytest.raises(ValueError, match=r"result of job .*: doesn't fit Renamed \(sum: Field required\)"):
        reader.result("points", job_id)
