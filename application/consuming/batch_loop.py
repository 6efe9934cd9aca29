"""Jobs in batches: collect some, run them at once on the thread that consumes, settle each."""

from contextlib import suppress
from logging import Logger
from time import monotonic

from ...domain.errors import BackendUnavailable
from ...ports import ConsumerBackend, Delivery, Observer
from .batch_executor import BatchExecutor
from .batch_size_limit import BatchSizeLimit
from .hooks import ConsumerHooks
from .job_permits import PermitShare
from .prefetch_sizer import PrefetchSizer
from .sequential_loop import SequentialLoop


class BatchLoop(SequentialLoop):
    """Runs one batch after the other: up to ``batch_size`` jobs, or those that come within ``wait_s``.

    A job that must run alone, as it may have killed the consumers that had it, runs in a batch of one, while
    no other job is in flight here.

    Args:
        batch_size: How many jobs a batch has at most.
        wait_s: For how many seconds a batch that isn't full waits for more.
    """

    def __init__(
        self,
        queue: str,
        backend: ConsumerBackend,
        executor: BatchExecutor,
        *,
        batch_size: int,
        wait_s: float,
        logger: Logger,
        observer: Observer | None = None,
        permits: PermitShare | None = None,
        hooks: ConsumerHooks | None = None,
    ) -> None:
        super().__init__(
            queue,
            backend,
            executor,
            sizer=PrefetchSizer(batch_size),
            logger=logger,
            observer=observer,
            permits=permits,
            hooks=hooks,
        )
        self._batches = executor
        self._memory = BatchSizeLimit(batch_size)
        self._wait_s = wait_s

    def is_lost(self, job_id: str) -> bool:
        """Whether the lease of this job, which runs here, was lost (LSE-4)."""
        return self._in_flight.is_job_lost(job_id)

    def is_cancelled(self, job_id: str) -> bool:
        """Whether this job, which runs here, is to be cancelled (CAN-2)."""
        return self._in_flight.is_job_cancelled(job_id)

    def _stop_handlers(self, receipts: set[str]) -> None:
        """Do nothing: the other jobs of the batch go on."""

    def _begin_permits(self, permits: PermitShare) -> None:
        """A batch takes one permit."""
        permits.begin(1, in_batches=True, interrupt=self._backend.interrupt, wake=lambda: None)

    def _work_through(self, batch: list[Delivery], stop_at: int | None) -> list[Delivery]:
        """Collect more jobs to these, run them, settle them, and return the first of the next batch."""
        self._collect(batch, stop_at)
        if self._stops():
            return []  # what was collected is released
        self._run_batch(self._start_batch())
        if self._stops():
            return []  # what is finished is settled at the end
        return self._settle_and_take(self._next_size(stop_at))

    def _stops(self) -> bool:
        """Whether it was asked to stop, by any thread at any moment."""
        return self._stopping.is_set

    # -- collecting ---------------------------------------------------------------------------------

    def _next_size(self, stop_at: int | None) -> int:
        """Return how many more jobs to take for the batch that is being collected."""
        in_flight = self._in_flight
        room = (1 if self._runs_suspect else self._memory.size) - in_flight.queued
        return room if stop_at is None else min(room, stop_at - in_flight.started_or_queued)

    def _collect(self, deliveries: list[Delivery], stop_at: int | None) -> None:
        """Queue jobs, and those that come soon, until the batch is full or one came that must run alone."""
        give_up_s = monotonic() + self._wait_s
        while deliveries:
            self._in_flight.add(deliveries)
            if any(map(self._in_flight.runs_alone, deliveries)):
                return
            asked_for_one, self._runs_suspect = self._runs_suspect, False
            room, wait_s = self._next_size(stop_at), give_up_s - monotonic()
            if room <= 0 or self._stops() or (wait_s <= 0 and not asked_for_one):
                return
            deliveries = self._receive_more(room, max(0.0, wait_s))

    def _receive_more(self, room: int, wait_s: float) -> list[Delivery]:
        """Wait for more jobs; for none where the broker is away, as those here can run."""
        try:
            deliveries = self._receive_some(room, wait_s)
        except BackendUnavailable as error:
            self._logger.debug("the batch is run as it is while the broker is away: %s", error)
            return []
        self._tell_polled(deliveries)
        return deliveries

    # -- running ------------------------------------------------------------------------------------

    def _start_batch(self) -> list[Delivery]:
        """Start what was collected, up to a job that must run alone; or that job."""
        in_flight = self._in_flight
        batch: list[Delivery] = []
        while (delivery := in_flight.start_next()) is not None:
            if not in_flight.runs_alone(delivery):
                batch.append(delivery)
            elif self._isolate(delivery) and in_flight.begin(delivery):
                return [delivery]
        if in_flight.queued:  # a crash of the batch would be charged to what waits behind it, too
            with suppress(BackendUnavailable):  # it is released with the next settlements
                in_flight.release_queued()
        return batch

    def _run_batch(self, batch: list[Delivery]) -> None:
        if not batch:
            return
        self._runs_suspect = self._in_flight.runs_alone(batch[0])
        for settlement in self._batches.execute_batch(batch, self._memory):
            self._in_flight.finish(settlement)
