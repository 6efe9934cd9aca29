"""What a consumer does before its first job and after its last."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mindtrace.jobs import BatchConsumer, Consumer, Job, Orchestrator
from mindtrace.jobs.domain.errors import InvalidInput, QueueNotFound, StartFailed


class Told:
    """What happened, in order, and on which thread and event loop."""

    def __init__(self) -> None:
        self.what: list[str] = []
        self.where: set[tuple[int, int | None]] = set()
        self.fails: set[str] = set()

    def tell(self, what: str) -> None:
        self.what.append(what)
        loop = id(asyncio.get_running_loop()) if self.in_loop() else None
        self.where.add((threading.get_ident(), loop))
        if what in self.fails:
            raise RuntimeError("no GPU is free")

    def in_loop(self) -> bool:
        try:
            asyncio.get_running_loop()
        except RuntimeError:
            return False
        return True


@pytest.fixture
def told() -> Told:
    return Told()


def plain(told: Told) -> type[Consumer]:
    class Plain(Consumer):
        def on_start(self) -> None:
            told.tell("start")

        def on_stop(self) -> None:
            told.tell("stop")

        def run(self, job: Job[Any]) -> None:
            told.tell("run")

    return Plain


def coroutine(told: Told) -> type[Consumer]:
    class Async(Consumer):
        async def on_start(self) -> None:
            told.tell("start")
            await asyncio.sleep(0)

        async def on_stop(self) -> None:
            await asyncio.sleep(0)
            told.tell("stop")

        async def run(self, job: Job[Any]) -> None:
            await asyncio.sleep(0)
            told.tell("run")

    return Async


def batch(told: Told) -> type[Consumer]:
    class Batches(BatchConsumer):
        async def on_start(self) -> None:
            told.tell("start")

        async def on_stop(self) -> None:
            told.tell("stop")

        async def run_batch(self, jobs: Any) -> list[None]:
            told.tell("run")
            return [None] * len(jobs)

    return Batches


KINDS: dict[str, tuple[Any, dict[str, Any]]] = {
    "plain": (plain, {}),
    "threads": (plain, {"concurrency": 3}),
    "async": (coroutine, {}),
    "tasks": (coroutine, {"concurrency": 3}),
    "batches": (batch, {"batch_size": 1}),
}


@pytest.fixture(params=KINDS)
def kind(request: pytest.FixtureRequest) -> str:
    name: str = request.param
    return name


@pytest.fixture
def consumer(orchestrator: Orchestrator, told: Told, kind: str) -> Iterator[Consumer]:
    make, options = KINDS[kind]
    with ExitStack() as stack:
        made = stack.enter_context(make(told)("points"))
        made.connect(orchestrator, poll_timeout_s=0.01, **options)
        yield made


def test_they_are_called_once_around_all_jobs_where_these_run(
    orchestrator: Orchestrator, consumer: Consumer, told: Told, kind: str
) -> None:
    """Each ``consume`` does so: its event loop ends with it."""
    for _ in range(2):
        orchestrator.publish_batch("points", [{"x": n} for n in range(5)])
        told.what.clear()
        told.where.clear()
        consumer.consume_until_empty()

        assert told.what == ["start", *["run"] * 5, "stop"]
        if kind != "threads":
            assert len(told.where) == 1


def test_they_are_called_where_no_job_came(consumer: Consumer, told: Told) -> None:
    consumer.consume(1)
    assert told.what == ["start", "stop"]


def test_a_consumer_that_is_stopped_ends_in_order(
    orchestrator: Orchestrator, consumer: Consumer, told: Told, background: Any, eventually: Any
) -> None:
    consuming = background(consumer.consume)
    orchestrator.publish("points", {"x": 1})
    eventually(lambda: consumer.stats.done == 1)
    consumer.stop()
    consuming.result()
    assert told.what == ["start", "run", "stop"]


def test_no_job_is_leased_while_it_ends(
    orchestrator: Orchestrator, consumer: Consumer, told: Told, background: Any
) -> None:
    """Those that were taken and not started are released first."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(100)])
    in_flight: list[int | None] = []

    def tell(what: str) -> None:
        told.what.append(what)
        if what == "run":
            consumer.stop()
        elif what == "stop":
            in_flight.append(orchestrator.counts("points").in_flight)

    told.tell = tell  # type: ignore[method-assign]
    consumer.consume()
    assert in_flight == [0]


def test_an_error_at_the_start_says_which_and_runs_no_job(
    orchestrator: Orchestrator, consumer: Consumer, told: Told
) -> None:
    told.fails = {"start"}
    orchestrator.publish("points", {"x": 1})
    name = type(consumer).__name__
    with pytest.raises(StartFailed, match=rf"{name}.on_start failed \(.*, line \d+\): RuntimeError: no GPU"):
        consumer.consume(1)

    assert told.what == ["start"]
    assert orchestrator.counts("points").ready == 1
    assert not consumer.has_started
    told.fails = set()
    assert consumer.consume(1) == 1, "it may be tried again"


def test_an_error_at_the_end_is_logged(
    consumer: Consumer, told: Told, caplog: pytest.LogCaptureFixture
) -> None:
    told.fails = {"stop"}
    assert consumer.consume(1) == 0
    assert f"{type(consumer).__name__}.on_stop failed" in caplog.text
    assert "no GPU is free" in caplog.text


def test_an_error_of_the_backend_ends_it_in_order(
    orchestrator: Orchestrator, consumer: Consumer, told: Told
) -> None:
    orchestrator.delete_queue("points")
    with pytest.raises(QueueNotFound):
        consumer.consume()
    assert told.what == ["start", "stop"]


@pytest.mark.parametrize("name", ["on_start", "on_stop"])
def test_an_async_def_needs_a_handler_that_is_one(orchestrator: Orchestrator, name: str) -> None:
    async def hook(self: object) -> None: ...

    made = type("Opener", (Consumer,), {"run": lambda self, job: None, name: hook})("points")
    with pytest.raises(InvalidInput, match=f"Opener.{name} is an async def, and the handler is a plain"):
        made.connect(orchestrator)
