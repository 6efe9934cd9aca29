"""Context managers around handlers: their order, their errors, and who may have which kind."""

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import AbstractContextManager, asynccontextmanager, contextmanager
from contextvars import ContextVar
from typing import Any

import pytest

from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    InvalidInput,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    Reject,
    RetryPolicy,
    UsageError,
    batch_handler,
    job_handler,
)


class Image(JobInput):
    path: str


class Report(JobOutput):
    said: str


SCHEMA = JobSchema("inspect", Image, Report, retry=RetryPolicy(max_attempts=2, base_delay_s=0))
LOG: list[str] = []


@pytest.fixture(autouse=True)
def empty_log() -> None:
    LOG.clear()


def noting(name: str) -> Callable[[Any], AbstractContextManager[None]]:
    @contextmanager
    def note(work: Any) -> Iterator[None]:
        ids = work.id if isinstance(work, Job) else "+".join(job.id for job in work)
        LOG.append(f"{name} begins {ids}")
        try:
            yield
        except ZeroDivisionError:
            LOG.append(f"{name} sees an error")
            raise
        finally:
            LOG.append(f"{name} ends")

    return note


@asynccontextmanager
async def awaiting(_job: Job[Any]) -> AsyncIterator[None]:
    await asyncio.sleep(0)
    LOG.append("async begins")
    yield
    await asyncio.sleep(0)
    LOG.append("async ends")


class Inspector(Consumer):
    schema = SCHEMA
    middleware = (noting("class"),)

    def run(self, job: Job[Image]) -> Report:
        LOG.append("run")
        return Report(said=job.payload.path)


def consumed(
    consumer: Consumer[Any, Any], jobs: Orchestrator, *ids: str, concurrency: int | None = None
) -> None:
    consumer.connect(jobs, concurrency=concurrency)
    for id_ in ids:
        jobs.publish(SCHEMA, jobs.job(SCHEMA, Image(path=id_), id=id_))
    consumer.consume_until_empty()
    consumer.close()


@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_orchestrators_is_outside_and_the_first_is_the_outermost(concurrency: int) -> None:
    with Orchestrator("memory://", middleware=[noting("first"), noting("second")]) as jobs:
        consumed(Inspector(), jobs, "a", concurrency=concurrency)
        assert jobs.result(SCHEMA, "a") == Report(said="a")

    assert [
        *("first begins a", "second begins a", "class begins a", "run"),
        *("class ends", "second ends", "first ends"),
    ] == LOG


@pytest.mark.parametrize("concurrency", [1, 2])
def test_an_async_handler_takes_both_kinds(concurrency: int) -> None:
    class Awaited(Consumer):
        schema = SCHEMA
        middleware = (noting("plain"), awaiting)

        async def run(self, job: Job[Image]) -> Report:
            LOG.append("run")
            return Report(said="x")

    with Orchestrator("memory://") as jobs:
        consumed(Awaited(), jobs, "a", concurrency=concurrency)

    assert LOG == ["plain begins a", "async begins", "run", "async ends", "plain ends"]


def test_a_batch_has_one_context_for_its_jobs() -> None:
    class Batched(BatchConsumer):
        schema = SCHEMA
        middleware = (noting("batch"),)

        def run_batch(self, jobs: Sequence[Job[Image]]) -> list[Report]:
            LOG.append("run")
            return [Report(said=job.id) for job in jobs]

    with Orchestrator("memory://") as jobs:
        jobs.register(SCHEMA)
        for id_ in "ab":
            jobs.publish(SCHEMA, jobs.job(SCHEMA, Image(path=id_), id=id_))
        consumed(Batched(), jobs)
        assert jobs.result(SCHEMA, "b") == Report(said="b")

    assert LOG == ["batch begins a+b", "run", "batch ends"]


def test_decorated_functions_have_their_own() -> None:
    @job_handler(SCHEMA, middleware=[noting("function")])
    def inspect(job: Job[Image]) -> Report:
        return Report(said="x")

    @batch_handler(SCHEMA, middleware=[noting("batch")])
    def inspect_all(jobs: Sequence[Job[Image]]) -> list[Report]:
        return [Report(said="x") for _ in jobs]

    with Orchestrator("memory://") as jobs:
        consumed(inspect.consumer(), jobs, "a")
        consumed(inspect_all.consumer(), jobs, "b")

    assert LOG == ["function begins a", "function ends", "batch begins b", "batch ends"]


def test_it_sees_the_handlers_error_and_the_job_is_retried() -> None:
    class Failing(Inspector):
        def run(self, job: Job[Image]) -> Report:
            if job.attempt == 1:
                raise ZeroDivisionError
            return Report(said="second")

    with Orchestrator("memory://") as jobs:
        consumed(Failing(), jobs, "a")
        assert jobs.result(SCHEMA, "a") == Report(said="second")

    assert LOG == ["class begins a", "class sees an error", "class ends", "class begins a", "class ends"]


@pytest.mark.parametrize("when", ["before", "after"])
def test_its_own_error_is_a_failure_of_the_job(when: str) -> None:
    @contextmanager
    def failing(job: Job[Any]) -> Iterator[None]:
        if when == "before" and job.attempt == 1:
            raise OSError("no database")
        yield
        if when == "after" and job.attempt == 1:
            raise OSError("no commit")

    @contextmanager
    def rejecting(_job: Job[Any]) -> Iterator[None]:
        raise Reject("not for us")
        yield

    with Orchestrator("memory://", middleware=[failing]) as jobs:
        consumer = Inspector()
        consumed(consumer, jobs, "a")
        assert jobs.result(SCHEMA, "a") == Report(said="a")
    assert LOG.count("run") == (1 if when == "before" else 2)
    with Orchestrator("memory://", middleware=[rejecting]) as jobs:
        consumed(Inspector(), jobs, "a")
        assert [dead.reason for dead in jobs.dead_letters("inspect")] == ["rejected"]


def test_what_it_sets_is_seen_in_the_handler_alone() -> None:
    tenant: ContextVar[str] = ContextVar("tenant", default="nobody")

    @contextmanager
    def as_tenant(job: Job[Any]) -> Iterator[None]:
        token = tenant.set(job.payload.path)
        try:
            yield
        finally:
            tenant.reset(token)

    class Tenants(Consumer):
        schema = SCHEMA

        def run(self, job: Job[Image]) -> Report:
            return Report(said=tenant.get())

    with Orchestrator("memory://", middleware=[as_tenant]) as jobs:
        consumed(Tenants(), jobs, "acme", "globex")
        assert [jobs.result(SCHEMA, id_).said for id_ in ("acme", "globex")] == ["acme", "globex"]
    assert tenant.get() == "nobody"


def generator(_job: Job[Any]) -> Iterator[None]:
    yield


async def coroutine(_job: Job[Any]) -> None: ...


@contextmanager
def without_a_job() -> Iterator[None]:
    yield


@pytest.mark.parametrize(
    ("middleware", "message"),
    [
        (noting("a"), "pass a list of functions"),
        (["note"], "pass a list of functions"),
        ([generator], "write @contextlib.contextmanager above generator"),
        ([coroutine], "coroutine is an async def: write @contextlib.asynccontextmanager above it"),
        ([without_a_job()], "is a context manager: pass the function that makes it"),
        ([without_a_job], r"without_a_job can't be called with a job alone \(too many"),
    ],
)
def test_what_makes_no_context_is_refused(middleware: Any, message: str) -> None:
    with pytest.raises(InvalidInput, match=f"^Orchestrator: .*{message}"):
        Orchestrator("memory://", middleware=middleware)
    with Orchestrator("memory://") as jobs:
        consumer = type("Own", (Inspector,), {"middleware": middleware})()
        with pytest.raises(InvalidInput, match=f"^Own.middleware: .*{message}"):
            consumer.connect(jobs)


def test_an_async_one_around_a_plain_handler_is_refused_as_it_connects() -> None:
    with (
        Orchestrator("memory://", middleware=[awaiting]) as jobs,
        pytest.raises(UsageError, match="awaiting makes an async context manager, and the handler"),
    ):
        Inspector().connect(jobs)


def test_a_function_that_returns_no_context_manager_is_named() -> None:
    def nothing(_job: Job[Any]) -> Any:
        return None

    with Orchestrator("memory://", middleware=[nothing]) as jobs:
        consumed(Inspector(), jobs, "a")
        (dead,) = jobs.dead_letters("inspect")

    assert "nothing returned NoneType: middleware returns a context manager, as a function does" in dead.error
