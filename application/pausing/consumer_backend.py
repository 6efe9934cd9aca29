"""A consumer backend that takes no job while its queue is paused."""

import threading
from collections.abc import Callable, Sequence
from time import monotonic

from ...ports import ConsumerBackend, Delivery, Settled, Settlement
from ..consumer_decorator import ConsumerDecorator


class PausableConsumerBackend(ConsumerDecorator):
    """Passes calls on, but for those that would take jobs while it is paused.

    A ``receive`` that waits for jobs ends when it is paused; one that is called then waits until it is
    resumed.

    Args:
        inner: The other backend.
        refresh: Learns whether the queue is paused, before jobs start that came after a wait.
    """

    def __init__(self, inner: ConsumerBackend, refresh: Callable[[], None]) -> None:
        super().__init__(inner)
        self._refresh = refresh
        self._lock = threading.Lock()
        self._changed = threading.Condition(self._lock)
        self.is_receiving = False
        """Whether the other backend is waiting for jobs."""
        self._is_interrupted = False
        """Whether a ``receive`` that waits for the end of a pause is to return."""
        self.is_paused = False
        self._is_closed = False

    def pause(self) -> None:
        """Take no job from now on; this waits for nothing. Jobs that are being taken still come."""
        with self._lock:  # as `with` a condition, a signal handler that raises would leave it locked
            self.is_paused = not self._is_closed

    def end_receive(self) -> None:
        """Make a ``receive`` return that was called before it was paused."""
        if self.is_paused and self.is_receiving:
            self._inner.interrupt()

    def resume(self) -> None:
        """Take jobs again, at once."""
        with self._lock:
            self.is_paused = False
            self._changed.notify_all()

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        # In this order and without the lock, as an idle consumer's latency shows it: who pauses a queue notes
        # the pause first, and looks for a wait then, so that one of the two always sees the other.
        self.is_receiving = True
        try:
            left_s = self._wait_until_resumed(timeout_s) if self.is_paused else timeout_s
            deliveries = [] if left_s is None else self._inner.receive(max_jobs, left_s)
        finally:
            self.is_receiving = self._is_interrupted = False
        if deliveries:
            self._refresh()
        return deliveries

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        return self._inner.settle(settlements, take=0 if self.is_paused else take)

    def allow_ahead(self, limit: int) -> None:
        if not self.is_paused:
            self._inner.allow_ahead(limit)

    def interrupt(self) -> None:
        with self._lock:
            self._is_interrupted = True
            self._changed.notify_all()
        self._inner.interrupt()

    def close(self) -> None:
        with self._lock:
            self._is_closed = True  # or a look at the pauses would have a thread wait here for ever
        self.resume()
        self._inner.close()

    def _wait_until_resumed(self, timeout_s: float) -> float | None:
        """Return how much of the time is left to receive jobs; None if it is still paused by then."""
        self.is_receiving = False
        began_s = monotonic()
        with self._lock:
            self._changed.wait_for(lambda: self._is_interrupted or not self.is_paused, timeout_s)
        self.is_receiving = True
        return None if self.is_paused else max(0.0, timeout_s - (monotonic() - began_s))
