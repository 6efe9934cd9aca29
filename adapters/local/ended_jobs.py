"""Telling which jobs of a queue in memory have ended."""

from collections.abc import Collection

from ...ports import EndedJobs
from .queue import LocalQueue


class LocalEndedJobs(EndedJobs):
    """Told by the queue of each job that ends."""

    def __init__(self, queue: LocalQueue) -> None:
        super().__init__()
        self._queue = queue
        self._ended: set[str] = set()
        queue.tell_ends(self._ended)

    def wait(self, timeout_s: float) -> Collection[str]:
        return self._queue.wait_for_ends(self._ended, timeout_s)

    def close(self) -> None:
        self._queue.tell_no_ends(self._ended)
