"""Telling which jobs of a queue in memory have ended."""

from collections.abc import Collection

from ...ports import EndedJobs
from .store import QueueStore


class LocalEndedJobs(EndedJobs):
    """Told by the queue of each job that ends."""

    def __init__(self, store: QueueStore) -> None:
        super().__init__()
        self._store = store
        self._ended: set[str] = set()
        store.tell_ends(self._ended)

    def wait(self, timeout_s: float) -> Collection[str]:
        return self._store.wait_for_ends(self._ended, timeout_s)

    def close(self) -> None:
        self._store.tell_no_ends(self._ended)
