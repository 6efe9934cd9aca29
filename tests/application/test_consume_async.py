"""Consuming beside the other tasks of an event loop."""

import asyncio
import signal
import threading
from collections.abc import Awaitable, Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest

from conditions import LIMIT_S, eventually
from mindtrace.jobs import BatchConsumer, Consumer, Job, JobSchema, Orchestrator, StartFailed, UsageError

pytestmark = pytest.mark.parametrize("concurrency", [1, 8])


class Handled(Consumer):
    """Awaits a function for each job."""

    def __init__(self, handle: Callable[[Job[Any]], Awaitable[Any]]) -> None:
        super().__init__("points")
        self.handle = handle

    async def run(self, job: Job[Any]) -> Any:
        return await self.handle(job)


def connected(consumer: Consumer, orchestrator: Orchestrator, concurrency: int = 1) -> Consumer:
    consumer.connect(orchestrator, concurrency=concurrency, poll_timeout_s=0.01)
    return consumer


def publish(orchestrator: Orchestrator, count: int) -> None:
    orchestrator.publish_batch("points", [{"x": n} for n in range(count)])


def test_handlers_run_on_the_callers_loop_and_share_what_belongs_to_it(
    orchestrator: Orchestrator, concurrency: int
) -> None:
    """A queue of asyncio's, which another task of the program reads."""
    publish(orchestrator, 20)

    async def main() -> None:
        seen: asyncio.Queue[float] = asyncio.Queue(maxsize=1)
        with connected(Handled(lambda job: seen.put(job.payload.x)), orchestrator, concurrency) as consumer:
            consuming = asyncio.create_task(consumer.consume_async(20))
            assert sorted([await seen.get() for _ in range(20)]) == list(range(20))
            assert await consuming == 20
            assert consumer.stats.done == 20

    asyncio.run(main())


def test_cancelling_lets_the_running_jobs_finish_and_releases_the_others(
    orchestrator: Orchestrator, concurrency: int
) -> None:
    publish(orchestrator, 20)

    async def main() -> None:
        running, may_end = asyncio.Event(), asyncio.Event()

        async def handle(job: Job[Any]) -> None:
            running.set()
            await may_end.wait()

        with connected(Handled(handle), orchestrator, concurrency) as consumer:
            consuming = asyncio.create_task(consumer.consume_async())
            await running.wait()
            consuming.cancel()
            await asyncio.sleep(0)
            assert not consuming.done()
            may_end.set()
            with pytest.raises(asyncio.CancelledError):
                await consuming
            stats = consumer.stats
            assert consumer.stopped
            assert stats.done == stats.attempted >= 1
            assert (stats.retried, stats.dead) == (0, 0)
        assert orchestrator.count_queue_messages("points") == 20 - stats.done

    asyncio.run(main())


def test_cancelled_once_more_it_ends_at_once(orchestrator: Orchestrator, concurrency: int) -> None:
    publish(orchestrator, 1)

    async def main() -> None:
        running, may_end, ended = asyncio.Event(), asyncio.Event(), asyncio.Event()

        async def handle(job: Job[Any]) -> None:
            running.set()
            await may_end.wait()
            ended.set()

        with connected(Handled(handle), orchestrator, concurrency) as consumer:
            consuming = asyncio.create_task(consumer.consume_async())
            await running.wait()
            for _ in range(2):
                consuming.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await consuming
            assert not ended.is_set()
            may_end.set()
            await ended.wait()

    asyncio.run(main())


def test_cancelled_twice_it_stops_on_the_same_loop(orchestrator: Orchestrator, concurrency: int) -> None:
    """It ends before its thread does, which still needs the loop for the hook."""
    loops: list[asyncio.AbstractEventLoop] = []

    class Hooked(Handled):
        async def on_stop(self) -> None:
            loops.append(asyncio.get_running_loop())

    async def main() -> None:
        running, may_end = asyncio.Event(), asyncio.Event()

        async def handle(job: Job[Any]) -> None:
            running.set()
            await may_end.wait()

        with connected(Hooked(handle), orchestrator, concurrency) as consumer:
            consuming = asyncio.create_task(consumer.consume_async())
            await running.wait()
            for _ in range(2):
                consuming.cancel()
                await asyncio.sleep(0)
            with pytest.raises(asyncio.CancelledError):
                await consuming
            may_end.set()
            await asyncio.to_thread(eventually, lambda: loops, "on_stop is called")
        assert loops == [asyncio.get_running_loop()]

    publish(orchestrator, 1)
    asyncio.run(main())


async def until_it_returns(consumer: Consumer, running: asyncio.Event) -> None:
    """End the event loop by the end of what it ran."""
    consuming = asyncio.create_task(consumer.consume_async())
    await running.wait()
    assert not consuming.done()


async def until_a_second_sigint(consumer: Consumer, running: asyncio.Event) -> None:
    """End the event loop as a user does who presses Ctrl-C twice."""

    async def press() -> None:
        await running.wait()
        loop = asyncio.get_running_loop()
        for _ in range(2):
            loop.call_soon(signal.raise_signal, signal.SIGINT)

    await asyncio.gather(consumer.consume_async(), press())


@pytest.mark.parametrize("until", [until_it_returns, until_a_second_sigint])
@pytest.mark.parametrize("in_batches", [False, True])
def test_the_end_of_the_event_loop_spends_no_attempt(
    orchestrator: Orchestrator, concurrency: int, until: Callable[..., Awaitable[None]], *, in_batches: bool
) -> None:
    """The running jobs go back, as a second Ctrl-C has those of `consume` go back (SET-4)."""
    runs: list[int] = []

    async def main() -> None:
        running = asyncio.Event()

        async def handle(*_jobs: Job[Any]) -> None:
            runs.append(len(_jobs))
            running.set()
            await asyncio.Event().wait()

        class Batches(BatchConsumer):
            async def run_batch(self, jobs: Sequence[Job[Any]]) -> list[None]:
                await handle(*jobs)
                return []

        consumer = Batches("points") if in_batches else Handled(handle)
        consumers.append(consumer)
        await until(connected(consumer, orchestrator, 1 if in_batches else concurrency), running)

    consumers: list[Consumer] = []
    publish(orchestrator, 3)
    with suppress(KeyboardInterrupt):
        asyncio.run(main())
    eventually(lambda: not orchestrator.counts("points").in_flight, "the jobs go back")
    for consumer in consumers:
        consumer.close()
    assert runs
    left = orchestrator.backend.open_consumer("points").receive(3, LIMIT_S)
    assert [(each.attempt, each.crashes) for each in left] == [(1, 0)] * 3


def test_cancelled_as_it_ends_it_leaves_no_request_to_stop(
    orchestrator: Orchestrator, concurrency: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its thread has ended, and the event loop doesn't know yet."""
    running, may_end, told = threading.Event(), threading.Event(), threading.Event()

    class Plain(Consumer):
        def run(self, job: Job[Any]) -> None:
            running.set()
            may_end.wait(LIMIT_S)

    async def main() -> None:
        loop = asyncio.get_running_loop()
        tell = loop.call_soon_threadsafe

        def tell_and_note(*arguments: Any, **options: Any) -> asyncio.Handle:
            handle = tell(*arguments, **options)
            told.set()
            return handle

        with connected(Plain("points"), orchestrator, concurrency) as consumer:
            consuming = asyncio.create_task(consumer.consume_async(1))
            await asyncio.to_thread(running.wait, LIMIT_S)
            monkeypatch.setattr(loop, "call_soon_threadsafe", tell_and_note)
            may_end.set()
            assert told.wait(LIMIT_S)
            consuming.cancel()
            with pytest.raises(asyncio.CancelledError):
                await consuming
            assert await consumer.consume_async(1) == 1

    publish(orchestrator, 2)
    asyncio.run(main())


def test_stop_ends_it(orchestrator: Orchestrator, concurrency: int) -> None:
    async def main() -> None:
        async def handle(job: Job[Any]) -> None:
            consumer.stop()

        publish(orchestrator, 1)
        with connected(Handled(handle), orchestrator, concurrency) as consumer:
            assert await consumer.consume_async() == 1

    asyncio.run(main())


def test_an_error_of_a_handler_is_its_jobs_also_one_that_ends_event_loops(
    orchestrator: Orchestrator, concurrency: int
) -> None:
    async def main() -> None:
        async def handle(job: Job[Any]) -> None:
            raise [ValueError, SystemExit, KeyboardInterrupt, asyncio.CancelledError][int(job.payload.x)]

        publish(orchestrator, 4)
        with connected(Handled(handle), orchestrator, concurrency) as consumer:
            assert await consumer.consume_async(4 * 3) == 4 * 3
            assert (consumer.stats.retried, consumer.stats.dead) == (8, 4)

    asyncio.run(main())


def test_a_job_can_be_cancelled(orchestrator: Orchestrator, concurrency: int) -> None:
    async def main() -> None:
        running = asyncio.Event()

        async def handle(job: Job[Any]) -> None:
            running.set()
            await asyncio.Event().wait()

        job_id = orchestrator.publish("points", {})
        with connected(Handled(handle), orchestrator, concurrency) as consumer:
            consuming = asyncio.create_task(consumer.consume_async(1))
            await running.wait()
            await asyncio.to_thread(orchestrator.cancel, "points", job_id)
            assert await asyncio.wait_for(consuming, LIMIT_S) == 1
            assert consumer.stats.cancelled == 1

    asyncio.run(main())


def test_the_hooks_are_awaited_on_the_callers_loop(orchestrator: Orchestrator, concurrency: int) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    class Hooked(Consumer):
        async def on_start(self) -> None:
            loops.append(asyncio.get_running_loop())

        async def on_stop(self) -> None:
            loops.append(asyncio.get_running_loop())

        async def run(self, job: Job[Any]) -> None:
            loops.append(asyncio.get_running_loop())

    async def main() -> None:
        with connected(Hooked("points"), orchestrator, concurrency) as consumer:
            assert await consumer.consume_async(1) == 1
        assert loops == [asyncio.get_running_loop()] * 3

    publish(orchestrator, 1)
    asyncio.run(main())


def test_an_error_of_a_hook_is_raised(orchestrator: Orchestrator, concurrency: int) -> None:
    class Broken(Consumer):
        async def on_start(self) -> None:
            raise ValueError("no pool")

        async def run(self, job: Job[Any]) -> None:
            """Never called."""

    async def main() -> None:
        with (
            connected(Broken("points"), orchestrator, concurrency) as consumer,
            pytest.raises(StartFailed, match="no pool"),
        ):
            await consumer.consume_async(1)

    asyncio.run(main())


def test_a_hook_that_exits_ends_the_consumer_and_not_the_event_loop(
    orchestrator: Orchestrator, concurrency: int
) -> None:
    class Exits(Consumer):
        async def on_start(self) -> None:
            raise SystemExit(3)

        async def run(self, job: Job[Any]) -> None:
            """Never called."""

    async def main() -> str:
        with connected(Exits("points"), orchestrator, concurrency) as consumer:
            try:
                await consumer.consume_async(1)
            except (StartFailed, SystemExit):
                await asyncio.sleep(0)
                return "goes on"
        return "never"

    assert asyncio.run(main()) == "goes on"


def test_a_plain_handler_runs_in_a_thread(orchestrator: Orchestrator, concurrency: int) -> None:
    threads: list[threading.Thread] = []

    class Plain(Consumer):
        def run(self, job: Job[Any]) -> None:
            threads.append(threading.current_thread())

    async def main() -> None:
        with connected(Plain("points"), orchestrator, concurrency) as consumer:
            assert await consumer.consume_async(3) == 3

    publish(orchestrator, 3)
    asyncio.run(main())
    assert threading.main_thread() not in threads


def test_it_consumes_once_at_a_time_and_again_afterwards(
    orchestrator: Orchestrator, concurrency: int
) -> None:
    async def main() -> None:
        async def handle(job: Job[Any]) -> None:
            with pytest.raises(UsageError, match="consuming already"):
                await consumer.consume_async(1)

        publish(orchestrator, 2)
        with connected(Handled(handle), orchestrator, concurrency) as consumer:
            assert await consumer.consume_async(1) == 1
            assert await consumer.consume_async(1) == 1
            assert consumer.stats.done == 2

    asyncio.run(main())


def test_consume_has_a_loop_of_its_own_afterwards(orchestrator: Orchestrator, concurrency: int) -> None:
    loops: list[asyncio.AbstractEventLoop] = []

    async def handle(job: Job[Any]) -> None:
        loops.append(asyncio.get_running_loop())

    publish(orchestrator, 2)
    with connected(Handled(handle), orchestrator, concurrency) as consumer:
        assert asyncio.run(consumer.consume_async(1)) == 1
        assert consumer.consume(1) == 1
    assert len(set(loops)) == 2


def test_batches(orchestrator: Orchestrator, schema: JobSchema[Any, Any], concurrency: int) -> None:
    """Of a consumer, which runs one at a time."""
    loops: list[asyncio.AbstractEventLoop] = []

    class Batches(BatchConsumer):
        async def run_batch(self, jobs: Sequence[Job[Any]]) -> list[None]:
            loops.append(asyncio.get_running_loop())
            return [None] * len(jobs)

    async def main() -> None:
        with connected(Batches("points"), orchestrator) as consumer:
            assert await consumer.consume_async(concurrency) == concurrency
        assert set(loops) == {asyncio.get_running_loop()}

    publish(orchestrator, concurrency)
    asyncio.run(main())
