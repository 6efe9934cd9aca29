"""The times when the coordination store can't be reached."""

from collections.abc import Callable
from logging import Logger

from ...domain.errors import Closed, JobsError


class StoreOutage:
    """Knows whether to leave the store alone for now, and tells how an outage begins and ends.

    Args:
        clock: The clock of those who ask the store.
        logger: Where it is told.
        pause_s: For how many seconds nobody asks a store that didn't answer.
        means: What an outage means for jobs, in words.
    """

    def __init__(self, clock: Callable[[], float], logger: Logger, pause_s: float, means: str) -> None:
        self._clock = clock
        self._logger = logger
        self._pause_s = pause_s
        self._means = means
        self._is_on = False
        self.until_s = 0.0
        """Until when the store isn't asked again."""

    @property
    def is_on(self) -> bool:
        """Whether the store was away just now."""
        return self._clock() < self.until_s

    def begin(self, error: JobsError) -> None:
        """Note that the store didn't answer."""
        self.until_s = self._clock() + self._pause_s
        if not (self._is_on or isinstance(error, Closed)):
            self._is_on = True
            self._logger.warning("%s while the coordination store is away: %s", self._means, error)

    def end(self) -> None:
        """Note that the store answered."""
        if self._is_on:
            self._is_on = False
            self._logger.warning("the coordination store is back")
