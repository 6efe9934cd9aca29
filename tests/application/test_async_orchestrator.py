"""The orchestrator for coroutines: the same answers and errors, nothing on the loop, nothing left behind."""

import asyncio
import contextvars
import math
import os
import signal
import threading
from collections.abc import Callable, Coroutine, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncOrchestrator,
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    JobStatus,
    LocalClient,
    Observer,
    Orchestrator,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    Queue,
    Reject,
    RetryPolicy,
    job_from_schema,
)
from mindtrace.jobs.application.api_async import publisher
from mindtrace.jobs.application.async_calls import threads as async_threads
from mindtrace.jobs.application.async_calls.threads import start_without_waiting
from mindtrace.jobs.errors import (
    BackendUnavailable,
    Closed,
    InvalidInput,
    InvalidPayload,
    JobFailed,
    JobNotFound,
    PublishUnknown,
    QueueNotFound,
    ResultNotReady,
    SchemaConflict,
    UnknownBackend,
    UnsupportedCapability,
)
from mindtrace.jobs.ports import JobResult, Message

OURS = "mindtrace-jobs-"
TOO_MUCH = 1_000_000


class Pair(JobInput):
    x: int
    y: int = 0


class Sum(JobOutput):
    total: int


SCHEMA = JobSchema("sums", Pair, Sum)


class Adder(Consumer[Pair, Sum]):
    schema = SCHEMA
    retry = RetryPolicy(max_attempts=1)

    def run(self, job: Job[Pair]) -> Sum:
        if job.payload.x == TOO_MUCH:
            raise OverflowError("too much")
        if job.payload.x < 0:
            raise Reject("negative")
        return Sum(total=job.payload.x + job.payload.y)


class Slow(LocalClient):
    """Queues in memory; while ``gate`` isn't set, each publish waits for it."""

    def __init__(self) -> None:
        super().__init__()
        self.gate = threading.Event()
        self.gate.set()
        self.batches: list[int] = []
        self.threads: set[str] = set()
        self.answer: Callable[[Sequence[Message]], list[PublishOutcome]] | None = None

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        self.threads.add(threading.current_thread().name)
        self.batches.append(len(messages))
        assert self.gate.wait(LIMIT_S)
        return super().publish(queue, messages) if self.answer is None else self.answer(messages)


@pytest.fixture
def slow() -> Iterator[Slow]:
    with Slow() as slow:
        yield slow
        slow.gate.set()


def run(main: Coroutine[Any, Any, Any]) -> Any:
    async def limited() -> Any:
        async with asyncio.timeout(LIMIT_S):
            return await main

    return asyncio.run(limited())


async def until(condition: Callable[[], object]) -> None:
    while not condition():
        await asyncio.sleep(0.001)


def consume_all(orchestrator: Orchestrator, queue: str | None = None) -> None:
    with Adder(queue=queue) as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.0)
        consumer.consume_until_empty()


def our_threads() -> list[str]:
    """The names of our threads that these tests may have started.

    That of pauses ends half a second after the last consumer. Those of signals and of time limits last
    as long as the process.
    """
    names = [thread.name for thread in threading.enumerate()]
    others = ("mindtrace-jobs-pauses", "mindtrace-jobs-signals", "mindtrace-jobs-deadlines")
    return [name for name in names if name.startswith(OURS) and name not in others]


# -- the same answers -----------------------------------------------------------------------------


def test_a_day_in_the_life_of_a_queue() -> None:
    """Each method answers as the one of the same name does."""
    client = LocalClient()
    sync = Orchestrator(client)

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            queue = await jobs.queue(SCHEMA)
            assert await jobs.register(SCHEMA) == queue.name == "sums"
            handle = await queue.publish(Pair(x=1, y=2))
            named = await queue.publish(await queue.job({"x": 3}, id="mine"))
            bad = await jobs.publish("sums", {"x": -1})
            assert (named.id, await queue.progress()) == ("mine", {})
            assert ((await jobs.counts("sums")).ready, await jobs.count_queue_messages(SCHEMA)) == (3, 3)
            assert [each.name for each in await jobs.queues()] == ["sums"]

            await asyncio.to_thread(consume_all, sync)
            assert await handle.result() == Sum(total=3)
            assert await jobs.result("sums", "mine", timeout_s=5) == Sum(total=3)
            with pytest.raises(JobFailed, match="negative"):
                await jobs.result(SCHEMA, bad)
            with pytest.raises(JobFailed, match="negative"):
                await jobs.result(SCHEMA, bad, timeout_s=5)
            assert [letter.id for letter in await queue.dead_letters(limit=5)] == [bad]
            assert (await queue.redrive([bad]), await jobs.discard("sums")) == (1, 0)
            received = await jobs.receive_message(SCHEMA)
            assert received is not None
            assert (received.id, await queue.receive()) == (bad, None)
            assert await handle.progress() is None
            handles = await queue.publish_batch([Pair(x=5), {"x": "no"}], delay_s=60)
            statuses = [each.outcome.status for each in handles]
            assert statuses == [PublishStatus.ACCEPTED, PublishStatus.REJECTED]
            assert (await queue.counts()).delayed == 1
            assert (await queue.clean(), await jobs.redrive("sums"), await queue.discard()) == (1, 0, 0)
            assert "sums" in repr(queue) + repr(handle)
            await queue.delete()
            with pytest.raises(QueueNotFound):
                await queue.counts()

    run(main())
    client.close()


def test_errors_are_the_same() -> None:
    """Typed, and raised where the call is awaited."""
    other = JobSchema("sums", Sum, Pair)

    async def main() -> None:
        async with AsyncOrchestrator("memory://") as jobs:
            await jobs.register(SCHEMA)
            wrong: list[tuple[type[Exception], Coroutine[Any, Any, Any]]] = [
                (QueueNotFound, jobs.publish("nowhere", {})),
                (InvalidPayload, jobs.publish("sums", {"x": "one"})),
                (InvalidInput, jobs.publish("sums", {"x": 1}, delay_s=-1)),
                (InvalidInput, jobs.publish_batch("sums", {"x": 1})),  # type: ignore[arg-type]
                (SchemaConflict, jobs.publish(other, Sum(total=1))),
                (SchemaConflict, jobs.queue(other)),
                (QueueNotFound, jobs.attach("nowhere")),
                (QueueNotFound, jobs.job("nowhere", {})),
                (QueueNotFound, jobs.result("nowhere", "id")),
                (ResultNotReady, jobs.result("sums", "unknown")),
                (ResultNotReady, jobs.result("sums", "unknown", timeout_s=0.01)),
                (InvalidInput, jobs.result("sums", "a name/", timeout_s=1)),
                (InvalidInput, jobs.result("sums", "id", timeout_s=-1)),
                (InvalidInput, jobs.dead_letters("sums", limit=-1)),
            ]
            for kind, call in wrong:
                with pytest.raises(kind):
                    await call
            await jobs.attach("sums")

    run(main())


def test_a_url_that_names_nothing_is_refused_when_it_is_opened() -> None:
    async def main() -> None:
        with pytest.raises(UnknownBackend, match="no adapter for nothing://"):
            async with AsyncOrchestrator("nothing://here"):
                pass
        with pytest.raises(UnknownBackend):
            await AsyncOrchestrator("nothing://here").counts("sums")

    run(main())


def test_it_opens_itself_where_nobody_enters_it() -> None:
    async def main() -> None:
        jobs = AsyncOrchestrator("memory://")
        await asyncio.gather(*(jobs.register(SCHEMA) for _ in range(4)))
        assert await jobs.publish("sums", {"x": 1})
        await jobs.close()

    run(main())


def test_one_schema_may_have_several_queues() -> None:
    """Of each, its own jobs, results and states; a handle asks the queue that it is of."""
    client = LocalClient()
    sync = Orchestrator(client)

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            assert await jobs.register(SCHEMA, queue="urgent") == "urgent"
            urgent = await jobs.queue(SCHEMA, queue="urgent")
            late = await jobs.queue(SCHEMA, queue="late")
            handle = await late.publish(Pair(x=1))
            job = await late.job(Pair(x=-2))
            failing = await late.publish(job)
            assert (late.name, late.schema, (await urgent.counts()).ready) == ("late", SCHEMA, 0)
            assert await handle.status() is JobStatus.WAITING
            assert await urgent.status(handle.id) is JobStatus.UNKNOWN

            await asyncio.to_thread(consume_all, sync, "late")
            assert await handle.result(timeout_s=5) == await late.result(handle.id) == Sum(total=1)
            assert [await handle.status(), await failing.status()] == [JobStatus.DONE, JobStatus.FAILED]
            with pytest.raises(JobNotFound):
                await urgent.result(handle.id)
            assert "late" in repr(late) + repr(handle)

    run(main())
    client.close()


def test_a_missing_result_is_explained_as_without_await() -> None:
    """By the same errors and words, whether the caller waited or not."""
    client = LocalClient()
    sync = Orchestrator(client)

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            await jobs.register(SCHEMA)
            dead = await jobs.publish("sums", {"x": TOO_MUCH})
            await asyncio.to_thread(consume_all, sync)
            waiting = await jobs.publish("sums", {"x": 1}, delay_s=3600)
            for id_, kind in (("unknown", JobNotFound), (waiting, ResultNotReady), (dead, JobFailed)):
                for timeout_s in (0.0, 0.01):
                    with pytest.raises(kind) as expected:
                        await asyncio.to_thread(sync.result, "sums", id_, timeout_s=timeout_s)
                    with pytest.raises(kind) as raised:
                        await jobs.result("sums", id_, timeout_s=timeout_s)
                    assert type(raised.value) is type(expected.value) is kind
                    assert str(raised.value) == str(expected.value)
                    if isinstance(raised.value, JobFailed):
                        assert raised.value.traceback == expected.value.traceback
                        assert "OverflowError" in str(raised.value.traceback)

    run(main())
    client.close()


def test_a_queue_that_could_not_be_declared_is_declared_in_a_thread() -> None:
    """By the first publish, as by the orchestrator's; the loop isn't blocked meanwhile."""

    class Away(LocalClient):
        def __init__(self) -> None:
            super().__init__()
            self.threads: list[str] = []

        def declare(self, queue: Queue) -> None:
            self.threads.append(threading.current_thread().name)
            if len(self.threads) < 3:
                raise BackendUnavailable("the broker is away")
            super().declare(queue)

    client = Away()

    async def main() -> None:
        async with AsyncOrchestrator(client) as jobs:
            with pytest.raises(BackendUnavailable):
                await jobs.register(SCHEMA)
            with pytest.raises(BackendUnavailable):
                await jobs.publish("sums", {"x": 1})
            assert type(await jobs.publish(SCHEMA, {"x": 1})) is str
            assert await jobs.count_queue_messages("sums") == 1

    run(main())
    assert len(client.threads) == 3
    assert all(name.startswith(OURS) for name in client.threads)
    client.close()


def test_without_a_backend_it_is_the_one_of_the_command(monkeypatch: pytest.MonkeyPatch) -> None:
    """As of the orchestrator."""
    monkeypatch.setenv("MINDTRACE_JOBS_BACKEND", "nothing://here")

    async def main() -> None:
        with pytest.raises(UnknownBackend, match="nothing://"):
            await AsyncOrchestrator().counts("sums")

    run(main())


# -- groups ---------------------------------------------------------------------------------------


def test_what_tasks_publish_meanwhile_is_the_next_batch(slow: Slow) -> None:
    """In the order of the calls, by one thread that isn't the loop's."""

    async def main() -> list[str]:
        async with AsyncOrchestrator(slow) as jobs:
            await jobs.register(SCHEMA)
            slow.gate.clear()
            first = asyncio.create_task(jobs.publish("sums", {"x": 0}))
            await until(lambda: slow.batches)
            rest = [asyncio.create_task(jobs.publish("sums", {"x": x})) for x in range(1, 101)]
            await asyncio.sleep(0)
            slow.gate.set()
            ids = await asyncio.gather(first, *rest)
            received = []
            while (job := await jobs.receive_message("sums")) is not None:
                received.append(job)
            assert [job.payload.x for job in received] == list(range(101))
            assert [job.id for job in received] == ids

    run(main())
    assert slow.batches == [1, 100]
    assert all(name.startswith(OURS) for name in slow.threads)


def test_each_task_gets_its_own_error(slow: Slow) -> None:
    """One that is invalid, one that nobody knows of, one that is there twice."""
    job = job_from_schema(SCHEMA, {"x": 1}, id="twice")

    def half(messages: Sequence[Message]) -> list[PublishOutcome]:
        away = BackendUnavailable("broke")
        return LocalClient.publish(slow, "sums", messages[:2]) + [
            PublishOutcome(message.id, PublishStatus.UNKNOWN, away) for message in messages[2:]
        ]

    async def main() -> None:
        async with AsyncOrchestrator(slow) as jobs:
            await jobs.register(SCHEMA)
            slow.gate.clear()
            first = asyncio.create_task(jobs.publish("sums", {"x": 0}))
            await until(lambda: slow.batches)
            slow.answer = half
            calls = [
                asyncio.create_task(jobs.publish("sums", each)) for each in (job, {"x": "no"}, job, {"x": 2})
            ]
            await asyncio.sleep(0)  # all are in line, so they are one batch
            slow.gate.set()
            await first
            got = await asyncio.gather(*calls, return_exceptions=True)
            assert (got[0], got[2]) == ("twice", "twice")
            assert isinstance(got[1], InvalidPayload)
            assert isinstance(got[3], PublishUnknown)

    run(main())


@pytest.mark.parametrize("waited_for_long", [True, False])
def test_who_waited_for_long_fails_with_the_outage_that_it_waited_for(
    slow: Slow, monkeypatch: pytest.MonkeyPatch, waited_for_long: bool
) -> None:
    """Its own try would take as long once more; who came late has it."""
    monkeypatch.setattr(publisher, "LONGEST_WAIT_S", 0.0 if waited_for_long else math.inf)

    def away_once(_messages: Sequence[Message]) -> list[PublishOutcome]:
        slow.answer = None
        raise BackendUnavailable("the broker is away")

    async def main() -> None:
        async with AsyncOrchestrator(slow) as jobs:
            await jobs.register(SCHEMA)
            slow.gate.clear()
            slow.answer = away_once
            first = asyncio.create_task(jobs.publish("sums", {"x": 1}))
            while not slow.batches:
                await asyncio.sleep(0.001)
            others = [asyncio.create_task(jobs.publish("sums", {"x": x})) for x in (2, 3)]
            await asyncio.sleep(0)  # both are in line
            slow.gate.set()
            got = await asyncio.gather(first, *others, return_exceptions=True)
            failed = [type(each) is BackendUnavailable for each in got]
            assert failed == [True, waited_for_long, waited_for_long]
            assert slow.batches == ([1] if waited_for_long else [1, 2])
            assert await jobs.publish("sums", {"x": 4})

    run(main())


def test_an_error_of_the_broker_is_each_callers_own(slow: Slow) -> None:
    def away(_messages: Sequence[Message]) -> list[PublishOutcome]:
        raise BackendUnavailable("the broker is away")

    async def main() -> None:
        async with AsyncOrchestrator(slow) as jobs:
            await jobs.register(SCHEMA)
            slow.answer = away
            got = await asyncio.gather(
                *(jobs.publish("sums", {"x": x}) for x in range(3)), return_exceptions=True
            )
            assert [(type(each), str(each)) for each in got] == [
                (BackendUnavailable, "the broker is away")
            ] * 3
            assert len({id(each) for each in got}) == 3
            slow.answer = None
            assert await jobs.publish("sums", {"x": 1})

    run(main())


def test_threads_and_tasks_share_a_batch(slow: Slow, background: Any) -> None:
    """As they share the orchestrator."""
    sync = Orchestrator(slow)
    sync.register(SCHEMA)
    commit = sync.group_commits["sums"]

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            slow.gate.clear()
            first = background(sync.publish, "sums", {"x": 0})
            await until(lambda: slow.batches)
            task = asyncio.create_task(jobs.publish("sums", {"x": 1}))
            await until(lambda: len(commit._waiting) == 1)
            second = background(sync.publish, "sums", {"x": 2})
            await until(lambda: len(commit._waiting) == 2)
            slow.gate.set()
            await task
            first.result(LIMIT_S), second.result(LIMIT_S)

    run(main())
    assert slow.batches == [1, 2]


# -- cancelling -----------------------------------------------------------------------------------


def test_what_is_cancelled_under_way_is_published_and_later_calls_are_right(slow: Slow) -> None:
    """What waits behind it isn't sent, as nobody wants it any more."""

    async def main() -> None:
        async with AsyncOrchestrator(slow) as jobs:
            await jobs.register(SCHEMA)
            slow.gate.clear()
            under_way = asyncio.create_task(jobs.publish("sums", {"x": 1}))
            await until(lambda: slow.batches)
            behind = asyncio.create_task(jobs.publish("sums", {"x": 2}))
            after = asyncio.create_task(jobs.publish("sums", {"x": 3}))
            await asyncio.sleep(0)
            under_way.cancel()
            behind.cancel()
            with pytest.raises(asyncio.CancelledError):
                await under_way
            with pytest.raises(asyncio.CancelledError):
                await behind
            slow.gate.set()
            await after
            assert [(await jobs.receive_message("sums")).payload.x for _ in range(2)] == [1, 3]
            assert await jobs.receive_message("sums") is None

    run(main())


@pytest.mark.parametrize("nth", range(1, 6))
def test_a_thread_that_can_not_be_started_leaves_nobody_waiting(
    schema: JobSchema[Any, Any], monkeypatch: pytest.MonkeyPatch, nth: int
) -> None:
    """One call at most fails, and those after it are answered; the n-th start fails, of any kind."""
    starts, real = 0, threading.Thread.start

    def fail_at_nth(start: Callable[..., Any], *arguments: Any) -> Any:
        nonlocal starts
        starts += 1
        if starts == nth:
            raise RuntimeError("can't start new thread")
        return start(*arguments)

    def start_thread(thread: threading.Thread) -> None:
        is_ours = thread.name.startswith("mindtrace-jobs-call")
        fail_at_nth(real, thread) if is_ours else real(thread)

    monkeypatch.setattr(threading.Thread, "start", start_thread)
    monkeypatch.setattr(async_threads, "start_without_waiting", partial(fail_at_nth, start_without_waiting))

    async def main() -> None:
        orchestrator = Orchestrator(LocalClient())
        orchestrator.register(schema)
        jobs = AsyncOrchestrator(orchestrator)
        failed = 0
        for _ in range(3):
            try:
                await asyncio.wait_for(jobs.publish("points", {}), LIMIT_S)
            except RuntimeError:
                failed += 1
        assert failed == (nth == 1)
        assert orchestrator.counts("points").ready == 3 - failed

    asyncio.run(main())


def test_a_timeout_ends_any_call(slow: Slow) -> None:
    """Also of calls that wait for a thread, while all are busy with a broker that doesn't answer."""

    async def main() -> None:
        async with AsyncOrchestrator(slow) as jobs:
            await jobs.register(SCHEMA)
            slow.gate.clear()
            calls = [
                *(jobs.publish_batch("sums", [{"x": 1}]) for _ in range(8)),
                jobs.publish("sums", {"x": 1}),
                jobs.counts("sums"),
                jobs.result("sums", "unknown"),
            ]

            async def hurried(call: Coroutine[Any, Any, Any]) -> None:
                async with asyncio.timeout(0.05):
                    await call

            got = await asyncio.gather(*map(hurried, calls), return_exceptions=True)
            assert [type(each) for each in got] == [TimeoutError] * len(calls)
            slow.gate.set()
            assert (await jobs.counts("sums")).ready <= 8
            assert await jobs.publish("sums", {"x": 1})

    run(main())


def test_cancelled_waits_for_results_leave_nothing_behind() -> None:
    async def main() -> None:
        async with AsyncOrchestrator("memory://") as jobs:
            await jobs.register(SCHEMA)
            waits = [asyncio.create_task(jobs.result("sums", f"id-{n}", timeout_s=60)) for n in range(100)]
            awaited = jobs._awaited
            await until(lambda: awaited and len(awaited["sums"]._waits) == 100)
            for wait in waits:
                wait.cancel()
            await asyncio.gather(*waits, return_exceptions=True)
            assert not awaited["sums"]._waits
            await until(lambda: not awaited["sums"].is_watched)

    run(main())


# -- results --------------------------------------------------------------------------------------


def test_ten_thousand_results_need_few_threads() -> None:
    """Each is told when its job ends; none before."""
    count = 10_000
    client = LocalClient()
    sync = Orchestrator(client)

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            await jobs.register(SCHEMA)
            handles = await jobs.publish_batch("sums", [{"x": x} for x in range(count)])
            waits = [asyncio.create_task(jobs.result(SCHEMA, each.id, timeout_s=LIMIT_S)) for each in handles]
            await until(lambda: len(jobs._awaited["sums"]._waits) == count if jobs._awaited else False)
            await asyncio.to_thread(consume_all, sync)
            results = await asyncio.gather(*waits)
            assert [result.total for result in results] == list(range(count))
            assert len(our_threads()) <= 8

    run(main())
    client.close()


def test_many_queues_share_the_threads() -> None:
    """More than there are threads that wait."""
    client = LocalClient()
    sync = Orchestrator(client)
    schemas = [JobSchema(f"queue-{n}", Pair, Sum) for n in range(12)]

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            for schema in schemas:
                await jobs.register(schema)
            ids = [await jobs.publish(schema, {"x": n}) for n, schema in enumerate(schemas)]
            waits = [
                asyncio.create_task(jobs.result(schema, id_, timeout_s=LIMIT_S))
                for schema, id_ in zip(schemas, ids, strict=True)
            ]
            await until(lambda: len(jobs._awaited) == len(schemas))
            for schema in schemas:

                class Each(Consumer[Pair, Sum]):
                    def run(self, job: Job[Pair]) -> Sum:
                        return Sum(total=job.payload.x)

                with Each(schema.name) as consumer:
                    consumer.connect(sync, poll_timeout_s=0.0)
                    await asyncio.to_thread(consumer.consume_until_empty)
            assert [result.total for result in await asyncio.gather(*waits)] == list(range(len(schemas)))
            assert len(our_threads()) <= 8

    run(main())
    client.close()


class Plain(LocalClient):
    """A backend with nothing but what every backend has, that loses the connection when it is told to."""

    error: BaseException | None = None

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        if self.error is not None:
            raise self.error
        return super().result(queue, job_id, timeout_s=timeout_s)

    results = OrchestratorBackend.results
    ended_jobs = OrchestratorBackend.ended_jobs


def test_a_backend_that_cannot_tell_which_jobs_ended_is_asked() -> None:
    client = Plain()
    sync = Orchestrator(client)

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            await jobs.register(SCHEMA)
            ids = [await jobs.publish(SCHEMA, {"x": x}) for x in range(50)]
            waits = [asyncio.create_task(jobs.result(SCHEMA, id_, timeout_s=LIMIT_S)) for id_ in ids]
            with pytest.raises(ResultNotReady):
                await jobs.result(SCHEMA, "never", timeout_s=0.1)
            await asyncio.to_thread(consume_all, sync)
            assert [result.total for result in await asyncio.gather(*waits)] == list(range(50))

    run(main())


@pytest.mark.parametrize("error", [BackendUnavailable("away"), QueueNotFound("gone")], ids=repr)
def test_an_outage_reaches_all_who_wait(error: Exception) -> None:
    """As it does who waits in a thread; who waits later isn't harmed."""
    client = Plain()
    sync = Orchestrator(client)

    async def main() -> None:
        async with AsyncOrchestrator(sync) as jobs:
            await jobs.register(SCHEMA)
            id_ = await jobs.publish(SCHEMA, {"x": 1})
            waits = [asyncio.create_task(jobs.result(SCHEMA, id_, timeout_s=LIMIT_S)) for _ in range(3)]
            await until(lambda: jobs._awaited)
            client.error = error
            got = await asyncio.gather(*waits, return_exceptions=True)
            assert [type(each) for each in got] == [type(error)] * 3
            client.error = None
            await asyncio.to_thread(consume_all, sync)
            assert await jobs.result(SCHEMA, id_, timeout_s=LIMIT_S) == Sum(total=1)

    run(main())


def test_where_no_results_are_kept_a_wait_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    """With the message of the backend."""
    client = Plain()
    client.error = UnsupportedCapability("give it a store")
    without = replace(client.capabilities, results=False)
    monkeypatch.setattr(Plain, "capabilities", without)

    async def main() -> None:
        async with AsyncOrchestrator(client) as jobs:
            await jobs.register(SCHEMA)
            with pytest.raises(UnsupportedCapability, match="give it a store"):
                await jobs.result(SCHEMA, "id", timeout_s=5)

    run(main())


# -- closing, loops, forks ------------------------------------------------------------------------


def test_closing_ends_waits_and_is_final() -> None:
    async def main() -> None:
        jobs = AsyncOrchestrator("memory://")
        await jobs.register(SCHEMA)
        wait = asyncio.create_task(jobs.result(SCHEMA, "never", timeout_s=LIMIT_S))
        await until(lambda: jobs._awaited and jobs._awaited["sums"]._waits)
        await asyncio.gather(jobs.close(), jobs.close())
        await jobs.close()
        with pytest.raises(Closed):
            await wait
        for call in (jobs.publish("sums", {"x": 1}), jobs.counts("sums"), jobs.result("sums", "id")):
            with pytest.raises(Closed, match="this AsyncOrchestrator is closed"):
                await call

    run(main())


def test_closing_ends_what_a_thread_is_busy_with(slow: Slow) -> None:
    """It waits for none of them; a backend that was passed is left open."""

    async def main() -> None:
        jobs = AsyncOrchestrator(slow)
        await jobs.register(SCHEMA)
        slow.gate.clear()
        publishing = [asyncio.create_task(jobs.publish_batch("sums", [{"x": 1}])) for _ in range(6)]
        await until(lambda: len(slow.batches) >= 4)
        await jobs.close()
        slow.gate.set()
        await asyncio.gather(*publishing)

    run(main())
    assert slow.counts("sums").ready == 6


def test_one_that_is_dropped_leaves_no_thread() -> None:
    async def main() -> None:
        await AsyncOrchestrator("memory://").register(SCHEMA)

    run(main())


def test_loops_and_threads_may_share_one(background: Any) -> None:
    client = LocalClient()
    jobs = AsyncOrchestrator(client)

    async def publish(loop: int) -> list[str]:
        await jobs.register(SCHEMA)
        ids = await asyncio.gather(*(jobs.publish("sums", {"x": loop, "y": n}) for n in range(100)))
        ended = asyncio.gather(*(jobs.result(SCHEMA, id_, timeout_s=LIMIT_S) for id_ in ids))
        await asyncio.to_thread(consume_all, Orchestrator(client))
        assert [result.total for result in await ended] == [loop + n for n in range(100)]
        return ids

    loops = [background(run, publish(loop)) for loop in range(4)]
    ids = [id_ for loop in loops for id_ in loop.result(LIMIT_S)]
    assert len(set(ids)) == 400
    run(jobs.close())


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_child_starts_threads_of_its_own(slow: Slow) -> None:
    """Though those of its parent are all busy."""
    jobs = AsyncOrchestrator(slow)

    async def fork() -> int:
        await jobs.register(SCHEMA)
        slow.gate.clear()
        tasks = [asyncio.create_task(jobs.publish("sums", {"x": 1})) for _ in range(2)]
        await until(lambda: slow.batches)
        pid = os.fork()
        if pid == 0:  # the loop mustn't go on here: it would read what wakes that of the parent
            publish_in_child()
        slow.gate.set()
        await asyncio.gather(*tasks)
        await jobs.close()
        return pid

    def publish_in_child() -> None:
        signal.alarm(int(LIMIT_S))
        try:
            slow.gate = threading.Event()
            slow.gate.set()
            asyncio._set_running_loop(None)
            child = asyncio.new_event_loop()
            status = 0 if child.run_until_complete(jobs.publish("sums", {"x": 2})) else 1
            os._exit(status)
        finally:
            os._exit(2)

    loop = asyncio.new_event_loop()
    pid = loop.run_until_complete(fork())
    loop.close()
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0


# -- observers ------------------------------------------------------------------------------------


def test_observers_see_each_job_in_its_callers_context() -> None:
    """So that a trace goes on in the job."""
    trace: contextvars.ContextVar[str] = contextvars.ContextVar("trace")

    class Tracing(Observer):
        @contextmanager
        def publishing(self, queue: str, count: int) -> Iterator[Mapping[str, str]]:
            yield {"trace": trace.get()}

    async def publish(jobs: AsyncOrchestrator, name: str) -> None:
        trace.set(name)
        await jobs.publish("sums", {"x": 1})

    async def main() -> None:
        async with AsyncOrchestrator("memory://", observers=[Tracing()]) as jobs:
            await jobs.register(SCHEMA)
            await asyncio.gather(*(asyncio.create_task(publish(jobs, f"t{n}")) for n in range(5)))
            got = [await jobs.receive_message("sums") for _ in range(5)]
            assert {job.headers["trace"] for job in got if job} == {f"t{n}" for n in range(5)}

    run(main())
    with pytest.raises(InvalidInput, match="give them to the Orchestrator"):
        AsyncOrchestrator(Orchestrator(LocalClient()), observers=[Tracing()])
