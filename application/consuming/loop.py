"""The consume loop: receive, execute, settle; the same on every backend."""

import threading
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from logging import Logger
from time import monotonic

from ...domain.errors import BackendUnavailable, JobsError, UsageError
from ...domain.printable import printable
from ...ports import Ack, ConsumerBackend, Dead, Delivery, Observer, Release, Retry
from .batch_sizer import BatchSizer
from .executor import Executor
from .in_flight import InFlight
from .lease_renewer import LeaseRenewer
from .outages import RECONNECT, RESETTLE, call_until_answered
from .settle_timer import Due, SettleTimer
from .stop_conditions import StopCondition
from .stop_request import StopRequest


@dataclass(frozen=True, slots=True)
class ConsumeStats:
    """How many deliveries of one consumer ended in which way, since it was connected."""

    attempted: int = 0
    """Deliveries that were executed."""
    done: int = 0
    retried: int = 0
    dead: int = 0
    lost: int = 0
    """Executed, but their leases were lost first: another consumer may run them too (LSE-4)."""
    released: int = 0
    """Released without being executed."""


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
        self._in_flight = InFlight(backend, logger)
        self._sizer = BatchSizer(backend.prefetch if prefetch is None else prefetch)
        self._attempted = 0
        self._runs_suspect = False
        """Whether the job that ran last was with a consumer that died: the job may have killed it."""
        self._stopping = StopRequest(backend.interrupt)
        self._running = threading.Lock()
        self._thread: int | None = None
        """Which thread runs it."""
        self.stopped = False
        """Whether the last :meth:`run` ended because it was stopped."""

    @property
    def running_is_lost(self) -> bool:
        """Whether the lease of the job that runs now was lost (LSE-4)."""
        return self._in_flight.running_is_lost

    @property
    def runs_here(self) -> bool:
        """Whether the calling thread is in :meth:`run`, in a handler, say."""
        return self._thread == threading.get_ident()

    @property
    def stats(self) -> ConsumeStats:
        """What became of the deliveries so far."""
        settled = self._in_flight.settled
        return ConsumeStats(
            attempted=self._attempted,
            done=settled[Ack],
            retried=settled[Retry],
            dead=settled[Dead],
            lost=self._in_flight.lost,
            released=settled[Release],
        )

    def stop(self) -> None:
        """End the present or the next :meth:`run` after the job that is running; from any thread."""
        self._stopping.set()

    def run(self, limit: int | None, stop_condition: StopCondition) -> int:
        """Execute up to ``limit`` deliveries, until stopped or until the stop condition holds.

        However this ends, finished jobs are settled and all others released. If the broker is away at that
        moment, they stay in flight for the next run, or for :meth:`close`.

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
                with LeaseRenewer(self._in_flight, self._backend.lease_s, self._logger):
                    self._consume(None if limit is None else start + limit, stop_condition)
            finally:  # after the renewer's end, so that nothing is released twice
                self._release_all()
        finally:
            self.stopped = self._stopping.is_set()
            self._stopping.clear()
            self._thread = None
            self._running.release()
        return self._attempted - start

    def close(self) -> None:
        """Settle what an outage left unsettled, if the broker is back, and close the consumer backend.

        If it runs on another thread, it starts no further job.
        """
        with suppress(JobsError):  # then the jobs run again when their leases end
            self._in_flight.close()
        self._backend.close()

    def _consume(self, stop_at: int | None, stop_condition: StopCondition) -> None:
        self._settle(take=0)
        waited_s: float | None = None
        while not self._stopping.is_set():
            size = self._next_size(stop_at)
            timeout_s = stop_condition(waited_s) if size else None
            if timeout_s is None:
                return
            began = monotonic()
            batch = self._receive(size, timeout_s)
            waited_s = None if batch else monotonic() - began
            while batch:
                batch = self._work_through(batch, stop_at)

    def _next_size(self, stop_at: int | None) -> int:
        size = 1 if self._runs_suspect else self._sizer.size
        return size if stop_at is None else min(size, stop_at - self._attempted)

    def _receive(self, size: int, timeout_s: float) -> list[Delivery]:
        receive = partial(self._backend.receive, size, timeout_s)
        batch = call_until_answered(receive, RECONNECT, self._stopping, self._logger)
        self._tell_polled(batch)
        return batch

    def _settle(self, *, take: int) -> list[Delivery]:
        settle = partial(self._in_flight.settle, take=take)
        return call_until_answered(settle, RESETTLE, self._stopping, self._logger)

    def _tell_polled(self, batch: list[Delivery]) -> None:
        if self._observer is not None:
            self._observer.polled(self._queue, len(batch))

    def _work_through(self, batch: list[Delivery], stop_at: int | None) -> list[Delivery]:
        """Execute ``batch``, settle it, and return the next one, taken in the same round trip."""
        in_flight, execute, stopping = self._in_flight, self._executor.execute, self._stopping
        in_flight.add(batch)
        timer = SettleTimer(may_release=self._sizer.adapts)
        executed = 0
        try:
            while not stopping.is_set() and (delivery := in_flight.start_next()) is not None:
                if delivery.crashes and not self._isolate(delivery):
                    break
                executed += 1
                in_flight.finish(execute(delivery))
                self._runs_suspect = delivery.crashes > 0
                if in_flight.has_queued and (due := timer.due()) is not None:
                    self._settle_early(timer, due)
        finally:
            self._attempted += executed
        if executed:
            self._sizer.record(executed, timer.elapsed_s)
        if stopping.is_set():
            next_batch: list[
                Delivery
            ] = []  # what is finished is settled together with the release of the rest
        else:
            next_batch = self._settle(take=self._next_size(stop_at))
        self._tell_polled(next_batch)
        return next_batch

    def _settle_early(self, timer: SettleTimer, due: Due) -> None:
        """Settle in the midst of a batch; where the broker is away, leave it to the end of the batch.

        Each try would hold up its jobs, and they may start as long as their leases stand.
        """
        try:
            if due is Due.SETTLE_AND_RELEASE:
                self._in_flight.release_queued()
            else:
                self._in_flight.settle()
        except BackendUnavailable as error:
            self._logger.debug("settlements wait for the broker: %s", error)
            timer.wait_for_end()
        else:
            timer.settled()

    def _isolate(self, delivery: Delivery) -> bool:
        """Release all other jobs, as this one may kill its consumer.

        Returns:
            Whether that is done; else the job isn't to be started.
        """
        self._logger.info(
            "job %s was with %d consumers that died: it runs alone", delivery.id, delivery.crashes
        )
        try:
            self._in_flight.release_queued()
        except BackendUnavailable as error:
            self._logger.info(
                "job %s isn't started while the broker is away: %s", printable(delivery.id), error
            )
            self._in_flight.put_back()
            return False
        return True

    def _release_all(self) -> None:
        in_flight = self._in_flight
        try:
            in_flight.release_all()
        except BackendUnavailable as error:
            self._logger.warning(
                "the broker is away: %d settlements are kept; the next consume() sends them, or close(): %s",
                in_flight.unsettled,
                error,
            )
        except JobsError as error:
            self._logger.warning("jobs in flight weren't released; their leases will run out: %s", error)
