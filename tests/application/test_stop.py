"""Stopping: the job that runs is finished, the rest in hand is given back, nothing is lost."""

import itertools
import signal
import subprocess
import sys
import textwrap
import threading
from collections.abc import Callable
from typing import Any

import pytest

from interrupts import interrupt_at
from mindtrace.jobs import BackendUnavailable, Consumer, Orchestrator

MakeConsumer = Callable[..., Consumer]


def test_stop_before_consume_makes_the_next_return_at_once(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """Once: the one after it works again."""
    orchestrator.publish("points", {})
    consumer = make_consumer()

    consumer.stop()

    assert consumer.consume() == 0
    assert consumer.consume(1) == 1


@pytest.mark.parametrize("in_main_thread", [True, False], ids=["in a signal handler", "in another thread"])
def test_stop_waits_for_no_lock(
    orchestrator: Orchestrator,
    make_consumer: MakeConsumer,
    background: Any,
    monkeypatch: pytest.MonkeyPatch,
    in_main_thread: bool,
) -> None:
    """The main thread, which a signal interrupts anywhere, may hold the lock that an interruption needs."""
    orchestrator.publish("points", {})
    lock, interrupted = threading.Lock(), threading.Event()

    def interrupt() -> None:
        with lock:
            interrupted.set()

    consumer = make_consumer()
    monkeypatch.setattr(consumer._connected().loop._stopping, "_interrupt", interrupt)
    with lock:
        if in_main_thread:
            consumer.stop()
        else:
            background(consumer.stop).result()
        assert not interrupted.is_set()

    assert consumer.consume() == 0, "the request was there at once"
    assert interrupted.is_set()
    assert consumer.consume(1) == 1


def test_stop_in_a_signal_handler_that_interrupted_the_start_of_a_thread_returns(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """Python starts a thread under a lock, which the code has that the handler interrupts."""
    orchestrator.publish("points", {})
    consumer = make_consumer()

    with threading._active_limbo_lock:  # type: ignore[attr-defined]
        consumer.stop()

    assert consumer.consume() == 0
    assert consumer.consume(1) == 1


def test_a_broker_that_can_not_be_reached_keeps_nobody_from_stopping(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The request stands, though nothing could be interrupted."""
    orchestrator.publish("points", {})
    consumer = make_consumer()

    def interrupt() -> None:
        raise BackendUnavailable("it is away")

    monkeypatch.setattr(consumer._connected().loop._stopping, "_interrupt", interrupt)
    consumer.stop()

    assert consumer.consume() == 0
    assert consumer.consume(1) == 1


def test_stop_from_a_thread_ends_a_blocked_consume(
    make_consumer: MakeConsumer, background: Any, until_blocked: Any
) -> None:
    """At once, however long the poll."""
    consumer = make_consumer(poll_timeout_s=3600)
    consuming = background(consumer.consume)
    until_blocked()

    consumer.stop()

    assert consuming.result() == 0


def test_a_stopped_consumer_waits_as_ever_afterwards(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any, until_blocked: Any
) -> None:
    """An interruption that is left over from the stop shortens nothing."""
    consumer = make_consumer(poll_timeout_s=3600)
    consumer.stop()
    consumer.consume()
    consuming = background(consumer.consume, 1)
    until_blocked()

    orchestrator.publish("points", {})

    assert consuming.result() == 1


def test_an_interrupt_at_any_point_of_a_stop_leaves_the_consumer_usable(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """It ends, consumes again, and closes: a second signal may come while the first is dealt with (CON-2)."""

    def stop_and_consume() -> None:
        consumer.stop()
        consumer.consume()

    for point in itertools.count(1):
        consumer = make_consumer()
        orchestrator.publish("points", {})
        was_interrupted = interrupt_at(point, "stop_request.py", stop_and_consume)

        consumer.consume(block=False)  # a stop that was interrupted may be left over, and end this
        consumer.consume(block=False)
        consumer.close()

        assert consumer._connection is None, point
        assert orchestrator.counts("points").in_flight == 0, point
        orchestrator.clean_queue("points")
        if not was_interrupted:
            return


@pytest.mark.usefixtures("never_slow")
@pytest.mark.parametrize("prefetch", [1, 5])
def test_stop_inside_a_handler_finishes_that_job_and_gives_the_rest_back(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, prefetch: int
) -> None:
    """In order, and without spending an attempt (SET-4, ORD-4)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(5)])

    def stop_at_1(job: Any) -> None:
        if job.payload.x == 1:
            consumer.stop()

    consumer = make_consumer(stop_at_1, prefetch=prefetch)

    assert consumer.consume() == 2
    assert (consumer.stats.done, consumer.stats.released) == (2, 3 if prefetch == 5 else 0)
    assert orchestrator.counts("points").in_flight == 0
    seen: list[tuple[float, int]] = []
    make_consumer(lambda job: seen.append((job.payload.x, job.attempt))).consume_until_empty()
    assert seen == [(2, 1), (3, 1), (4, 1)]


def test_stop_from_a_thread_waits_for_the_job_that_runs(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any
) -> None:
    """``consume`` returns after it, not in the middle."""
    orchestrator.publish_batch("points", [{}, {}])
    running, finish = threading.Event(), threading.Event()

    def wait(job: Any) -> None:
        running.set()
        finish.wait()

    consumer = make_consumer(wait, prefetch=2)
    consuming = background(consumer.consume)
    running.wait()
    consumer.stop()
    assert not consuming.done()
    finish.set()

    assert consuming.result() == 1
    assert consumer.stats.done == 1


@pytest.mark.usefixtures("never_early")
def test_a_stop_during_a_settle_gives_back_what_came_with_its_answer(
    far: Orchestrator, line: Any, make_consumer: MakeConsumer
) -> None:
    """Jobs taken in that round trip aren't started and aren't lost (SET-4)."""
    far.publish_batch("points", [{"x": n} for n in range(4)])
    consumer = make_consumer(to=far, prefetch=2)
    line.before["settle"] = lambda: line.calls["settle"] or consumer.stop()

    assert consumer.consume() == 2

    assert (consumer.stats.done, consumer.stats.released) == (2, 2)
    counts = far.counts("points")
    assert (counts.ready, counts.in_flight) == (2, 0)
    assert make_consumer(to=far).consume_until_empty() == 2


# -- signals --------------------------------------------------------------------------------------


def test_the_programs_own_signal_handling_is_left_alone(
    orchestrator: Orchestrator, make_consumer: MakeConsumer, background: Any
) -> None:
    """Defaults are put back, a handler of the program's own stays, and other threads touch nothing."""
    orchestrator.publish_batch("points", [{}, {}])
    during: list[object] = []
    consumer = make_consumer(lambda job: during.append(signal.getsignal(signal.SIGTERM)))
    before = signal.getsignal(signal.SIGTERM)

    background(consumer.consume, 1).result()
    assert during.pop() is before
    own = lambda number, frame: None  # noqa: E731
    signal.signal(signal.SIGTERM, own)
    try:
        consumer.consume(1)
        assert during.pop() is own
    finally:
        signal.signal(signal.SIGTERM, before)

    orchestrator.publish("points", {})
    consumer.consume(1)
    assert during.pop() not in (before, own)
    assert signal.getsignal(signal.SIGTERM) is before


def test_a_handler_of_signals_may_be_any_callable(
    orchestrator: Orchestrator, make_consumer: MakeConsumer
) -> None:
    """What it raises ends the call, and isn't the failure of the job that it interrupted."""

    class Stopper:
        def __call__(self, number: int, frame: object) -> None:
            raise SystemExit(3)

    orchestrator.publish("points", {})
    consumer = make_consumer(lambda job: signal.raise_signal(signal.SIGTERM))
    before = signal.signal(signal.SIGTERM, Stopper())
    try:
        with pytest.raises(SystemExit):
            consumer.consume(1)
    finally:
        signal.signal(signal.SIGTERM, before)

    assert (consumer.stats.retried, consumer.stats.released) == (0, 1)


WORKER = """
import signal, threading, time
from mindtrace.jobs import *

signal.signal(signal.SIGINT, signal.default_int_handler)  # also where a shell runs this in the background

orchestrator = Orchestrator(LocalClient())
orchestrator.register(JobSchema("points", JobInput))

class Worker(Consumer):
    def run(self, job):
        print("running", flush=True)
        {work}

worker = Worker("points")
worker.connect(orchestrator, prefetch=5, poll_timeout_s=3600)
orchestrator.publish_batch("points", [{{}}] * {jobs})
{before}
try:
    print("attempted", worker.{consume})
except KeyboardInterrupt:
    print("interrupted")
counts = orchestrator.counts("points")
print("ready", counts.ready, "in flight", counts.in_flight)
"""

UNTIL_STOPPED = "self._connection.loop._stopping.wait()"
FOR_EVER = f"""{UNTIL_STOPPED}; print('stopping', flush=True)
        while True: time.sleep(0.01)
"""
SAY_BLOCKED = """
local_queue = orchestrator.backend._queue("points")
def watch():
    while not local_queue._receivers: time.sleep(0.001)
    print("blocked", flush=True)
threading.Thread(target=watch).start()
"""


def run_worker(
    *signals: int, jobs: int = 5, work: str = "pass", before: str = "", consume: str = "consume()"
) -> tuple[int, list[str]]:
    """Run a worker in a process of its own, and answer each of its first lines with a signal."""
    source = WORKER.format(jobs=jobs, work=work, before=before, consume=consume)
    with subprocess.Popen(
        [sys.executable, "-c", textwrap.dedent(source)],
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        encoding="utf-8",
    ) as process:
        try:
            output = ""
            for number in signals:
                output += process.stdout.readline()
                process.send_signal(number)
            output += process.communicate(timeout=300)[0]
        finally:
            process.kill()
    return process.returncode, output.splitlines()


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_stops_gracefully(number: int) -> None:
    """The job that runs is finished, the four behind it are given back, and the program goes on (SET-4)."""
    assert run_worker(number, work=UNTIL_STOPPED) == (0, ["running", "attempted 1", "ready 4 in flight 0"])


ENDING_CALLS = ["consume(5)", "consume(5, block=True)", "consume(block=False)", "consume_until_empty()"]


@pytest.mark.parametrize("consume", ENDING_CALLS)
def test_a_call_that_a_signal_cuts_short_ends_as_the_signal_says(consume: str) -> None:
    """It is as graceful, but nobody takes the work for done: a test, for example, doesn't pass."""
    assert run_worker(signal.SIGINT, work=UNTIL_STOPPED, consume=consume) == (
        0,
        ["running", "interrupted", "ready 4 in flight 0"],
    )
    assert run_worker(signal.SIGTERM, work=UNTIL_STOPPED, consume=consume) == (143, ["running"])


def test_a_signal_during_the_last_job_is_not_lost() -> None:
    assert run_worker(signal.SIGINT, jobs=1, work=UNTIL_STOPPED, consume="consume(1)") == (
        0,
        ["running", "interrupted", "ready 0 in flight 0"],
    )


def test_a_signal_stops_a_consumer_that_waits_for_jobs() -> None:
    """It doesn't wait out its poll."""
    assert run_worker(signal.SIGTERM, jobs=0, before=SAY_BLOCKED) == (
        0,
        ["blocked", "attempted 0", "ready 0 in flight 0"],
    )


def test_a_signal_stops_a_consumer_whose_thread_it_does_not_interrupt() -> None:
    """As one that comes just before the thread begins to wait: Python's own handler runs after the wait."""
    to_another_thread = "signal.pthread_kill(threading.get_ident(), signal.SIGTERM)"
    before = SAY_BLOCKED.replace('print("blocked", flush=True)', to_another_thread)

    assert run_worker(jobs=0, before=before) == (0, ["attempted 0", "ready 0 in flight 0"])


OTHERS_PIPE = """
import os
read, write = os.pipe()
os.set_blocking(write, False)
signal.set_wakeup_fd(write)
signal.signal(signal.SIGUSR1, lambda number, frame: None)
"""


def test_a_program_that_has_signals_written_somewhere_hears_of_them_all_the_same() -> None:
    """As an event loop has."""
    raise_one = "signal.raise_signal(signal.SIGUSR1); print([*os.read(read, 1)] == [signal.SIGUSR1])"

    assert run_worker(jobs=1, work=raise_one, before=OTHERS_PIPE, consume="consume(1)") == (
        0,
        ["running", "True", "attempted 1", "ready 0 in flight 0"],
    )


FORKING = """
child = multiprocessing.get_context("fork").Process(target=time.sleep, args=(60,))
        child.start()
        child.terminate()
        child.join()
        print("child", child.exitcode, flush=True)
"""


def test_a_signal_to_a_process_that_a_handler_forked_is_that_process_alone() -> None:
    """It ends by it, as it would outside a consumer."""
    code, lines = run_worker(
        jobs=2, work=FORKING.strip(), before="import multiprocessing", consume="consume(2)"
    )

    assert code == 0
    assert lines == ["running", "child -15", "running", "child -15", "attempted 2", "ready 0 in flight 0"]


def test_a_second_signal_interrupts_the_handler() -> None:
    """Whoever can't wait gets KeyboardInterrupt, and even that loses no job (SET-4)."""
    assert run_worker(signal.SIGINT, signal.SIGTERM, work=FOR_EVER) == (
        0,
        ["running", "stopping", "interrupted", "ready 5 in flight 0"],
    )
