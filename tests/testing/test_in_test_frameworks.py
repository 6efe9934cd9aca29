"""The kit in asyncio, in unittest, and in pytest with xdist."""

import asyncio
import os
import subprocess
import sys
import unittest
from pathlib import Path

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncOrchestrator,
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    UsageError,
    job_handler,
)
from mindtrace.jobs.testing import JobKit, run_job


class Image(JobInput):
    path: str = "a.png"


class Report(JobOutput):
    defects: int


INSPECT = JobSchema("inspect", Image, Report)


class Inspector(Consumer[Image, Report]):
    """Runs on the event loop of the test, whose lock it shares."""

    schema = INSPECT

    def __init__(self) -> None:
        super().__init__()
        self.lock = asyncio.Lock()
        self.loops: list[asyncio.AbstractEventLoop] = []

    async def run(self, job: Job[Image]) -> Report:
        async with self.lock:
            await asyncio.sleep(0)
            self.loops.append(asyncio.get_running_loop())
        return Report(defects=job.attempt)


@pytest.mark.parametrize("concurrency", [1, 4])
def test_coroutines_run_on_the_loop_of_an_async_test(jobs: JobKit, concurrency: int) -> None:
    async def test() -> None:
        inspector = Inspector()
        jobs.connect(inspector, concurrency=concurrency)
        async with AsyncOrchestrator(jobs) as outside:
            job_id = await outside.publish(INSPECT, Image(), delay_s=3600)
            await outside.publish(INSPECT, Image())
            assert await jobs.advance_async(10) == 1
            assert await jobs.drain_async() == 1
            assert await outside.result(INSPECT, job_id) == Report(defects=1)
        assert set(inspector.loops) == {asyncio.get_running_loop()}
        assert await jobs.run_job_async(Inspector(), Image()) == Report(defects=1)

    asyncio.run(test())


def test_a_program_may_await_a_result_while_the_test_drains(jobs: JobKit) -> None:
    async def test() -> None:
        jobs.connect(Inspector)
        async with AsyncOrchestrator(jobs) as outside:
            job_id = await outside.publish(INSPECT, Image(), delay_s=3600)
            awaited = asyncio.create_task(outside.result(INSPECT, job_id, timeout_s=LIMIT_S))
            await jobs.drain_async()
            assert await awaited == Report(defects=1)

    asyncio.run(test())


def test_a_plain_handler_runs_in_an_async_test(jobs: JobKit) -> None:
    @job_handler(INSPECT)
    def inspect(job: Job[Image]) -> Report:
        return Report(defects=2)

    async def test() -> None:
        jobs.connect(inspect)
        jobs.publish(INSPECT, Image())
        assert await jobs.drain_async() == 1

    asyncio.run(test())


def test_a_call_that_would_block_an_event_loop_names_the_other(jobs: JobKit) -> None:
    async def test() -> None:
        jobs.connect(Inspector)
        for call in (jobs.drain, lambda: jobs.advance(1), lambda: jobs.run_job(Inspector, Image())):
            with pytest.raises(UsageError, match=r"await drain_async\(\), advance_async\(seconds\) or"):
                call()
        assert await jobs.drain_async() == 0

    asyncio.run(test())


class InUnittest(unittest.TestCase):
    """Run by pytest as well."""

    def setUp(self) -> None:
        self.jobs = self.enterContext(JobKit())

    def test_retry(self) -> None:
        self.jobs.connect(Inspector)
        self.jobs.publish(INSPECT, Image())
        assert self.jobs.drain() == 1
        assert run_job(Inspector, Image()) == Report(defects=1)


MODULE = """
import pytest
from mindtrace.jobs import JobInput, JobSchema


class Image(JobInput):
    path: str


@pytest.mark.parametrize("number", range(8))
def test_each_has_queues_of_its_own(jobs, number):
    jobs.publish(JobSchema("inspect", Image), Image(path=str(number)))
    assert jobs.counts("inspect").ready == 1


def test_that_fails(jobs):
    jobs.publish(JobSchema("inspect", Image), Image(path="b.png"))
    jobs.assert_published("inspect", path="a.png")
"""


def run_pytest(folder: Path, *options: str) -> str:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST_")}
    done = subprocess.run(
        [sys.executable, "-m", "pytest", "-p", "no:cacheprovider", *options],
        cwd=folder,
        env=environment,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )
    return done.stdout


@pytest.mark.parametrize("options", [(), ("-n", "2")])
def test_the_fixture_is_there_in_any_pytest(tmp_path: Path, options: tuple[str, ...]) -> None:
    (tmp_path / "test_users.py").write_text(MODULE, "utf-8")
    printed = run_pytest(tmp_path, *options)

    assert "1 failed, 8 passed" in printed
    assert "AssertionError: no job was published to queue inspect with path='a.png'; there are:" in printed
    assert "match_published" not in printed  # the test's line is the last of the traceback
    assert "inspect  Image(path='b.png')" in printed


def test_the_plugin_adds_no_option(tmp_path: Path) -> None:
    assert "testing" not in run_pytest(tmp_path, "--help").partition("mindtrace")[2].partition("\n\n")[0]
