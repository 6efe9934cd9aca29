"""Open consumers that no call is using, kept for calls that take a single job."""

import os
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, field

from ..domain.errors import BackendUnavailable, JobsError
from .consumer import ConsumerBackend
from .delivery import Delivery
from .settlement import Settlement

_MOST = 8
"""How many are kept, of all queues together; each may have its own connection."""


@dataclass(slots=True)
class IdleConsumer:
    """An open consumer, and what those who borrowed it owe the broker."""

    backend: ConsumerBackend
    deferred: list[Settlement] = field(default_factory=list)
    """What the broker couldn't carry out yet."""
    kept: list[Delivery] = field(default_factory=list)
    """Jobs that had to wait, and that the broker couldn't take back yet."""

    def take_kept(self) -> list[Delivery]:
        """Return the jobs that were kept, which are the caller's from now on."""
        kept, self.kept = self.kept, []
        return kept


class IdleConsumers:
    """Keeps consumers open from one use to the next. Any thread may borrow one."""

    def __init__(self) -> None:
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._idle: list[tuple[str, IdleConsumer]] = []
        """The one that was used last is the last."""

    @contextmanager
    def borrowed(self, queue: str, open_one: Callable[[], ConsumerBackend]) -> Iterator[IdleConsumer]:
        """Lend an idle consumer of ``queue``, or a new one.

        The borrower settles every delivery, and notes for the next what he owes.
        """
        consumer = self._taken(queue) or IdleConsumer(open_one())
        try:
            yield consumer
        except BackendUnavailable:  # it reconnects by itself, and to close it could take as long again
            self._keep(queue, consumer)
            raise
        except BaseException:
            _close(consumer)
            raise
        self._keep(queue, consumer)

    def close(self, queue: str) -> None:
        """Close the idle consumers of ``queue``."""
        while (consumer := self._taken(queue)) is not None:
            _close(consumer)

    def _taken(self, queue: str) -> IdleConsumer | None:
        if os.getpid() != self._pid:  # a process that was forked: these are its parent's
            self._begin()
        with self._lock:
            places = (place for place in reversed(range(len(self._idle))) if self._idle[place][0] == queue)
            last = next(places, None)
            return None if last is None else self._idle.pop(last)[1]

    def _keep(self, queue: str, consumer: IdleConsumer) -> None:
        with self._lock:
            self._idle.append((queue, consumer))
            surplus = self._idle.pop(0)[1] if len(self._idle) > _MOST else None
        if surplus is not None:
            _close(surplus)


def _close(consumer: IdleConsumer) -> None:
    with suppress(JobsError):
        consumer.backend.close()
