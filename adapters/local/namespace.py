"""The queues that clients of one name share within this process."""

import threading
import weakref

from ...domain.errors import InvalidInput
from ...domain.queue import Queue
from ..shared.error_messages import kind_conflict, not_declared
from .clock import Clock, SystemClock
from .coordination import Coordination
from .queue import LocalQueue, NextsLeft


class Namespace:
    """A set of queues by name. Lives as long as a client of it does."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self.coordination = Coordination(clock)
        self._queues: dict[str, LocalQueue] = {}
        self._lock = threading.Lock()
        self._queues_lock = threading.Lock()
        self._nexts_left = NextsLeft()

    def declare(self, queue: Queue) -> None:
        with self._lock:
            found = self._queues.get(queue.name)
            if found is None or found.deleted:  # the latter after an interrupt
                self._queues[queue.name] = LocalQueue(
                    queue, self.clock, self._queues_lock, self._queues, self._nexts_left
                )
            elif found.queue.kind is not queue.kind:
                raise kind_conflict(queue, found.queue.kind)

    def queues(self) -> list[Queue]:
        with self._lock:
            found = [self._queues[name] for name in sorted(self._queues)]
        return [each.queue for each in found if not each.deleted]

    def queue(self, queue: str) -> LocalQueue:
        try:
            return self._queues[queue]
        except KeyError:
            raise not_declared(queue) from None

    def delete(self, queue: str) -> None:
        with self._lock:
            self.queue(queue).delete()  # first: an interrupt must leave no queue that only its consumers know
            del self._queues[queue]


_shared: weakref.WeakValueDictionary[str, Namespace] = weakref.WeakValueDictionary()
_shared_lock = threading.Lock()


def open_namespace(name: str | None, clock: Clock | None) -> Namespace:
    """Return the namespace that ``name`` stands for, or a private one.

    Raises:
        InvalidInput: the shared namespace exists already and runs on another clock.
    """
    if name is None:
        return Namespace(clock or SystemClock())
    with _shared_lock:
        namespace = _shared.get(name)
        if namespace is None:
            namespace = _shared[name] = Namespace(clock or SystemClock())
        elif clock is not None and clock is not namespace.clock:
            raise InvalidInput(f"namespace {name!r} is open already, and runs on another clock")
        return namespace
