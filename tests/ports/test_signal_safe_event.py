"""An event as ``threading.Event`` is one, and which no signal handler leaves locked."""

import signal
import threading
from types import FrameType

import pytest

from mindtrace.jobs.ports.signal_safe_event import SignalSafeEvent


def test_a_wait_ends_once_it_is_set() -> None:
    event = SignalSafeEvent()
    assert not event.wait(0.0)
    threading.Timer(0.05, event.set).start()

    assert event.wait(60.0)
    assert event.is_set()
    assert event.wait()
    event.clear()
    assert not event.wait(0.01)
    assert not event._waiting


def test_a_signal_handler_may_end_a_wait_by_an_error() -> None:
    class Interrupted(Exception):
        pass

    def on_alarm(number: int, frame: FrameType | None) -> None:
        raise Interrupted

    event = SignalSafeEvent()
    before = signal.signal(signal.SIGALRM, on_alarm)
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.05)
        with pytest.raises(Interrupted):
            event.wait(60.0)
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
    event.set()
    assert event.wait(0.0)
