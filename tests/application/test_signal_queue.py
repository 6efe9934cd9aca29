"""Signals as messages."""

import select
import signal
import threading
from typing import Any

import pytest

from mindtrace.jobs.application.signals.signal_queue import WAKE, SignalQueue


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
    look = select.select

    def interrupted(*arguments: Any) -> Any:
        monkeypatch.setattr(select, "select", look)
        signal.raise_signal(signal.SIGUSR1)
        return [], [], []

    with SignalQueue([signal.SIGUSR1]) as signal_queue:
        monkeypatch.setattr(select, "select", interrupted)
        assert signal_queue.wait(0.5) == [signal.SIGUSR1]


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
