"""Open consumers that no call is using, kept for calls that take a single job."""

import os
import threading
import weakref
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress

from ..domain.errors import BackendUnavailable, JobsError
from .consumer import ConsumerBackend
from .settlement import Settlement

_MOST = 8
"""How many are kept, of all queues together; each may have its own connection."""


class IdleConsumers:
    """Keeps consumers open from one use to the next. Any thread may borrow one."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[tuple[str, ConsumerBackend]] = []
        """The one that was used last is the last."""
        self._deferred: weakref.WeakKeyDictionary[ConsumerBackend, list[Settlement]]
        self._deferred = weakref.WeakKeyDictionary()

    @contextmanager
    def borrowed(self, queue: str, open_one: Callable[[], ConsumerBackend]) -> Iterator[ConsumerBackend]:
        """Lend an idle consumer of ``queue``, or a new one.

        The borrower settles every delivery. What the broker defers goes into :meth:`deferred`, for the next.
        """
        consumer = self._taken(queue) or open_one()
        try:
            yield consumer
        except BackendUnavailable:  # it reconnects by itself, and to close it could take as long again
            self._keep(queue, consumer)
            raise
        except BaseException:
            _close(consumer)
            raise
        self._keep(queue, consumer)

    def deferred(self, consumer: ConsumerBackend) -> list[Settlement]:
        """Return the settlements of a consumer that the broker deferred; its borrower changes the list."""
        return self._deferred.setdefault(consumer, [])

    def close(self, queue: str) -> None:
        """Close the idle consumers of ``queue``."""
        while (consumer := self._taken(queue)) is not None:
            _close(consumer)

    def _taken(self, queue: str) -> ConsumerBackend | None:
        if os.getpid() != self._pid:  # a process that was forked: these are its parent's
            self._begin()
        with self._lock:
            places = (place for place in reversed(range(len(self._idle))) if self._idle[place][0] == queue)
            last = next(places, None)
            return None if last is None else self._idle.pop(last)[1]

    def _keep(self, queue: str, consumer: ConsumerBackend) -> None:
        with self._lock:
            self._idle.append((queue, consumer))
            surplus = self._idle.pop(0)[1] if len(self._idle) > _MOST else None
        if surplus is not None:
            _close(surplus)


def _close(consumer: ConsumerBackend) -> None:
    with suppress(JobsError):
        consumer.close()
