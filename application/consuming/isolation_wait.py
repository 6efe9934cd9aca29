"""How long a job that must run alone keeps the places of other jobs empty."""

from collections.abc import Callable, Sequence
from math import inf
from time import monotonic

from .lease_renewer import SLOW_S

_AWAY = 10
"""How many times as long as it waited such a job goes back for."""


class IsolationWait:
    """Says when a job that must run alone stops waiting for those that run, and goes back to the queue.

    No other job starts while it waits. After a wait that was in vain comes a pause, ten times as long, in
    which every job that must run alone goes back at once. So the waits take less than a tenth of the time.
    Each is twice as long as the one before, and so at some time longer than the longest handler.

    Args:
        clock: The consumer's clock.
    """

    def __init__(self, clock: Callable[[], float] = monotonic) -> None:
        self._clock = clock
        self._longest_s = SLOW_S
        self._next_s = -inf
        """When the next wait may begin."""
        self._waits_for: str | None = None
        self._since_s = 0.0
        """Since when that job waits."""
        self._gone_back: set[str] = set()
        """The jobs that went back since one of them ran, or since all of them seem to have run elsewhere."""

    @property
    def pauses(self) -> bool:
        """Whether no job is to wait now."""
        return self._clock() < self._next_s

    def away_s(self, job_ids: Sequence[str]) -> float | None:
        """Return for how many seconds the jobs are to go back now; None if they wait on.

        Args:
            job_ids: The jobs at hand that must run alone. The first of them keeps a place empty.
        """
        now = self._clock()
        if now < self._next_s:
            self._gone_back.update(job_ids)
            return self._next_s - now
        if self._waits_for != job_ids[0]:
            self._begin(job_ids[0], now)
        if now - self._since_s < self._longest_s:
            return None
        self._gone_back.update(job_ids)
        away_s = _AWAY * self._longest_s
        self._next_s, self._waits_for = now + away_s, None
        self._longest_s *= 2
        return away_s

    def has_run(self) -> None:
        """Note that such a job has run."""
        self._forget()
        self._next_s = -inf

    def _begin(self, job_id: str, now: float) -> None:
        self._waits_for, self._since_s = job_id, now
        if job_id not in self._gone_back and now > self._next_s + _AWAY * self._longest_s:
            self._forget()
            self._waits_for = job_id

    def _forget(self) -> None:
        self._longest_s, self._waits_for = SLOW_S, None
        self._gone_back.clear()
