"""Signals as messages."""

import fcntl
import os
import resource
import signal
import threading
from typing import Any

import pytest

from mindtrace.jobs.application.process import signal_queue as signal_queue_module
from mindtrace.jobs.application.process.signal_queue import WAKE, SignalQueue


def test_signals_and_posts_arrive_in_order() -> None:
    with SignalQueue([signal.SIGUSR1]) as signal_queue:
        signal.raise_signal(signal.SIGUSR1)
        signal_queue.post(signal.SIGTERM)
        signal_queue.post()

        assert signal_queue.wait(5) == [signal.SIGUSR1, signal.SIGTERM, WAKE]
        assert signal_queue.wait(0) == []


def test_a_post_from_a_thread_ends_the_wait() -> None:
    with SignalQueue([]) as signal_queue:
        threading.Timer(0.05, signal_queue.post).start()

        assert signal_queue.wait(3600) == [WAKE]


def test_a_signal_that_ends_a_wait_whose_time_is_over_is_returned(monkeypatch: pytest.MonkeyPatch) -> None:
    """As where the process stood still: the wait was interrupted, and has no time left to look again."""
    look = signal_queue_module.is_readable

    def interrupted(*_arguments: Any) -> bool:
        monkeypatch.setattr(signal_queue_module, "is_readable", look)
        signal.raise_signal(signal.SIGUSR1)
        return False

    with SignalQueue([signal.SIGUSR1]) as signal_queue:
        monkeypatch.setattr(signal_queue_module, "is_readable", interrupted)
        assert signal_queue.wait(0.5) == [signal.SIGUSR1]


def test_it_waits_with_any_number_of_open_files() -> None:
    """`select` knows no descriptor above 1,023."""
    with SignalQueue([]) as signal_queue:
        limit, most = resource.getrlimit(resource.RLIMIT_NOFILE)
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(4096, most), most))
        high = fcntl.fcntl(signal_queue._read, fcntl.F_DUPFD, 1500)
        os.close(signal_queue._read)
        signal_queue._read = high
        resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
        signal_queue.post()

        assert signal_queue.wait(3600) == [WAKE]


def test_more_than_it_holds_is_dropped_and_not_waited_for() -> None:
    """Whoever reads it has enough to wake for."""
    with SignalQueue([]) as signal_queue:
        for _ in range(100_000):
            signal_queue.post()
        assert signal_queue.wait(0)


def test_it_leaves_signals_as_they_were_and_takes_no_post_afterwards() -> None:
    before = signal.getsignal(signal.SIGUSR1)
    with SignalQueue([signal.SIGUSR1]) as signal_queue:
        assert signal.getsignal(signal.SIGUSR1) is not before
    signal_queue.post()

    assert signal.getsignal(signal.SIGUSR1) is before
    assert signal.set_wakeup_fd(-1) == -1
