"""A run of the tests gets its verdict, and soon, whatever hangs or has died."""

import os
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import pytest

from conditions import LIMIT_S, eventually

pytestmark = pytest.mark.begins_first

TESTING = Path(__file__).parents[2] / "testing"
SETTINGS = """
[pytest]
addopts = -p verdict --import-mode=importlib
timeout = {timeout}
hang_limits_divided_by = {divisor}
patience_with_dead_servers = 1
costs_are_told_after = 0.1
"""
COSTS = """
import time

def test_that_computes():
    began = time.process_time()
    while time.process_time() < began + 1.0:
        pass

def test_that_waits():
    time.sleep(0.1)
"""
HANGS = """
import os, threading, time
from concurrent.futures import ThreadPoolExecutor
import pytest
from mindtrace.jobs import Consumer, JobInput, JobSchema, LocalClient, Orchestrator

never = threading.Event()

@pytest.fixture
def pool():
    with ThreadPoolExecutor(1) as pool:
        yield pool

@pytest.fixture(scope="session")
def hanging():
    yield
    never.wait()

def test_of_a_thread(pool):
    pool.submit(never.wait)
    assert False, "it failed first"

def test_of_a_fixture_of_the_session(hanging):
    pass

def test_of_a_forked_child():
    child = os.fork()
    if child == 0:
        while True:
            time.sleep(1)
    os.waitpid(child, 0)

def test_of_a_handler():
    class Sleeper(Consumer):
        def run(self, job):
            time.sleep(3600)

    jobs = Orchestrator(LocalClient())
    jobs.register(JobSchema(name="jobs", input=JobInput))
    jobs.publish("jobs", {})
    consumer = Sleeper("jobs")
    consumer.connect(jobs)
    consumer.consume()

def test_of_an_exit():
    with ThreadPoolExecutor(1) as pool:
        pool.submit(never.wait)
        assert False, "it failed first"
"""
ENDS_BEFORE_ITS_CHILD = """
import os, time

def test_that_forks():
    if os.fork() == 0:
        while True:
            time.sleep(1)
    os._exit(1)  # as faulthandler ends a process that hangs
"""
HANGS_AT_THE_END = """
import os, threading

def test_it():
    pass

def pytest_sessionfinish(session):
    if os.environ.get("PYTEST_XDIST_WORKER") == "gw0":
        threading.Event().wait()
"""
WAITS = """
import pathlib, time

def test_that_waits():
    pathlib.Path("begun").touch()
    time.sleep(3600)
"""
SERVER_IS_GONE = """
import pickle
from brokers.private_server import free_port
from brokers.redis_server import Address
from brokers.run_servers import servers_folder

def test_that_fails(request):
    folder = servers_folder(request.config) / "Redis"
    (folder / "17").mkdir(parents=True)
    (folder / "17" / "server.log").write_text("Out of memory")
    (folder / "address").write_bytes(pickle.dumps(Address("127.0.0.1", free_port())))
    assert False, "no answer"

def test_after_it():
    pass
"""


@contextmanager
def inner_run(
    folder: Path, source: str, *words: str, timeout: int = 0, divisor: int = 1
) -> "Iterator[subprocess.Popen[str]]":
    """Run pytest on a file of tests, in a session of its own, and end what it leaves.

    Only a run in which something hangs has short limits: a busy machine would reach them without a fault.
    It is ended after ``LIMIT_S`` in any case, so reading what it prints has an end.
    """
    (folder / "pytest.ini").write_text(SETTINGS.format(timeout=timeout, divisor=divisor))
    (folder / "test_inner.py").write_text(source)
    if "pytest_sessionfinish" in source:
        (folder / "conftest.py").write_text(source)
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTEST")}
    process = subprocess.Popen(
        [sys.executable, "-m", "pytest", *words],
        cwd=folder,
        env=environment | {"PYTHONPATH": str(TESTING)},
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        start_new_session=True,
    )

    def end() -> None:
        with suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)

    timer = threading.Timer(LIMIT_S, end)
    timer.start()
    try:
        yield process
    finally:
        timer.cancel()
        end()
        process.communicate(timeout=LIMIT_S)


def read_until(process: "subprocess.Popen[str]", text: str) -> None:
    """Read what a run prints up to a text, with which no line need end."""
    assert process.stdout is not None
    read = ""
    while text not in read:
        read += (more := process.stdout.read(1))
        assert more, read


def verdict(process: "subprocess.Popen[str]") -> tuple[int, str]:
    """Wait for the verdict of a run, and return it with what was printed."""
    # A forked child that hangs keeps the pipe open: so read to the last line of pytest, and not to the end.
    assert process.stdout is not None
    printed = []
    for line in process.stdout:
        printed.append(line)
        if re.search(r" in [\d.:]+s", line):
            break
    return process.wait(LIMIT_S), "".join(printed)


@pytest.mark.long
def test_each_test_that_hangs_is_red_by_its_name(tmp_path: Path) -> None:
    with inner_run(tmp_path, HANGS, "-n", "5", "-rfE", timeout=5, divisor=30) as process:
        code, printed = verdict(process)

    assert code == 1, printed
    red = set(re.findall(r"^(?:FAILED|ERROR) test_inner\.py::(\w+)", printed, re.MULTILINE))
    hanging = set(re.findall(r"^def (test_\w+)", HANGS, re.MULTILINE))
    assert red == hanging, printed
    assert "most recent call first" in printed, "the stacks of all threads"


def test_a_process_that_was_ended_is_red_while_its_child_still_runs(tmp_path: Path) -> None:
    with inner_run(tmp_path, ENDS_BEFORE_ITS_CHILD, "-n", "1", "-rf") as process:
        code, printed = verdict(process)

    assert code == 1, printed
    assert "FAILED test_inner.py::test_that_forks" in printed


@pytest.mark.long
def test_a_process_that_hangs_after_its_last_test_makes_the_run_red(tmp_path: Path) -> None:
    with inner_run(tmp_path, HANGS_AT_THE_END, "-n", "1", divisor=60) as process:
        code, printed = verdict(process)

    assert code == 1, printed
    assert "ERROR a process of the tests died: gw0" in printed
    assert "pytest_sessionfinish" in printed, "where it hung"


def test_a_run_whose_time_is_over_names_what_still_runs(tmp_path: Path) -> None:
    with inner_run(tmp_path, WAITS, "-n", "1", "-v") as process:
        eventually((tmp_path / "begun").exists, "the test runs")
        read_until(process, "test_that_waits")  # until then the controlling process doesn't know of it
        process.terminate()
        code, printed = verdict(process)

    assert code == 1, printed
    assert re.search(r"^ +\d+ s  test_inner\.py::test_that_waits", printed, re.MULTILINE), printed
    assert "in test_that_waits" in printed, "where it is"


@pytest.mark.parametrize("processes", [(), ("-n", "2")], ids=["one process", "xdist"])
def test_what_the_files_of_a_long_run_cost_is_told(tmp_path: Path, processes: tuple[str, ...]) -> None:
    with inner_run(tmp_path, COSTS, *processes) as process:
        code, printed = verdict(process)

    assert code == 0, printed
    told = re.search(r"^ +(\d+) +(\d+) +2 test_inner\.py$", printed, re.MULTILINE)
    assert told is not None, printed
    assert int(told[1]) >= 1, "seconds of the processor"


@pytest.mark.parametrize("processes", [(), ("-n", "1")], ids=["one process", "xdist"])
def test_a_failure_after_a_shared_server_died_ends_the_run_with_its_log(
    tmp_path: Path, processes: tuple[str, ...]
) -> None:
    with inner_run(tmp_path, SERVER_IS_GONE, *processes) as process:
        code, printed = verdict(process)

    assert code == 1, printed
    assert "The Redis that the tests share doesn't answer" in printed
    assert "Out of memory" in printed
    assert "1 failed in" in printed or "1 failed, 1 passed in" in printed
