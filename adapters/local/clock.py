"""Time, as the broker of this process sees it: the machine's, or a test's."""

import threading
import time
from dataclasses import dataclass
from math import inf
from typing import Protocol

from ...ports.signal_safe_event import SignalSafeEvent


class Clock(Protocol):
    """What a queue needs of time: the moment, and a way for a thread to wait for a later one."""

    def now(self) -> float:
        """Seconds since 1970; never goes back."""

    def wait_until(self, moment_s: float, wake: SignalSafeEvent, timeout_s: float = inf) -> None:
        """Wait until ``wake`` is set or ``moment_s`` has come.

        And no longer than ``timeout_s`` seconds, by the machine's clock: a caller's patience is no matter of
        the queue's time.
        """


class SystemClock:
    """The machine's monotonic clock, set once by its calendar clock: a change of date moves no deadline."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset_s + time.monotonic()

    def wait_until(self, moment_s: float, wake: SignalSafeEvent, timeout_s: float = inf) -> None:
        wake.wait(min(moment_s - self.now(), timeout_s, threading.TIMEOUT_MAX))


class ManualClock:
    """A clock that stands still until it is moved: for tests of leases and delays without sleeping.

    Delays, leases and the time that results are kept pass by this clock. Timeouts of calls, such as
    ``poll_timeout_s``, pass by the machine's: a call ends though nobody moves this one.
    """

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self._now_s = start_s
        self._waits: set[_Wait] = set()
        self._lock = threading.Lock()

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``, 0 or more, and wake the threads whose moment has come, and no others."""
        if seconds < 0:
            raise ValueError(f"advance({seconds!r}): time can't go back")
        with self._lock:
            self._now_s += seconds
            due = self._due()
        for wake in due:
            wake.set()

    def _due(self) -> set[SignalSafeEvent]:
        """Return what those wait on whose moment has come, with the lock held."""
        return {wait.wake for wait in self._waits if wait.moment_s <= self._now_s}

    def wait_until(self, moment_s: float, wake: SignalSafeEvent, timeout_s: float = inf) -> None:
        wait = _Wait(moment_s, wake)
        with self._lock:  # so that `advance` either has moved the clock by now, or sees this wait
            if moment_s <= self._now_s:
                return
            self._waits.add(wait)
        try:
            wake.wait(min(timeout_s, threading.TIMEOUT_MAX))
        finally:
            with self._lock:
                self._waits.discard(wait)


@dataclass(frozen=True, eq=False, slots=True)
class _Wait:
    """A thread that waits, and until when."""

    moment_s: float
    wake: SignalSafeEvent
