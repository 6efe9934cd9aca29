"""Who waits for the jobs of a queue in memory to end."""

import threading
from collections.abc import Callable, Iterable
from math import inf
from time import monotonic
from typing import TypeVar

from .clock import Clock

FoundT = TypeVar("FoundT")


class EndNotifier:
    """Tells of jobs that end. The caller holds the queue's lock.

    Args:
        lock: The queue's lock.
        clock: Its clock.
    """

    def __init__(self, lock: threading.Lock, clock: Clock) -> None:
        self._clock = clock
        self._changed = threading.Condition(lock)
        self.waiters = 0
        self.told: list[set[str]] = []
        """Where to put the id of each job that ends."""

    def stop_telling(self, ended: set[str]) -> None:
        """Put no ids into ``ended`` any more."""
        self.told = [each for each in self.told if each is not ended]

    def tell(self, ids: Iterable[str]) -> None:
        """Tell that these jobs ended, and wake those who wait."""
        self.note(ids)
        self.wake()

    def note(self, ids: Iterable[str]) -> None:
        """Tell that these jobs ended; :meth:`wake` wakes those who wait."""
        for ended in self.told:
            ended.update(ids)

    def wake(self) -> None:
        """Wake those who wait, so that they look."""
        if self.waiters:
            self._changed.notify_all()

    def wait_for(self, look: Callable[[], FoundT | None], timeout_s: float) -> FoundT | None:
        """Return what ``look`` finds, now or when jobs have ended; None after ``timeout_s`` seconds."""
        give_up_s = monotonic() + timeout_s
        while True:
            found = look()
            remaining_s = give_up_s - monotonic()
            if found is not None or remaining_s <= 0:
                return found
            self._wait(remaining_s)

    def _wait(self, timeout_s: float) -> None:
        self.waiters += 1
        try:
            self._clock.wait_until(inf, self._changed, timeout_s)
        finally:
            self.waiters -= 1
