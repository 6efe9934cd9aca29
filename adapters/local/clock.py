"""Time, as the broker of this process sees it: the machine's, or a test's."""

import threading
import time
import weakref
from typing import Protocol


class Clock(Protocol):
    """What a queue needs of time: the moment, and conditions on which a thread can wait for a later one."""

    def now(self) -> float:
        """Seconds since 1970; never goes back."""

    def condition(self, lock: threading.Lock) -> threading.Condition:
        """A condition on ``lock`` for :meth:`wait`."""

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        """Wait on ``condition``, which is held, until notified or ``timeout_s`` has passed on this clock."""


class SystemClock:
    """The machine's monotonic clock, set once by its calendar clock: a change of date moves no deadline."""

    def __init__(self) -> None:
        self._offset_s = time.time() - time.monotonic()

    def now(self) -> float:
        return self._offset_s + time.monotonic()

    def condition(self, lock: threading.Lock) -> threading.Condition:
        return threading.Condition(lock)

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        condition.wait(min(timeout_s, threading.TIMEOUT_MAX))


class ManualClock:
    """A clock that stands still until it is moved: for tests of leases and delays without sleeping."""

    def __init__(self, start_s: float = 1_700_000_000.0) -> None:
        self._now_s = start_s
        self._conditions: weakref.WeakSet[threading.Condition] = weakref.WeakSet()

    def now(self) -> float:
        return self._now_s

    def advance(self, seconds: float) -> None:
        """Move on by ``seconds``, 0 or more, and wake every thread whose moment has come."""
        if seconds < 0:
            raise ValueError(f"advance({seconds!r}): time can't go back")
        self._now_s += seconds
        for condition in list(self._conditions):
            with condition:
                condition.notify_all()

    def condition(self, lock: threading.Lock) -> threading.Condition:
        # Registered here and not in `wait`: a waiter holds the lock from reading the time until it waits,
        # so `advance`, which needs that lock, can't slip in between unseen.
        condition = threading.Condition(lock)
        self._conditions.add(condition)
        return condition

    def wait(self, condition: threading.Condition, timeout_s: float) -> None:
        condition.wait()
