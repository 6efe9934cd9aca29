"""The consume loop: receive, execute, settle; the same on every backend."""

import threading
from dataclasses import dataclass
from logging import Logger
from time import monotonic

from ..domain import RetryPolicy
from ..domain.errors import BackendUnavailable, JobsError, UsageError
from ..domain.reporting import listening
from ..ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Observer,
    Release,
    Retry,
)
from .batching import BatchSizer
from .execution import Executor
from .hand import Hand, Keeper
from .patience import Patience
from .reporting import ProgressReporter

_FLUSH_S = 0.05
"""The longest that a settlement waits for others to share its round trip."""
_LATE_S = 0.25
"""Five times what a batch is to take: its jobs are longer than those before, and others may have some."""
_RECONNECT = RetryPolicy(base_delay_s=0.1, max_delay_s=10.0)


@dataclass(frozen=True, slots=True)
class ConsumeStats:
    """What became of the deliveries of one consumer since it was connected."""

    attempted: int = 0
    """Deliveries that were executed."""
    done: int = 0
    retried: int = 0
    dead: int = 0
    lost: int = 0
    """Executed, but no longer this consumer's when it settled them: another may run them too (LSE-4)."""
    released: int = 0
    """Given back unexecuted."""


class ConsumeLoop:
    """Feeds deliveries of one backend to one executor, on the thread that calls :meth:`run`."""

    def __init__(
        self,
        queue: str,
        backend: ConsumerBackend,
        executor: Executor,
        *,
        prefetch: int | None,
        logger: Logger,
        observer: Observer | None = None,
    ) -> None:
        self._queue = queue
        self._backend = backend
        self._executor = executor
        self._observer = observer
        self._logger = logger
        self._hand = Hand(backend, logger)
        self._sizer = BatchSizer(backend.prefetch if prefetch is None else prefetch)
        self._attempted = 0
        self._suspects = False
        """Whether the job that ran last was with a consumer before that died: it may have killed it."""
        self._stopping = threading.Event()
        self._running = threading.Lock()
        self._thread: int | None = None
        """Which thread runs it."""
        self.stopped = False
        """Whether the last :meth:`run` ended because it was stopped."""

    @property
    def current_is_lost(self) -> bool:
        """Whether the lease of the job that runs now was lost (LSE-4)."""
        return self._hand.current_is_lost

    @property
    def runs_here(self) -> bool:
        """Whether the calling thread is in :meth:`run`, in a handler, say."""
        return self._thread == threading.get_ident()

    @property
    def stats(self) -> ConsumeStats:
        """What became of the deliveries so far."""
        settled = self._hand.settled
        return ConsumeStats(
            attempted=self._attempted,
            done=settled[Ack],
            retried=settled[Retry],
            dead=settled[Dead],
            lost=self._hand.lost,
            released=settled[Release],
        )

    def stop(self) -> None:
        """End the present or the next :meth:`run` after the job that is running; from any thread."""
        self._stopping.set()
        self._backend.interrupt()

    def run(self, limit: int | None, patience: Patience) -> int:
        """Execute up to ``limit`` deliveries, or until stopped or out of patience.

        What is in hand is settled, and the rest released, however this ends.

        Returns:
            How many deliveries were executed.

        Raises:
            QueueNotFound: the queue was deleted.
            Closed: the consumer backend was closed.
            UsageError: it is running already.
        """
        if not self._running.acquire(blocking=False):
            raise UsageError("this consumer is consuming already: give each thread a consumer of its own")
        start = self._attempted
        self._thread = threading.get_ident()
        try:
            try:
                reporter = ProgressReporter(self._backend, self._hand.current, self._logger)
                with Keeper(self._hand, self._backend.lease_s, self._logger), listening(reporter):
                    self._feed(None if limit is None else start + limit, patience)
            finally:  # with the keeper gone, so that nothing is released twice
                self._give_back_all()
        finally:
            self.stopped = self._stopping.is_set()
            self._stopping.clear()
            self._thread = None
            self._running.release()
        return self._attempted - start

    def _feed(self, stop_at: int | None, patience: Patience) -> None:
        waited_s: float | None = None
        while not self._stopping.is_set():
            size = self._next_size(stop_at)
            timeout_s = patience(waited_s) if size else None
            if timeout_s is None:
                return
            began = monotonic()
            batch = self._receive(size, timeout_s)
            waited_s = None if batch else monotonic() - began
            while batch:
                batch = self._work_through(batch, stop_at)
                self._tell_polled(batch)

    def _next_size(self, stop_at: int | None) -> int:
        size = 1 if self._suspects else self._sizer.size
        return size if stop_at is None else min(size, stop_at - self._attempted)

    def _receive(self, size: int, timeout_s: float) -> list[Delivery]:
        """Receive, and ride out a broker that is away: told once, tried again with backoff (CON-1)."""
        tries = 0
        while True:
            try:
                batch = self._backend.receive(size, timeout_s)
            except BackendUnavailable as error:
                tries += 1
                if tries == 1:
                    self._logger.warning("backend unavailable, retrying until it is back: %s", error)
                if self._stopping.wait(_RECONNECT.delay_s(tries)):
                    return []
            else:
                if tries:
                    self._logger.warning("backend is back after %d tries", tries)
                self._tell_polled(batch)
                return batch

    def _tell_polled(self, batch: list[Delivery]) -> None:
        if self._observer is not None:
            self._observer.polled(self._queue, len(batch))

    def _work_through(self, batch: list[Delivery], stop_at: int | None) -> list[Delivery]:
        """Execute ``batch``, settle it, and return the next one, taken in the same round trip."""
        hand, execute, stopping = self._hand, self._executor.execute, self._stopping
        hand.take(batch)
        began = flushed = monotonic()
        executed = 0
        try:
            while not stopping.is_set() and (delivery := hand.start_next()) is not None:
                if delivery.crashes:
                    self._isolate(delivery)
                executed += 1
                hand.finish(execute(delivery))
                self._suspects = delivery.crashes > 0
                if hand.has_waiting and (now := monotonic()) - flushed >= _FLUSH_S:
                    if self._sizer.adapts and now - began >= _LATE_S:
                        hand.give_back_waiting()
                    else:
                        hand.settle()
                    flushed = monotonic()
        finally:
            self._attempted += executed
        if executed:
            self._sizer.record(executed, monotonic() - began)
        return hand.settle(take=0 if stopping.is_set() else self._next_size(stop_at))

    def _isolate(self, delivery: Delivery) -> None:
        """Have nothing in hand besides a job that may kill its consumer, so that it drags no other along."""
        self._logger.info(
            "job %s was with %d consumers that died: it runs alone", delivery.id, delivery.crashes
        )
        self._hand.give_back_waiting()

    def _give_back_all(self) -> None:
        try:
            self._hand.give_back_all()
        except JobsError as error:
            self._logger.warning("jobs in hand weren't released; their leases will run out: %s", error)
