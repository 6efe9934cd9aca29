"""An event as ``threading.Event`` is one, and which no signal handler leaves locked."""

import os
import signal
import threading
import time
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
    assert event.clear()
    assert not event.wait(0.01)
    assert not event._waiting
    assert not event.clear()


def test_a_signal_handler_may_end_a_wait_by_an_error() -> None:
    class Interrupted(Exception):
        pass

    def on_signal(number: int, frame: FrameType | None) -> None:
        if not interrupted:
            interrupted.append(True)
            raise Interrupted

    def send() -> None:
        """Send it until it is handled: one that comes just before a wait is handled only after it."""
        while not interrupted:
            time.sleep(0.01)
            if event._waiting:
                os.kill(os.getpid(), signal.SIGUSR1)

    interrupted: list[bool] = []
    event = SignalSafeEvent()
    before = signal.signal(signal.SIGUSR1, on_signal)
    sending = threading.Thread(target=send)
    sending.start()
    try:
        with pytest.raises(Interrupted):
            event.wait(60.0)
    finally:
        sending.join()
        signal.signal(signal.SIGUSR1, before)
    event.set()
    assert event.wait(0.0)
