"""Signal handlers of the program that raise at any moment, as a timeout by SIGALRM may, again and again."""

import subprocess
import sys
from pathlib import Path

import pytest

from conditions import LIMIT_S

STORM = """
import asyncio, signal, sys, threading, time
from mindtrace.jobs import BatchConsumer, Consumer, JobInput, JobSchema, Limit, Orchestrator

url, kind = sys.argv[1:]

class Nothing(JobInput):
    pass

SCHEMA = JobSchema(name="counted", input=Nothing, concurrency_limit=Limit(2) if kind == "limit" else None)

class One(Consumer):
    schema = SCHEMA

    def run(self, job):
        ran.add(job.id)

class Threads(One):
    concurrency = 4

class Tasks(Consumer):
    schema = SCHEMA
    concurrency = 4

    async def run(self, job):
        await asyncio.sleep(0)
        ran.add(job.id)

class Batches(BatchConsumer):
    schema = SCHEMA
    batch_size = 8
    batch_wait_s = 0.0

    def run_batch(self, jobs):
        ran.update(job.id for job in jobs)
        return [None] * len(jobs)

class Interrupted(Exception):
    pass

def on_alarm(_, interrupted):
    if is_armed and interrupted.f_code is not storm.__code__:  # which could catch nothing as it catches one
        raise Interrupted

ran, confirmed, is_armed = set(), set(), False
signal.signal(signal.SIGALRM, on_alarm)
orchestrator = Orchestrator(url)
kinds = {"one": One, "threads": Threads, "tasks": Tasks, "batches": Batches, "limit": Threads}
consumer = kinds[kind]()
consumer.connect(orchestrator, lease_s=2.0)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.003)

def storm(work, seconds):
    global is_armed
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            is_armed = True
            work()
            is_armed = False
        except Interrupted:
            pass
        is_armed = False

storm(lambda: confirmed.add(orchestrator.publish("counted", {})), 0.1 if kind == "limit" else 0.5)
storm(lambda: consumer.consume(20, block=False), 3.0)
signal.setitimer(signal.ITIMER_REAL, 0)
consumer.consume_until_empty(in_flight_for_s=3.0)
assert confirmed <= ran, f"{len(confirmed - ran)} jobs didn't run"
counts = orchestrator.counts("counted")
assert (counts.ready, counts.delayed, counts.in_flight, counts.dead) == (0, 0, 0, 0), counts
end = time.monotonic() + 60
while threading.active_count() > 4 and time.monotonic() < end:
    time.sleep(0.05)  # a renewer of leases that was told to stop ends within its pause
assert threading.active_count() <= 4, threading.enumerate()
"""


@pytest.mark.parametrize(
    ("url", "kind"),
    [
        ("memory://", "one"),
        ("memory://", "threads"),
        ("memory://", "tasks"),
        ("memory://", "batches"),
        ("memory://", "limit"),
        ("sqlite:///{folder}/jobs.db", "one"),
        ("sqlite:///{folder}/jobs.db", "threads"),
    ],
)
def test_a_consumer_is_usable_after_a_storm_of_signal_handlers_that_raise(
    url: str, kind: str, tmp_path: Path
) -> None:
    """No job is lost or taken for malformed, nothing stays locked, and no thread is left behind."""
    command = [sys.executable, "-c", STORM, url.format(folder=tmp_path), kind]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=LIMIT_S)

    assert done.returncode == 0, done.stderr[-3000:]
