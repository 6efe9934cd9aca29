"""Requests to cancel jobs, in the coordination store: for a broker that can't take a job out by its id."""

from collections.abc import Iterable, Sequence

from ...ports import CoordinationStore
from .announcements import announce, key_of

_PREFIX = "cancel-requests/"
_KEPT_S = 7 * 86_400.0
"""For how long a request is kept; a job that waits for longer runs after all."""


class CancelRequests:
    """The requests to cancel jobs of one queue, until these have ended.

    Args:
        store: Where they are.
        queue: The queue's name.
    """

    def __init__(self, store: CoordinationStore, queue: str) -> None:
        self._store = store
        self._queue = queue

    def ask(self, ids: Iterable[str]) -> None:
        """Ask for these jobs to be cancelled, and tell the consumers that they have to look.

        Raises:
            BackendUnavailable: the store is away. Some requests may have been noted; ask again.
        """
        for id_ in ids:
            self._store.put(self._key_of(id_), b"1", ttl_s=_KEPT_S)
        announce(self._store, self._queue, kept_s=_KEPT_S)

    def among(self, ids: Sequence[str]) -> set[str]:
        """Return those of these jobs that are to be cancelled.

        Raises:
            BackendUnavailable: the store is away.
        """
        records = self._store.get([self._key_of(id_) for id_ in ids])
        return {id_ for id_ in ids if self._key_of(id_) in records}

    def forget(self, ids: Iterable[str]) -> None:
        """Forget these requests, as the jobs have ended: a new job may have the same id.

        Raises:
            BackendUnavailable: the store is away.
        """
        for id_ in ids:
            self._store.delete(self._key_of(id_))

    def forget_all(self) -> None:
        """Forget all requests of the queue, as it is deleted.

        Raises:
            BackendUnavailable: the store is away.
        """
        for key in self._store.scan(self._key_of("")):
            self._store.delete(key)
        self._store.delete(key_of(self._queue))

    def _key_of(self, job_id: str) -> str:
        return f"{_PREFIX}{self._queue}/{job_id}"
