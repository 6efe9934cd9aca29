"""Signal handlers of the program that raise at any moment, as a timeout by SIGALRM may, again and again."""

import subprocess
import sys
from pathlib import Path

import pytest

from conditions import LIMIT_S

STORM = """
import signal, sys, threading, time
from mindtrace.jobs import Consumer, JobInput, JobSchema, Orchestrator

class Nothing(JobInput):
    pass

class Counting(Consumer):
    schema = JobSchema(name="counted", input=Nothing)

    def run(self, job):
        ran.add(job.id)

class Interrupted(Exception):
    pass

def on_alarm(_, interrupted):
    if is_armed and interrupted.f_code is not storm.__code__:  # which could catch nothing as it catches one
        raise Interrupted

ran, confirmed, is_armed = set(), set(), False
signal.signal(signal.SIGALRM, on_alarm)
orchestrator = Orchestrator(sys.argv[1])
consumer = Counting()
consumer.connect(orchestrator, lease_s=2.0)
signal.setitimer(signal.ITIMER_REAL, 0.01, 0.003)

def storm(work, seconds=3.0):
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

storm(lambda: confirmed.add(orchestrator.publish("counted", {})))
storm(lambda: consumer.consume(20, block=False))
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


@pytest.mark.parametrize("url", ["memory://", "sqlite:///{folder}/jobs.db"], ids=["memory", "sqlite"])
def test_a_consumer_is_usable_after_a_storm_of_signal_handlers_that_raise(url: str, tmp_path: Path) -> None:
    """No job is lost or taken for malformed, nothing stays locked, and no thread is left behind."""
    command = [sys.executable, "-c", STORM, url.format(folder=tmp_path)]
    done = subprocess.run(command, capture_output=True, encoding="utf-8", timeout=LIMIT_S)

    assert done.returncode == 0, done.stderr[-3000:]
