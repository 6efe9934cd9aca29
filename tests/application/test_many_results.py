"""The results of many jobs: in order or as they come, of any queues, in few requests."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from time import monotonic
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    Consumer,
    Job,
    JobHandle,
    JobInput,
    JobOutput,
    JobSchema,
    LocalClient,
    Orchestrator,
    Queue,
    Reject,
    RetryPolicy,
    Unique,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.api import many_results
from mindtrace.jobs.errors import (
    BackendUnavailable,
    InvalidInput,
    InvalidPayload,
    JobCancelled,
    JobExpired,
    JobFailed,
    JobNotFound,
    JobReplaced,
    JobsError,
    QueueNotFound,
    ResultExpired,
    ResultNotReady,
    UnsupportedCapability,
)
from mindtrace.jobs.ports import EndedJobs, JobResult, JobStatus, OrchestratorBackend


class Number(JobInput):
    n: int = 0


class Square(JobOutput):
    square: int


class Text(JobOutput):
    text: str


SQUARES = JobSchema("squares", Number, Square)
TEXTS = JobSchema("texts", Number, Text)
REPLACING = JobSchema("replacing", Number, Square, unique=Unique(replace=True))


class Squarer(Consumer[Number, Square]):
    schema = SQUARES
    retry = RetryPolicy(max_attempts=1)

    def run(self, job: Job[Number]) -> Square | None:
        if job.payload.n < 0:
            raise Reject("negative")
        return Square(square=job.payload.n**2) if job.payload.n else None


class Writer(Consumer[Number, Text]):
    schema = TEXTS

    def run(self, job: Job[Number]) -> Text:
        return Text(text=str(job.payload.n))


class Replacing(Squarer):
    schema = REPLACING


class Counting(LocalClient):
    """Queues in memory, which count what is asked about results."""

    def __init__(self, **settings: Any) -> None:
        super().__init__(**settings)
        self.calls: Counter[str] = Counter()
        self.waiting = threading.Semaphore(0)
        """Released when somebody has begun to wait for jobs to end."""

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        self.calls["result"] += 1
        return super().result(queue, job_id, timeout_s=timeout_s)

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        self.calls["results"] += 1
        return super().results(queue, ids)

    def status(self, queue: str, job_id: str) -> JobStatus:
        self.calls["status"] += 1
        return super().status(queue, job_id)

    def ended_jobs(self, queue: str) -> Any:
        ended = super().ended_jobs(queue)
        self.waiting.release()
        return ended


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def client(clock: ManualClock) -> Iterator[Counting]:
    with Counting(clock=clock) as client:
        yield client


@pytest.fixture
def jobs(client: Counting) -> Orchestrator:
    jobs = Orchestrator(client)
    for schema in (SQUARES, TEXTS, REPLACING):
        jobs.register(schema)
    return jobs


def consume(jobs: Orchestrator, kind: type[Consumer[Any, Any]] = Squarer, count: int | None = None) -> None:
    """Run so many jobs, or all that are ready."""
    with kind() as consumer:
        consumer.connect(jobs, poll_timeout_s=0.0)
        consumer.consume(count, block=False)


def threads() -> list[str]:
    return [each.name for each in threading.enumerate() if each.name.startswith("mindtrace-jobs-results")]


# -- handles --------------------------------------------------------------------------------------


def test_a_batch_returns_handles(jobs: Orchestrator) -> None:
    """Of each job; whoever publishes by a queue gets the same as by an orchestrator."""
    batch: list[Any] = [Number(n=3), {"n": 4}]
    publish: list[Any] = [
        lambda: jobs.publish_batch(SQUARES, batch),
        lambda: jobs.publish_batch("squares", batch),
        lambda: jobs.queue(SQUARES).publish_batch(batch),
    ]
    for each in publish:
        handles = each()
        assert [handle.status() for handle in handles] == [JobStatus.WAITING] * 2
        assert [handle.outcome.id for handle in handles] == [handle.id for handle in handles]
        assert [handle.queue.name for handle in handles] == ["squares"] * 2
        consume(jobs)
        assert [handle.result() for handle in handles] == [Square(square=9), Square(square=16)]
        assert repr(handles[0]) == f"PublishedJob('squares', {handles[0].id!r})"


def test_what_is_asked_of_a_rejected_job_raises_its_error(jobs: Orchestrator) -> None:
    """As often as it is asked: it was never published."""
    good, bad = jobs.publish_batch(SQUARES, [{"n": 3}, {"n": "three"}])
    for ask in (bad.result, bad.status, bad.cancel, bad.progress, lambda: jobs.results([good, bad])):
        with pytest.raises(InvalidPayload, match="Input should be a valid integer"):
            ask()
    consume(jobs)
    value, error = jobs.results([good, bad], return_exceptions=True)
    assert (value, type(error)) == (Square(square=9), InvalidPayload)
    assert list(jobs.as_completed([good, bad], timeout_s=0)) == [bad, good]


def test_the_handle_of_a_duplicate_is_that_of_the_job_in_its_place(jobs: Orchestrator) -> None:
    unique = JobSchema("once", Number, Square, unique=Unique())
    jobs.register(unique)
    first, second = jobs.publish_batch(unique, [{"n": 3}, {"n": 3}])
    assert (second.id, second.outcome.standing) == (first.id, first.id)
    assert second.outcome.id != first.id


def test_a_queue_whose_schema_is_learnt_later_keeps_its_handles(client: Counting) -> None:
    """They were made when it was only known by name."""
    client.declare(Queue("squares"))
    jobs = Orchestrator(client)
    jobs.attach("squares")
    (handle,) = jobs.publish_batch("squares", [{"n": 3}])
    jobs.register(SQUARES)
    consume(jobs)
    assert handle.result().square == 9
    assert [result.square for result in jobs.results([handle])] == [9]


# -- in order -------------------------------------------------------------------------------------


def test_results_are_in_the_order_of_the_handles(jobs: Orchestrator) -> None:
    """Whatever queues and types they are of, and however often a handle is given."""
    squares = jobs.publish_batch(SQUARES, [{"n": n} for n in (1, 0, 2)])
    (text,) = jobs.publish_batch(TEXTS, [{"n": 7}])
    by_id = jobs.queue(SQUARES).handle(squares[2].id)
    consume(jobs)
    consume(jobs, Writer)
    given: list[JobHandle[Any]] = [squares[2], text, squares[0], squares[1], by_id]
    four, one = Square(square=4), Square(square=1)
    assert jobs.results(given) == [four, Text(text="7"), one, None, four]
    assert jobs.results(iter(given), timeout_s=LIMIT_S) == [four, Text(text="7"), one, None, four]
    assert jobs.results([]) == []


def test_results_that_are_there_are_asked_for_in_one_request_a_queue(
    jobs: Orchestrator, client: Counting
) -> None:
    count = 10_000
    handles = jobs.publish_batch(SQUARES, [{"n": 2}] * count)
    texts = jobs.publish_batch(TEXTS, [{"n": 2}])
    consume(jobs)
    consume(jobs, Writer)
    client.calls.clear()
    results: list[Any] = jobs.results([*handles, *texts], timeout_s=LIMIT_S)
    assert results == [Square(square=4)] * count + [Text(text="2")]
    assert client.calls == {"results": 2}


def test_ten_thousand_jobs_are_waited_for_in_few_requests(
    jobs: Orchestrator, client: Counting, background: Any
) -> None:
    """However one by one they end: there is a time between two requests."""
    count = 10_000
    handles = jobs.publish_batch(SQUARES, [{"n": n} for n in range(1, count + 1)])
    client.calls.clear()
    began_s = monotonic()
    waiting = background(jobs.results, handles, timeout_s=LIMIT_S)
    client.waiting.acquire()
    consume(jobs)
    assert [result.square for result in waiting.result()] == [n**2 for n in range(1, count + 1)]
    took_s = monotonic() - began_s
    assert client.calls.keys() == {"results"}
    assert client.calls["results"] <= 3 + took_s / many_results._PAUSE_S


def test_each_end_of_a_job_is_told_as_its_own_call_tells_it(jobs: Orchestrator, clock: ManualClock) -> None:
    """With the same error, in place of the value."""
    queue = jobs.queue(SQUARES)
    done, nothing, dead, cancelled = queue.publish_batch([{"n": 2}, {}, {"n": -1}, {"n": 5}])
    cancelled.cancel()
    expired = queue.publish({"n": 6}, expires_s=1)
    (replaced,) = jobs.publish_batch(REPLACING, [{"n": 1}])
    jobs.publish(REPLACING, {"n": 1})
    clock.advance(2)
    consume(jobs)
    consume(jobs, Replacing)
    waiting = queue.publish({"n": 3})
    old = queue.handle("019a0000000070008000000000000000")
    unknown = queue.handle("never-published")
    handles: list[JobHandle[Any]] = [done, nothing, dead, cancelled, expired, replaced, waiting, old, unknown]

    def own(handle: JobHandle[Any]) -> Any:
        try:
            return handle.result()
        except JobsError as error:
            return error

    expected = [own(handle) for handle in handles]
    together = jobs.results(handles, return_exceptions=True)
    assert [(type(each), str(each)) for each in together] == [(type(each), str(each)) for each in expected]
    kinds = [JobFailed, JobCancelled, JobExpired, JobReplaced, ResultNotReady, ResultExpired, JobNotFound]
    assert [type(each) for each in together[2:]] == kinds
    for handle, error in zip(handles, expected, strict=True):
        if isinstance(error, Exception):
            with pytest.raises(type(error)) as raised:
                jobs.results([done, handle])
            assert str(raised.value) == str(error)


def test_the_first_error_is_raised_and_nobody_waits_on(jobs: Orchestrator, background: Any) -> None:
    dead, _ = handles = jobs.publish_batch(SQUARES, [{"n": -1}, {"n": 2}])
    waiting = background(jobs.results, handles, timeout_s=3600)
    consume(jobs, count=1)
    with pytest.raises(JobFailed, match=f"job {dead.id} "):
        waiting.result(LIMIT_S)


def test_only_some_jobs_without_a_result_are_asked_for_by_themselves(
    jobs: Orchestrator, client: Counting
) -> None:
    """The others have an error that says less."""
    queue = jobs.queue(SQUARES)
    handles = [queue.handle(f"never-{n}") for n in range(150)]
    errors = jobs.results(handles, return_exceptions=True)
    assert [type(error) for error in errors] == [JobNotFound] * 100 + [ResultNotReady] * 50
    assert client.calls == {"results": 1, "status": 100}
    with pytest.raises(JobNotFound, match="never-0"):
        jobs.results(handles)
    assert client.calls == {"results": 2, "status": 101}


def test_what_is_no_list_of_this_orchestrators_handles_is_refused(
    jobs: Orchestrator, client: Counting
) -> None:
    (handle,) = jobs.publish_batch(SQUARES, [{"n": 2}])
    other = Orchestrator(client)
    other.register(SQUARES)
    wrong: list[Any] = [handle, handle.id, [handle.id], None, [None]]
    for given in wrong:
        with pytest.raises(InvalidInput, match=r"pass a list of handles, as publish_batch returns it"):
            jobs.results(given)
        with pytest.raises(InvalidInput, match="pass a list of handles"):
            jobs.as_completed(given, timeout_s=1)
    with pytest.raises(InvalidInput, match=r"PublishedJob\('squares', .*\) is of another orchestrator"):
        other.results([handle])
    with pytest.raises(InvalidInput, match="timeout_s"):
        jobs.results([handle], timeout_s=-1)


# -- as they come ---------------------------------------------------------------------------------


def test_handles_come_as_their_jobs_end(jobs: Orchestrator, client: Counting) -> None:
    """Of any queue; each knows its result without asking."""
    first, second, third = jobs.publish_batch(SQUARES, [{"n": -1}, {"n": 2}, {"n": 3}])
    (text,) = jobs.publish_batch(TEXTS, [{"n": 7}])
    given: list[JobHandle[Any]] = [third, first, second, text]
    consume(jobs, Writer)
    ended = jobs.as_completed(given, timeout_s=LIMIT_S)
    assert next(ended) is text
    for handle in (first, second, third):
        consume(jobs, count=1)
        assert next(ended) is handle
    assert list(ended) == []
    client.calls.clear()
    with pytest.raises(JobFailed, match="negative"):
        first.result()
    assert [second.result(), third.result(), text.result()] == [
        Square(square=4),
        Square(square=9),
        Text(text="7"),
    ]
    assert jobs.results([text, third]) == [Text(text="7"), Square(square=9)]
    assert list(jobs.as_completed([text], timeout_s=0)) == [text]
    assert client.calls == {}


def test_one_that_does_not_end_in_time_is_an_error(jobs: Orchestrator) -> None:
    """After those that have ended."""
    done, waiting = jobs.publish_batch(SQUARES, [{"n": 2}, {"n": 3}])
    consume(jobs, count=1)
    for timeout_s in (0, 0.01):
        ended = jobs.as_completed([waiting, done], timeout_s=timeout_s)
        assert next(ended) is done
        with pytest.raises(ResultNotReady, match=f"job {waiting.id}: no result within {timeout_s:g} s"):
            next(ended)
    with pytest.raises(JobNotFound):
        list(jobs.as_completed([jobs.queue(SQUARES).handle("never")], timeout_s=0))


def test_what_ends_while_the_caller_is_busy_is_not_late(jobs: Orchestrator) -> None:
    """Though the time is over then."""
    first, second = jobs.publish_batch(SQUARES, [{"n": 2}, {"n": 3}])
    consume(jobs, count=1)
    ended = jobs.as_completed([first, second], timeout_s=0.01)
    assert next(ended) is first
    consume(jobs)
    over_s = monotonic() + 0.02
    while monotonic() < over_s:
        pass
    assert list(ended) == [second]


def test_who_leaves_early_leaves_no_thread(jobs: Orchestrator, eventually: Any) -> None:
    (square,) = jobs.publish_batch(SQUARES, [{"n": 2}])
    texts = jobs.publish_batch(TEXTS, [{"n": 7}, {"n": 8}])
    given: list[JobHandle[Any]] = [square, *texts]
    ended = jobs.as_completed(given, timeout_s=3600)
    with Writer() as writer:
        writer.connect(jobs)
        writer.consume(1)
        assert next(ended) is texts[0]
        writer.consume(1)
        assert next(ended) is texts[1]
        eventually(lambda: threads() == ["mindtrace-jobs-results-squares"])
        ended.close()  # type: ignore[attr-defined]
    eventually(lambda: not threads())


def test_an_error_of_one_queue_ends_the_wait_for_all(
    jobs: Orchestrator, client: Counting, background: Any, eventually: Any
) -> None:
    (square,) = jobs.publish_batch(SQUARES, [{"n": 2}])
    (text,) = jobs.publish_batch(TEXTS, [{"n": 7}])
    given: list[JobHandle[Any]] = [square, text]
    waiting = background(jobs.results, given, timeout_s=3600, return_exceptions=True)
    for _ in given:
        client.waiting.acquire()
    client.delete("texts")
    with pytest.raises(QueueNotFound):
        waiting.result(LIMIT_S)
    eventually(lambda: not threads())


# -- backends that can't do all of it -------------------------------------------------------------


class Plain(LocalClient):
    """A backend with nothing but what every backend has, which loses the connection when it is told to."""

    error: Exception | None = None

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        if self.error is not None:
            raise self.error
        return super().result(queue, job_id, timeout_s=timeout_s)

    def status(self, queue: str, job_id: str) -> JobStatus:
        raise UnsupportedCapability

    results = OrchestratorBackend.results

    def ended_jobs(self, queue: str) -> EndedJobs:
        return OrchestratorBackend.ended_jobs(self, queue)


def test_a_backend_that_cannot_tell_which_jobs_ended_is_asked(background: Any) -> None:
    with Plain() as client:
        jobs = Orchestrator(client)
        handles = jobs.publish_batch(SQUARES, [{"n": n} for n in range(1, 51)])
        waiting = background(jobs.results, handles, timeout_s=LIMIT_S)
        consume(jobs)
        assert [result.square for result in waiting.result()] == [n**2 for n in range(1, 51)]
        (late,) = jobs.publish_batch(SQUARES, [{}])
        with pytest.raises(ResultNotReady, match="this backend can't tell which"):
            jobs.results([late], timeout_s=0.01)


@pytest.mark.parametrize(
    "error", [BackendUnavailable("away"), QueueNotFound("gone"), UnsupportedCapability("none")], ids=repr
)
def test_an_error_of_the_backend_is_no_jobs_error(error: Exception) -> None:
    """It is raised, though errors of jobs are returned."""
    with Plain() as client:
        jobs = Orchestrator(client)
        handles = jobs.publish_batch(SQUARES, [{"n": 2}])
        client.error = error
        with pytest.raises(type(error)) as raised:
            jobs.results(handles, timeout_s=LIMIT_S, return_exceptions=True)
        assert raised.value is error
