"""What a worker calls beside its handlers: ``on_start``, ``on_stop`` and observers, in processes."""

import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from whole_lines import whole_lines

from conditions import LIMIT_S, eventually
from mindtrace.jobs import JobInput, JobSchema, Orchestrator

TASKS = """
import asyncio, os
from pathlib import Path
from mindtrace.jobs import Consumer, JobInput, JobSchema, Reject

RECORD = Path(__file__).with_name("told")


def tell(what):
    with RECORD.open("a") as record:
        record.write(f"{what} {os.getpid()}\\n")


class Plain(Consumer):
    schema = JobSchema("plain", JobInput)

    def on_start(self):
        if Path(__file__).with_name("broken").exists():
            raise RuntimeError("no GPU is free")
        tell("plain.start")

    def on_stop(self):
        tell("plain.stop")

    def run(self, job):
        tell("plain.run")


class Async(Consumer):
    schema = JobSchema("async", JobInput)
    concurrency = 4

    async def on_start(self):
        self.loop = asyncio.get_running_loop()
        tell("async.start")

    async def on_stop(self):
        assert self.loop is asyncio.get_running_loop()
        tell("async.stop")

    async def run(self, job):
        assert self.loop is asyncio.get_running_loop()
        tell("async.run")
        raise Reject("never")
"""
SENTRY = """
from tasks import tell


def init():
    tell("sentry.init")


def capture_message(text):
    tell("sentry:" + text.replace(" ", "_"))
"""
ALERTS = """
from mindtrace.jobs import Observer, Outcome


class DeadJobAlert(Observer):
    def __init__(self, send):
        self.send = send

    def ended(self, attempt):
        if attempt.outcome is Outcome.DEAD:
            self.send(f"{attempt.queue}: {attempt.error}")


def make_observer():
    import sentry_sdk
    sentry_sdk.init()
    return DeadJobAlert(sentry_sdk.capture_message)
"""


STARTS = ("plain.start", "async.start")
RUNS = ("plain.run", "async.run")


class Shop:
    """A folder with tasks, and what they told."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.url = f"sqlite:///{folder / 'jobs.db'}"

    def told(self) -> list[str]:
        record = self.folder / "told"
        return [line.split()[0] for line in whole_lines(record)] if record.exists() else []

    @contextmanager
    def worker(self, *options: str) -> Iterator["subprocess.Popen[str]"]:
        words = [sys.executable, "-m", "mindtrace.jobs", "worker", "tasks", "-b", self.url, *options]
        process = subprocess.Popen(words, cwd=self.folder, stderr=subprocess.PIPE, encoding="utf-8")
        try:
            yield process
        finally:
            process.kill()
            process.communicate()


@pytest.fixture
def shop(tmp_path: Path) -> Shop:
    for name, text in (("tasks", TASKS), ("sentry_sdk", SENTRY), ("alerts", ALERTS)):
        tmp_path.joinpath(f"{name}.py").write_text(text, "utf-8")
    return Shop(tmp_path)


def test_hooks_surround_the_jobs_of_each_process_and_alerts_tell_of_dead_ones(shop: Shop) -> None:
    """Also after SIGTERM. The alert is the recipe of the page, with a stand-in for Sentry."""
    with Orchestrator(shop.url) as jobs:
        for queue in ("plain", "async"):
            jobs.register(JobSchema(queue, JobInput))
            jobs.publish_batch(queue, [{}] * 3)
    with shop.worker("--processes", "2", "--observer", "alerts:make_observer") as worker:
        eventually(lambda: [shop.told().count(each) for each in STARTS] == [2, 2], "all started")
        eventually(lambda: [shop.told().count(each) for each in RUNS] == [3, 3], "all jobs ran")
        worker.send_signal(signal.SIGTERM)
        _, err = worker.communicate(timeout=LIMIT_S)
        assert worker.returncode == 0, err

    told = shop.told()
    assert [told.count(each) for each in ("plain.stop", "async.stop", "sentry.init")] == [2, 2, 2]
    assert told.count("sentry:async:_never") == 3


def test_an_error_at_the_start_ends_the_worker_and_says_which(shop: Shop) -> None:
    shop.folder.joinpath("broken").touch()
    with shop.worker("--processes", "2") as worker:
        _, err = worker.communicate(timeout=LIMIT_S)

    assert worker.returncode == 2, err
    line = TASKS[: TASKS.index("raise RuntimeError")].count("\n") + 1
    assert f"Plain.on_start failed ({shop.folder}/tasks.py, line {line}): RuntimeError: no GPU is free" in err
    assert err.count("RuntimeError: no GPU is free") == 2, "in one process, with its traceback"
    assert "plain.run" not in shop.told()
