"""The optional port that tells which jobs have ended, for those who wait for many results."""

import time
from abc import abstractmethod
from collections.abc import Collection

from .base_classes import Closeable

_POLL_S = 0.02


class EndedJobs(Closeable):
    """Tells which jobs of one queue have ended since this was opened. One thread at a time uses it.

    It may tell of jobs that haven't ended for good, and of jobs that nobody asks for; it misses none.
    """

    @abstractmethod
    def wait(self, timeout_s: float) -> Collection[str] | None:
        """Wait until jobs end, up to ``timeout_s`` seconds, and return their ids; none after a timeout.

        Returns:
            None if it isn't known which have ended, or whether any has: look up all that you wait for.

        Raises:
            QueueNotFound: the queue was deleted.
        """

    @abstractmethod
    def close(self) -> None:
        """Close it. Closing it again does nothing."""


class UnknownEnds(EndedJobs):
    """What a backend has that can't tell: after a short pause, any job may have ended."""

    def wait(self, timeout_s: float) -> None:
        """Pause."""
        time.sleep(min(timeout_s, _POLL_S))

    def close(self) -> None:
        """Do nothing."""
