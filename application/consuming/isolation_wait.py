"""How long a job that must run alone keeps the places of other jobs empty."""

from collections.abc import Callable
from math import inf
from time import monotonic

from .lease_renewer import SLOW_S

_AWAY = 10
"""How many times as long as it waited such a job goes back for."""


class IsolationWait:
    """Says when a job that must run alone stops waiting for those that run, and goes back to the queue.

    No job starts while it waits. After a wait in vain, no such job waits for ten times as long, whichever it
    is: those that come earlier go back at once. So the waits take less than a tenth of the time. Each is
    twice as long as the one before, and so at some time longer than the longest handler.

    Args:
        clock: The consumer's clock.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._longest_s = SLOW_S
        self._next_s = -inf
        """When the next wait may begin."""

    def away_s(self, waited_s: float) -> float | None:
        """Return for how many seconds the job is to go back now; None if it waits on.

        Args:
            waited_s: For how long it has kept others from starting.
        """
        now = self._clock()
        if now < self._next_s:
            return self._next_s - now
        if now - waited_s > self._next_s + _AWAY * self._longest_s:  # the last such job ran elsewhere
            self._longest_s = SLOW_S
        if waited_s < self._longest_s:
            return None
        away_s = _AWAY * self._longest_s
        self._longest_s *= 2
        self._next_s = now + away_s
        return away_s

    def has_run(self) -> None:
        """Note that such a job has run."""
        self._longest_s = SLOW_S
        self._next_s = -inf
