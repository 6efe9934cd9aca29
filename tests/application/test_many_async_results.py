"""The results of many jobs from coroutines: as without ``await``, in few threads and requests."""

import asyncio
import gc
import logging
from collections import Counter
from collections.abc import Callable, Coroutine, Iterator, Sequence
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncJobHandle,
    AsyncOrchestrator,
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    JobStatus,
    LocalClient,
    Orchestrator,
    PublishStatus,
    Reject,
    RetryPolicy,
)
from mindtrace.jobs.errors import (
    BackendUnavailable,
    Closed,
    InvalidInput,
    InvalidPayload,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobsError,
    ResultNotReady,
)
from mindtrace.jobs.ports import JobResult


class Number(JobInput):
    n: int = 0


class Square(JobOutput):
    square: int


class Text(JobOutput):
    text: str


SQUARES = JobSchema("squares", Number, Square)
TEXTS = JobSchema("texts", Number, Text)


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


class Counting(LocalClient):
    """Queues in memory, which count what is asked about results, and fail when they are told to."""

    def __init__(self) -> None:
        super().__init__()
        self.calls: Counter[str] = Counter()
        self.error: Exception | None = None

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        self.calls["result"] += 1
        return super().result(queue, job_id, timeout_s=timeout_s)

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        self.calls["results"] += 1
        if self.error is not None:
            raise self.error
        return super().results(queue, ids)

    def status(self, queue: str, job_id: str) -> JobStatus:
        self.calls["status"] += 1
        return super().status(queue, job_id)


@pytest.fixture
def client() -> Iterator[Counting]:
    with Counting() as client:
        yield client


def run(main: Callable[[AsyncOrchestrator], Coroutine[Any, Any, None]], client: LocalClient) -> None:
    """Run a coroutine with an orchestrator on which both schemas are registered."""

    async def limited() -> None:
        async with asyncio.timeout(LIMIT_S), AsyncOrchestrator(client) as jobs:
            await jobs.register(SQUARES)
            await jobs.register(TEXTS)
            await main(jobs)

    asyncio.run(limited())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


async def consume(
    client: LocalClient, kind: type[Consumer[Any, Any]] = Squarer, count: int | None = None
) -> None:
    def consume_all() -> None:
        with kind() as consumer:
            consumer.connect(Orchestrator(client), poll_timeout_s=0.0)
            consumer.consume(count, block=False)

    await asyncio.to_thread(consume_all)


def waits(jobs: AsyncOrchestrator) -> int:
    """How many jobs are waited for."""
    return sum(len(awaited._waits) for awaited in jobs._awaited.values())


def test_results_are_in_the_order_of_the_handles(client: Counting) -> None:
    """Of any queues, whether they are there or yet to come."""

    async def main(jobs: AsyncOrchestrator) -> None:
        squares = await jobs.publish_batch(SQUARES, [{"n": 1}, {"n": 0}, {"n": 2}])
        (text,) = await (await jobs.queue(TEXTS)).publish_batch([{"n": 7}])
        by_id = (await jobs.queue(SQUARES)).handle(squares[2].id)
        given: list[AsyncJobHandle[Any]] = [squares[2], text, squares[0], squares[1], by_id]
        waiting = asyncio.create_task(jobs.results(given, timeout_s=LIMIT_S))
        await until(lambda: waits(jobs) == 4)
        await consume(client)
        await consume(client, Writer)
        four = Square(square=4)
        expected = [four, Text(text="7"), Square(square=1), None, four]
        assert await waiting == await jobs.results(iter(given)) == expected
        assert await jobs.results([]) == []
        assert repr(text) == f"AsyncPublishedJob('texts', {text.id!r})"

    run(main, client)


def test_ten_thousand_jobs_are_waited_for_together(client: Counting) -> None:
    """Those that have ended are asked for in one request."""
    count = 10_000

    async def main(jobs: AsyncOrchestrator) -> None:
        handles = await jobs.publish_batch("squares", [{"n": n} for n in range(1, count + 1)])
        waiting = asyncio.create_task(jobs.results(handles, timeout_s=LIMIT_S))
        await until(lambda: waits(jobs) == count)
        await consume(client)
        expected = [n**2 for n in range(1, count + 1)]
        assert [result.square for result in await waiting] == expected
        assert client.calls.keys() == {"results"}
        client.calls.clear()
        assert [result.square for result in await jobs.results(handles)] == expected
        assert client.calls == {"results": 1}

    run(main, client)


def test_handles_come_as_their_jobs_end(client: Counting) -> None:
    """Of any queue; each knows its result without asking."""

    async def main(jobs: AsyncOrchestrator) -> None:
        first, second = await jobs.publish_batch(SQUARES, [{"n": -1}, {"n": 2}])
        (text,) = await jobs.publish_batch(TEXTS, [{"n": 7}])
        given: list[AsyncJobHandle[Any]] = [second, first, text]
        ended = jobs.as_completed(given, timeout_s=LIMIT_S)
        await consume(client, Writer)
        assert await anext(ended) is text
        for handle in (first, second):
            await consume(client, count=1)
            assert await anext(ended) is handle
        assert [handle async for handle in ended] == []
        client.calls.clear()
        with pytest.raises(JobFailed, match="negative"):
            await first.result()
        assert (await second.result(), await text.result()) == (Square(square=4), Text(text="7"))
        assert [handle async for handle in jobs.as_completed([text], timeout_s=0)] == [text]
        assert client.calls == {}

    run(main, client)


def test_errors_are_those_of_single_jobs(client: Counting) -> None:
    """Returned or raised; they come in time, or say what became of the job."""

    async def main(jobs: AsyncOrchestrator) -> None:
        dead, cancelled, waiting, rejected = handles = await jobs.publish_batch(
            SQUARES, [{"n": -1}, {"n": 1}, {"n": 2}, {"n": "x"}]
        )
        assert rejected.outcome.status is PublishStatus.REJECTED
        await cancelled.cancel()
        await consume(client, count=1)
        unknown = (await jobs.queue(SQUARES)).handle("never")
        for timeout_s in (0.0, 0.01):
            together = await jobs.results([*handles, unknown], timeout_s=timeout_s, return_exceptions=True)
            kinds = [JobFailed, JobCancelled, ResultNotReady, InvalidPayload, JobNotFound]
            assert [type(each) for each in together] == kinds
            for handle, error in zip([dead, cancelled, waiting, rejected, unknown], together, strict=True):
                with pytest.raises(type(error)) as raised:
                    await handle.result(timeout_s=timeout_s)
                assert str(raised.value) == str(error)
                with pytest.raises(type(error)):
                    await jobs.results([handle], timeout_s=timeout_s)
        for ask in (rejected.status, rejected.cancel, rejected.progress):
            with pytest.raises(InvalidPayload):
                await ask()
        ended = jobs.as_completed([waiting, dead], timeout_s=0.01)
        assert await anext(ended) is dead
        with pytest.raises(ResultNotReady, match=f"job {waiting.id}: no result within 0.01 s"):
            await anext(ended)

    run(main, client)


def test_what_ends_while_the_caller_is_busy_is_not_late(client: Counting) -> None:
    """Though the time is over then."""

    async def main(jobs: AsyncOrchestrator) -> None:
        first, *rest = await jobs.publish_batch(SQUARES, [{"n": n} for n in range(200)])
        await consume(client, count=1)
        ended = jobs.as_completed([first, *rest], timeout_s=0.01)
        assert await anext(ended) is first
        await consume(client)
        await asyncio.sleep(0.02)
        client.calls.clear()
        assert [handle async for handle in ended] == rest
        assert client.calls["status"] == 0

    run(main, client)


def test_what_is_no_list_of_this_orchestrators_handles_is_refused(client: Counting) -> None:
    async def main(jobs: AsyncOrchestrator) -> None:
        (handle,) = await jobs.publish_batch(SQUARES, [{"n": 2}])
        sync = Orchestrator(client)
        wrong: list[Any] = [handle, handle.id, [handle.id], sync.publish_batch(SQUARES, [{"n": 2}])]
        for given in wrong:
            with pytest.raises(InvalidInput, match=r"pass a list of handles|is of another orchestrator"):
                await jobs.results(given)
            with pytest.raises(InvalidInput, match=r"pass a list of handles|is of another orchestrator"):
                await anext(jobs.as_completed(given, timeout_s=1))
        with pytest.raises(InvalidInput, match="timeout_s"):
            await jobs.results([handle], timeout_s=-1)

    run(main, client)


def test_who_leaves_early_leaves_nothing_behind(client: Counting) -> None:
    """By an end of the loop, a timeout of its own, or an error of the first job."""

    async def main(jobs: AsyncOrchestrator) -> None:
        handles = await jobs.publish_batch(SQUARES, [{"n": -1}, *({"n": n} for n in range(100))])
        ended = jobs.as_completed(handles, timeout_s=3600)
        coming = asyncio.create_task(anext(ended))  # type: ignore[arg-type]
        results = asyncio.create_task(jobs.results(handles, timeout_s=3600))
        cancelled = asyncio.create_task(jobs.results(handles[1:], timeout_s=3600))
        await until(lambda: waits(jobs) == len(handles))
        cancelled.cancel()
        await consume(client, count=1)
        assert await coming is handles[0]
        with pytest.raises(JobFailed):
            await results
        with pytest.raises(asyncio.CancelledError):
            await cancelled
        await ended.aclose()  # type: ignore[attr-defined]
        assert waits(jobs) == 0
        await until(lambda: not jobs._awaited["squares"].is_watched)

    run(main, client)


@pytest.mark.parametrize("how", ["outage", "close"])
def test_an_outage_or_a_close_ends_the_wait(
    client: Counting, how: str, caplog: pytest.LogCaptureFixture
) -> None:
    """With one error, and asyncio logs none of the others."""

    async def main(jobs: AsyncOrchestrator) -> None:
        handles = await jobs.publish_batch(SQUARES, [{"n": n} for n in range(100)])
        waiting = asyncio.create_task(jobs.results(handles, timeout_s=3600, return_exceptions=True))
        await until(lambda: waits(jobs) == 100)
        if how == "outage":
            client.error = BackendUnavailable("away")
            await consume(client, count=1)
        else:
            await jobs.close()
        expected: type[JobsError] = BackendUnavailable if how == "outage" else Closed
        with pytest.raises(expected):
            await waiting
        del waiting
        gc.collect()

    run(main, client)
    assert [record for record in caplog.records if record.levelno >= logging.ERROR] == []
