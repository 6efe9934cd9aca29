"""Results: validated, kept with the ack, read back typed, and waited for."""

import pickle
import threading
import time
from typing import Any

import pytest

from mindtrace.jobs import JobSchema, JobStatus, LocalClient, Orchestrator, Queue, Reject
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.domain.errors import (
    JobFailed,
    JobNotFound,
    ResultExpired,
    ResultNotReady,
    UnsupportedCapability,
)
from mindtrace.jobs.domain.job import new_job_id


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

    with pytest.raises(JobFailed, match="no such thing") as failed:
        orchestrator.result("points", job_id, timeout_s=60)
    assert 'raise Reject("no such thing")' in failed.value.traceback
    assert failed.value.error == "no such thing"


def test_a_failed_job_is_named(orchestrator: Orchestrator, make_consumer: Any) -> None:
    """Who waits for many jobs sees which one failed; so does who gets the error from another process."""
    job_id = orchestrator.publish("points", {})

    def refuse(job: Any) -> None:
        raise Reject("no such thing")

    make_consumer(refuse).consume(1)

    with pytest.raises(JobFailed) as failed:
        orchestrator.result("points", job_id)

    for error in (failed.value, pickle.loads(pickle.dumps(failed.value))):
        assert str(error) == f"job {job_id} of type 'points' failed: no such thing"
        assert (error.job_id, error.job_type, error.error) == (job_id, "points", "no such thing")
        assert error.traceback == failed.value.traceback


def test_a_job_that_has_not_ended_is_not_ready(orchestrator: Orchestrator, make_consumer: Any) -> None:
    """It says how long was waited, and whether the job waits or runs (RES-1)."""
    seen: list[str] = []

    def ask(job: Any) -> None:
        with pytest.raises(ResultNotReady) as asked:
            orchestrator.result("points", job.id)
        seen.append(str(asked.value))

    job_id = orchestrator.publish("points", {})
    with pytest.raises(ResultNotReady, match=f"job {job_id}: no result within 0.01 s: it is waiting"):
        orchestrator.result("points", job_id, timeout_s=0.01)
    make_consumer(ask).consume(1)

    assert seen == [f"job {job_id}: no result within 0 s: it is running; to wait for it, pass timeout_s"]


def test_a_job_that_is_not_known_is_not_found(orchestrator: Orchestrator) -> None:
    with pytest.raises(JobNotFound, match="job unknown: not known in queue 'points'"):
        orchestrator.result("points", "unknown")


def test_an_id_tells_whether_the_result_can_have_expired(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    young = new_job_id()
    with pytest.raises(JobNotFound, match=r"published here, or was purged or discarded$") as asked:
        orchestrator.result("points", young)
    assert not isinstance(asked.value, ResultExpired)

    monkeypatch.setattr(time, "time_ns", lambda: 1_780_000_000_000_000_000)
    old = new_job_id()
    monkeypatch.undo()
    made = "was made at 2026-05-28 20:26:40 UTC, and results are kept for 3600 s: its result has expired"
    with pytest.raises(ResultExpired, match=made):
        orchestrator.result("points", old)


def test_an_id_that_somebody_chose_tells_nothing(orchestrator: Orchestrator) -> None:
    for chosen in ("camera-7", "0" * 32, "f" * 32, new_job_id().upper()):
        with pytest.raises(JobNotFound, match="or its dead letter, has expired") as asked:
            orchestrator.result("points", chosen)
        assert not isinstance(asked.value, ResultExpired)


def test_without_a_schema_nobody_knows_how_long_results_are_kept(client: LocalClient) -> None:
    client.declare(Queue("bare"))
    with Orchestrator(client) as bare:
        bare.attach("bare")
        with pytest.raises(JobNotFound, match="or its dead letter, has expired"):
            bare.result("bare", new_job_id())


def test_a_backend_that_cannot_tell_says_so(
    orchestrator: Orchestrator, client: LocalClient, make_consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As RabbitMQ: a job that hasn't ended and one that isn't known look the same."""

    def refuse(queue: str, job_id: str) -> JobStatus:
        raise UnsupportedCapability

    monkeypatch.setattr(client, "status", refuse)
    job_id = orchestrator.publish("points", {})

    with pytest.raises(ResultNotReady, match="this backend can't tell which") as asked:
        orchestrator.result("points", job_id)
    assert not isinstance(asked.value, JobNotFound)
    assert orchestrator.status("points", job_id) is JobStatus.UNKNOWN
    make_consumer().consume(1)
    assert orchestrator.status("points", job_id) is JobStatus.DONE


def test_a_job_that_ends_while_it_is_looked_at_answers_with_its_result(
    orchestrator: Orchestrator, client: LocalClient, make_consumer: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the question for its result and the one for its status."""
    consumer, ask = make_consumer(lambda job: {"total": 7}), client.status

    def end(queue: str, job_id: str) -> JobStatus:
        consumer.consume(1)
        return ask(queue, job_id)

    monkeypatch.setattr(client, "status", end)

    assert orchestrator.result("points", orchestrator.publish("points", {})).total == 7


def test_the_status_of_a_job_follows_it(orchestrator: Orchestrator, schema: Any, make_consumer: Any) -> None:
    """By its handle, too. An expired result and an unknown job look the same."""
    queue = orchestrator.queue(schema)
    handle = queue.publish({})
    seen = [handle.status()]

    def fail_first(job: Any) -> None:
        seen.append(handle.status())
        if job.attempt == 1:
            raise ValueError

    make_consumer(fail_first).consume(2)
    seen.append(handle.status())

    assert seen == [JobStatus.WAITING, JobStatus.RUNNING, JobStatus.RUNNING, JobStatus.DONE]
    failed = queue.publish({})
    make_consumer(lambda job: 1 / 0).consume_until_empty()
    assert failed.status() is JobStatus.FAILED
    assert queue.handle("nobody").status() is JobStatus.UNKNOWN


def test_waiting_ends_with_the_job(
    client: LocalClient, orchestrator: Orchestrator, make_consumer: Any, background: Any, eventually: Any
) -> None:
    """The one who waits is woken by the ack, however long the timeout (RES-1)."""
    job_id = orchestrator.publish("points", {})
    waiting = background(orchestrator.result, "points", job_id, timeout_s=3600)
    eventually(lambda: client._queue("points")._ends.waits)

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
