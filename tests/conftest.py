"""What the tests share: one schema, a backend, consumers made of a function, and threads that are joined."""

import gc
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from typing import Any

import pytest
from hypothesis import settings

from background import Background
from conditions import LIMIT_S
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    LocalClient,
    Orchestrator,
    RetryPolicy,
)

settings.register_profile("tests", derandomize=True, deadline=None, max_examples=100)
settings.load_profile("tests")

OURS = "mindtrace-jobs-"
LASTING = ("mindtrace-jobs-pauses", "mindtrace-jobs-signals", "mindtrace-jobs-deadlines")
"""Threads that end half a second after the last consumer, or with the process."""
AT_ONCE = RetryPolicy(max_attempts=3, base_delay_s=0.0)


class Point(JobInput):
    x: float = 0.0
    y: float = 0.0


class Total(JobOutput):
    total: float = 0.0


@pytest.fixture(autouse=True)
def _leaves_no_thread(request: pytest.FixtureRequest) -> Iterator[None]:
    """Whatever a test closed or dropped; else a later test that counts threads would be red for it."""
    before, failures = {*threading.enumerate()}, request.session.testsfailed
    yield
    give_up = time.monotonic() + LIMIT_S
    while (left := _our_threads() - before) and request.session.testsfailed == failures:
        assert time.monotonic() < give_up, f"left behind: {left}"
        time.sleep(0.01)
        gc.collect()


def _our_threads() -> set[threading.Thread]:
    return {each for each in threading.enumerate() if each.name.startswith(OURS) and each.name not in LASTING}


@pytest.fixture
def schema() -> JobSchema[Point, Total]:
    """Two floats in, one out, retried without a delay."""
    return JobSchema(name="points", input=Point, output=Total, retry=AT_ONCE)


@pytest.fixture
def client() -> Iterator[LocalClient]:
    with LocalClient() as client:
        yield client


@pytest.fixture
def orchestrator(client: LocalClient, schema: JobSchema[Point, Total]) -> Orchestrator:
    """An orchestrator with ``schema`` registered, so that its queue is ``points``."""
    orchestrator = Orchestrator(client)
    orchestrator.register(schema)
    return orchestrator


Submit = Callable[..., "Future[Any]"]
Eventually = Callable[[Callable[[], object]], None]


@pytest.fixture
def background() -> Iterator[Submit]:
    """Run a function in a thread of its own, and return its future."""
    with Background() as threads:
        yield threads.submit


@pytest.fixture
def eventually() -> Eventually:
    """Wait until a condition holds."""

    def wait(condition: Callable[[], object]) -> None:
        give_up = time.monotonic() + LIMIT_S
        while not condition():
            assert time.monotonic() < give_up, "it never came true"
            time.sleep(0.001)

    return wait


@pytest.fixture
def until_blocked(client: LocalClient, eventually: Eventually) -> Callable[..., None]:
    """Wait until so many receivers of the queue ``points`` are blocked."""
    return lambda count=1: eventually(lambda: len(client._queue("points")._receivers) == count)


MakeConsumer = Callable[..., Consumer]


@pytest.fixture
def make_consumer(orchestrator: Orchestrator, background: Submit) -> Iterator[MakeConsumer]:
    """Make a connected consumer of a function, closed before the threads of ``background`` are joined."""
    with ExitStack() as stack:

        def make(
            handler: Callable[[Job[Point]], Any] = lambda job: None,
            *,
            to: Orchestrator = orchestrator,
            policy: RetryPolicy | None = None,
            **connect: Any,
        ) -> Consumer:
            class FunctionConsumer(Consumer):
                retry = policy

                def run(self, job: Job[Point]) -> Any:
                    return handler(job)

            consumer = stack.enter_context(FunctionConsumer("points"))
            consumer.connect(to, **connect)
            return consumer

        yield make
