"""Time, as the broker of this process sees it."""

import math
import time
from typing import Any

import pytest

from mindtrace.jobs.adapters.local import ManualClock, SystemClock
from mindtrace.jobs.ports.signal_safe_event import SignalSafeEvent


def test_the_system_clock_tells_the_time_and_never_goes_back(monkeypatch: pytest.MonkeyPatch) -> None:
    """A change of the machine's date moves no deadline (LSE-5)."""
    clock = SystemClock()
    assert clock.now() == pytest.approx(time.time(), abs=60)

    moments = [clock.now() for _ in range(1000)]
    assert moments == sorted(moments)

    monkeypatch.setattr(time, "time", lambda: 0.0)
    assert clock.now() >= moments[-1]


def test_the_system_clock_waits_no_longer_than_it_is_told() -> None:
    """And no shorter, where nobody notifies; a moment that is past isn't waited for."""
    clock, wake = SystemClock(), SignalSafeEvent()
    began = time.monotonic()

    clock.wait_until(clock.now() + 0.01, wake)
    clock.wait_until(clock.now() - 3600, wake)

    assert 0.009 < time.monotonic() - began < 3600


def test_the_system_clock_can_be_told_to_wait_for_ever(background: Any, eventually: Any) -> None:
    """A wait for longer than the machine can count is no error, and can be ended."""
    clock, wake = SystemClock(), SignalSafeEvent()

    waiting = background(clock.wait_until, math.inf, wake)
    eventually(lambda: wake._waiting)
    wake.set()
    assert waiting.result() is None


def test_a_manual_clock_stands_still_until_it_is_moved() -> None:
    """Then it has moved by exactly so much."""
    clock = ManualClock(100.0)
    assert (clock.now(), clock.now()) == (100.0, 100.0)

    clock.advance(1.5)
    clock.advance(0)
    assert clock.now() == 101.5


def test_a_manual_clock_cannot_go_back() -> None:
    """A broker's clock never does."""
    with pytest.raises(ValueError, match=r"advance\(-1\): time can't go back"):
        ManualClock().advance(-1)


def test_moving_a_manual_clock_wakes_those_whose_moment_has_come(background: Any, eventually: Any) -> None:
    """Each thread goes on when it is due and no sooner, also if others wait."""
    clock = ManualClock(0.0)
    wakes = [SignalSafeEvent(), SignalSafeEvent()]

    def wait(wake: SignalSafeEvent, moment_s: float) -> float:
        clock.wait_until(moment_s, wake)
        return clock.now()

    waiting = [background(wait, *each) for each in zip(wakes, (1.0, 2.0), strict=True)]
    eventually(lambda: len(clock._waits) == 2 and all(wake._waiting for wake in wakes))

    clock.advance(1)
    assert waiting[0].result() == 1.0
    assert not waiting[1].done()
    clock.advance(1)
    assert waiting[1].result() == 2.0
    assert not clock._waits


def test_a_moment_that_is_past_is_not_waited_for() -> None:
    """The clock may have been moved since the one who waits looked at it."""
    clock, wake = ManualClock(10.0), SignalSafeEvent()

    clock.wait_until(10.0, wake)
    clock.wait_until(9.0, wake)


def test_moving_and_waiting_race_to_no_harm(background: Any) -> None:
    """Whoever waits for a moment is woken by the move that reaches it, however the two meet."""
    clock, wake = ManualClock(0.0), SignalSafeEvent()

    def wait(moment_s: float) -> None:
        while clock.now() < moment_s:
            wake.clear()
            clock.wait_until(moment_s, wake)

    for moment in range(1, 300):
        waiting = background(wait, float(moment))
        clock.advance(1)
        waiting.result(timeout=60)
