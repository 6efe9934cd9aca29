"""Pausing a queue of many consumers in several processes, on every backend."""

import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from whole_lines import whole_lines

from conditions import eventually
from mindtrace.jobs import Orchestrator
from mindtrace.jobs.contract.lateness import Lateness

from .backend_urls import own_url
from .paused_worker import SCHEMA, Number

WORKER = Path(__file__).with_name("paused_worker.py")
PROCESSES, CONSUMERS = 4, 5
JOBS = 3_000
LATER = 200
"""How many more are published during the pause, as all others may be done by then on a busy machine."""
SEEN_S = 1.0


class Start(NamedTuple):
    number: int
    attempt: int
    at_s: float
    """By the store's clock."""


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The backend that the test is run on, with the queue declared, and left as it was."""
    with own_url(request.param, request, tmp_path) as url, Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        yield url
        orchestrator.delete_queue(SCHEMA.name)


@contextmanager
def workers(url: str, record: Path) -> Iterator[None]:
    """Processes with several consumers each, which have begun to work."""
    record.touch()
    words = [sys.executable, str(WORKER), url, str(record), "--consumers", str(CONSUMERS)]
    processes = [
        subprocess.Popen(words, stdin=subprocess.PIPE, stdout=subprocess.PIPE) for _ in range(PROCESSES)
    ]
    try:
        for process in processes:
            assert process.stdout is not None
            assert process.stdout.readline() == b"ready\n"
        yield
    finally:
        for process in processes:
            process.kill()
            process.communicate()


def starts(record: Path) -> list[Start]:
    lines = (line.split() for line in whole_lines(record))
    return [Start(int(number), int(attempt), float(at_s)) for number, attempt, at_s in lines]


@pytest.mark.long
@pytest.mark.parametrize("url", ["sqlite", "redis", "postgresql", "rabbitmq"], indirect=True)
def test_no_consumer_starts_a_job_a_second_after_the_pause_and_none_is_lost(url: str, tmp_path: Path) -> None:
    """Twenty consumers in four processes: threads, tasks, batches, and one job at a time (SET-4)."""
    record = tmp_path / "starts"
    with Orchestrator(url) as orchestrator, workers(url, record):
        queue, store = orchestrator.queue(SCHEMA), orchestrator.backend.coordination
        queue.publish_batch([Number(number=number) for number in range(JOBS)])
        eventually(lambda: len(starts(record)) > JOBS // 20, "the workers work")
        with Lateness() as lateness:
            queue.pause("maintenance")
            paused_s = store.now()

            def is_quiet() -> bool:
                """Whether all that was taken is done or back, and so for two seconds."""
                return store.now() - paused_s > 2 * SEEN_S and not queue.counts().in_flight

            eventually(is_quiet, "nothing is in flight")
        before = starts(record)
        queue.publish_batch([Number(number=JOBS + number) for number in range(LATER)])
        published_s = store.now()
        eventually(lambda: store.now() - published_s > 2 * SEEN_S, "some would have been started")
        assert starts(record) == before
        assert queue.counts().waiting == JOBS + LATER - len(before)
        last_s = max(start.at_s for start in before) - paused_s
        print(
            f"last start {last_s:.3f} s after the pause; the machine was up to {lateness.worst_s:.3f} s late"
        )
        assert last_s <= SEEN_S + lateness.worst_s
        queue.resume()
        eventually(lambda: len(starts(record)) >= JOBS + LATER, "the workers go on")
        eventually(lambda: not (queue.counts().waiting or queue.counts().in_flight), "all are done")
    ran = starts(record)
    assert sorted(start.number for start in ran) == list(range(JOBS + LATER))
    assert {start.attempt for start in ran} == {1}


@pytest.mark.parametrize("url", ["sqlite", "redis", "postgresql", "rabbitmq"], indirect=True)
def test_a_call_that_takes_one_job_takes_none_during_a_pause(url: str) -> None:
    """Wherever it was paused."""
    with Orchestrator(url) as jobs, Orchestrator(url) as other:
        jobs.register(SCHEMA)
        jobs.publish(SCHEMA, Number(number=1))
        other.pause(SCHEMA.name)
        assert jobs.receive_message(SCHEMA) is None
        other.resume(SCHEMA.name)
        eventually(lambda: jobs.receive_message(SCHEMA) is not None, "the job came")
