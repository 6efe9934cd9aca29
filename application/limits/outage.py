"""The times when the coordination store can't be reached."""

from collections.abc import Callable
from logging import Logger

from ...domain.errors import BackendUnavailable

_PAUSE_S = 1.0
"""How long to wait before a store that was away is asked again."""
_RUNNING_PAUSE_S = 5.0
"""Likewise if jobs run meanwhile: they stand still for as long as a request tries to reach the store."""


class StoreOutage:
    """Knows whether to leave the store alone for now, and tells how an outage begins and ends.

    Args:
        clock: The consumer's clock.
        logger: Where it is told.
        runs_jobs: Whether jobs run uncounted meanwhile.
    """

    def __init__(self, clock: Callable[[], float], logger: Logger, *, runs_jobs: bool = False) -> None:
        self._pause_s = _RUNNING_PAUSE_S if runs_jobs else _PAUSE_S
        self._clock = clock
        self._logger = logger
        self._is_on = False
        self.until_s = 0.0
        """Until when the store isn't asked again."""

    @property
    def is_on(self) -> bool:
        """Whether the store was away just now."""
        return self._clock() < self.until_s

    def begin(self, error: BackendUnavailable) -> None:
        """Note that the store didn't answer."""
        self.until_s = self._clock() + self._pause_s
        if not self._is_on:
            self._is_on = True
            self._logger.warning("limits can't be kept while the coordination store is away: %s", error)

    def end(self) -> None:
        """Note that the store answered."""
        if self._is_on:
            self._is_on = False
            self._logger.warning("the coordination store is back")
