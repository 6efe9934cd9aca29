"""How long a job that must run alone keeps the places of other jobs empty."""

from .lease_renewer import SLOW_S

_AWAY = 10
"""How many times as long as it waited such a job goes back for."""


class IsolationWait:
    """Says when a job that must run alone stops waiting for those that run, and goes back to the queue.

    No job starts while it waits, so its waits take a tenth of the time at most. Each is twice as long as the
    one before, and so at some time longer than the longest handler.
    """

    def __init__(self) -> None:
        self._longest_s = SLOW_S

    def away_s(self, waited_s: float) -> float | None:
        """Return for how many seconds the job is to go back now; None if it waits on.

        Args:
            waited_s: For how long it has waited.
        """
        if waited_s < self._longest_s:
            return None
        away_s = _AWAY * self._longest_s
        self._longest_s *= 2
        return away_s

    def has_run(self) -> None:
        """Note that such a job has run."""
        self._longest_s = SLOW_S
