"""Tells which jobs of a queue in a file have ended, also those that another process ended."""

from collections.abc import Callable

from ...ports import EndedJobs
from .wakeups import LOOK_S, Waiter


class SQLiteEndedJobs(EndedJobs):
    """Woken when jobs have ended; it isn't told which.

    Args:
        waiter: Waits for the wake-up.
        on_close: Called with the waiter when it isn't needed any more.
    """

    def __init__(self, waiter: Waiter, on_close: Callable[[Waiter], None]) -> None:
        super().__init__()
        self._waiter = waiter
        self._on_close = on_close

    def wait(self, timeout_s: float) -> None:
        self._waiter.wait(min(timeout_s, LOOK_S))

    def close(self) -> None:
        self._on_close(self._waiter)
