"""The thread that reads the numbers of signals, which a process starts once."""

import os
import signal
import threading
from collections.abc import Iterator
from queue import SimpleQueue

import pytest

from conditions import LIMIT_S
from mindtrace.jobs.application.process import graceful_stop
from mindtrace.jobs.application.process import watcher as watcher_module
from mindtrace.jobs.application.process.graceful_stop import stopping_on_signals
from mindtrace.jobs.application.process.watcher import SignalWatcher


@pytest.fixture(autouse=True)
def _stays(monkeypatch: pytest.MonkeyPatch) -> None:
    """However slow the test is, the thread stays."""
    monkeypatch.setattr(watcher_module, "_IDLE_S", LIMIT_S)


@pytest.fixture
def watcher() -> Iterator[SignalWatcher]:
    watcher = SignalWatcher()
    yield watcher
    watcher.close()


def watching_threads() -> list[threading.Thread]:
    return [each for each in threading.enumerate() if each.name == "mindtrace-jobs-signals"]


def test_it_tells_what_comes_to_whoever_began_last(watcher: SignalWatcher) -> None:
    first: SimpleQueue[bytes] = SimpleQueue()
    second: SimpleQueue[bytes] = SimpleQueue()
    descriptor = watcher.begin(first.put)
    os.write(descriptor, b"\2")
    assert first.get(timeout=LIMIT_S) == b"\2"
    watcher.end()
    assert watcher.begin(second.put) == descriptor
    os.write(descriptor, b"\17")
    assert second.get(timeout=LIMIT_S) == b"\17"
    assert first.empty()


def test_what_came_before_the_end_is_told_and_nothing_after_it(watcher: SignalWatcher) -> None:
    told: list[bytes] = []
    for _ in range(200):
        descriptor = watcher.begin(told.append)
        os.write(descriptor, b"\2")
        watcher.end()
        assert told == [b"\2"]
        os.write(descriptor, b"\17")
        watcher.end()
        assert told == [b"\2"]
        told.clear()


def test_it_can_be_closed_at_any_time_and_begun_again(watcher: SignalWatcher) -> None:
    watcher.end()
    watcher.close()
    told: SimpleQueue[bytes] = SimpleQueue()
    watcher.begin(told.put)
    watcher.close()
    watcher.end()
    os.write(watcher.begin(told.put), b"\2")
    assert told.get(timeout=LIMIT_S) == b"\2"


def test_calls_that_follow_one_another_share_a_thread(
    monkeypatch: pytest.MonkeyPatch, watcher: SignalWatcher
) -> None:
    """Which ends soon after the last (CON-2)."""
    monkeypatch.setattr(graceful_stop, "signal_watcher", watcher)
    before = watching_threads()  # that of other tests may be ending

    def started() -> list[threading.Thread]:
        return [each for each in watching_threads() if each not in before]

    with stopping_on_signals(lambda: None):
        (thread,) = started()
    with stopping_on_signals(lambda: None):
        assert started() == [thread]
        monkeypatch.setattr(watcher_module, "_IDLE_S", 0.001)
    thread.join()
    assert started() == []
    with stopping_on_signals(lambda: None):
        assert len(started()) == 1


def test_a_signal_stops_what_runs_and_not_what_runs_next() -> None:
    for _ in range(50):
        stopped = threading.Event()
        with stopping_on_signals(stopped.set):
            signal.raise_signal(signal.SIGTERM)
            assert stopped.wait(LIMIT_S)
        with stopping_on_signals(lambda: pytest.fail("no signal came")):
            pass


@pytest.mark.skipif(not hasattr(os, "fork"), reason="no process can be forked here")
@pytest.mark.filterwarnings("ignore:This process:DeprecationWarning")
def test_a_forked_process_has_a_thread_of_its_own() -> None:
    """It may be forked in the midst of a call, which then ends there too."""
    stopped = threading.Event()
    child = -1
    try:
        with stopping_on_signals(lambda: None):
            child = os.fork()
        if child == 0:
            with stopping_on_signals(stopped.set):
                signal.raise_signal(signal.SIGTERM)
                stopped.wait(LIMIT_S)
                is_alone = len(watching_threads()) == 1
    finally:
        if child == 0:
            os._exit(0 if stopped.is_set() and is_alone else 1)
    assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0
