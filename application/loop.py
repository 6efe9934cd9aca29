"""The consume loop: receive, execute, settle; the same on every backend."""

import threading
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from logging import Logger
from math import inf
from time import monotonic

from ..domain import RetryPolicy
from ..domain.errors import BackendUnavailable, JobsError, UsageError
from ..domain.reporting import listening
from ..domain.text import printable
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
_RESETTLE = RetryPolicy(base_delay_s=0.1, max_delay_s=1.0)
"""How long to wait before settlements are sent again: not for long, as the leases of their jobs run."""


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

        However this ends, finished jobs are settled and the rest released. Where the broker is away at that
        moment, they stay in hand for the next run, or for :meth:`close`.

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
                self._release_all()
        finally:
            self.stopped = self._stopping.is_set()
            self._stopping.clear()
            self._thread = None
            self._running.release()
        return self._attempted - start

    def close(self) -> None:
        """Settle what an outage left in hand, if the broker is back, and close the consumer backend."""
        with suppress(JobsError):  # then the jobs run again when their leases end
            self._hand.settle()
        self._backend.close()

    def _feed(self, stop_at: int | None, patience: Patience) -> None:
        self._ride_out(self._hand.settle, _RESETTLE)
        waited_s: float | None = None
        while not self._stopping.is_set():
            size = self._next_size(stop_at)
            timeout_s = patience(waited_s) if size else None
            if timeout_s is None:
                return
            began = monotonic()
            batch = self._ride_out(partial(self._backend.receive, size, timeout_s), _RECONNECT)
            self._tell_polled(batch)
            waited_s = None if batch else monotonic() - began
            while batch:
                batch = self._work_through(batch, stop_at)
                self._tell_polled(batch)

    def _next_size(self, stop_at: int | None) -> int:
        size = 1 if self._suspects else self._sizer.size
        return size if stop_at is None else min(size, stop_at - self._attempted)

    def _ride_out(self, call: Callable[[], list[Delivery]], backoff: RetryPolicy) -> list[Delivery]:
        """Make a call until the broker answers it: told once each way, repeated with backoff (CON-1)."""
        tries = 0
        while True:
            try:
                batch = call()
            except BackendUnavailable as error:
                tries += 1
                if tries == 1:
                    self._logger.warning("backend unavailable, retrying until it is back: %s", error)
                if self._stopping.wait(backoff.delay_s(tries)):
                    return []
            else:
                if tries:
                    self._logger.warning("backend is back after %d tries", tries)
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
                if delivery.crashes and not self._isolate(delivery):
                    break
                executed += 1
                hand.finish(execute(delivery))
                self._suspects = delivery.crashes > 0
                if hand.has_waiting and (now := monotonic()) - flushed >= _FLUSH_S:
                    flushed = self._flush(late=self._sizer.adapts and now - began >= _LATE_S)
        finally:
            self._attempted += executed
        if executed:
            self._sizer.record(executed, monotonic() - began)
        if stopping.is_set():
            return []  # what is finished is settled together with the release of the rest
        return self._ride_out(partial(hand.settle, take=self._next_size(stop_at)), _RESETTLE)

    def _flush(self, *, late: bool) -> float:
        """Settle finished jobs, and release the others where the batch is late.

        Returns:
            When that was. Never again for this batch if the broker is away: each try would hold its jobs up,
            and they may start as long as their leases stand.
        """
        try:
            if late:
                self._hand.release_waiting()
            else:
                self._hand.settle()
        except BackendUnavailable as error:
            self._logger.debug("settlements wait for the broker: %s", error)
            return inf
        return monotonic()

    def _isolate(self, delivery: Delivery) -> bool:
        """Have nothing in hand besides a job that may kill its consumer, so that it drags no other along.

        Returns:
            Whether that is so; else the job isn't to be started.
        """
        self._logger.info(
            "job %s was with %d consumers that died: it runs alone", delivery.id, delivery.crashes
        )
        try:
            self._hand.release_waiting()
        except BackendUnavailable as error:
            self._logger.info(
                "job %s isn't started while the broker is away: %s", printable(delivery.id), error
            )
            self._hand.pass_over()
            return False
        return True

    def _release_all(self) -> None:
        hand = self._hand
        try:
            hand.release_all()
        except BackendUnavailable as error:
            self._logger.warning(
                "the broker is away: %d jobs stay in hand; the next consume() settles or releases them, or "
                "close(): %s",
                hand.pending,
                error,
            )
        except JobsError as error:
            self._logger.warning("jobs in hand weren't released; their leases will run out: %s", error)
