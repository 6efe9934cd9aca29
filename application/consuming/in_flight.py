"""The jobs that were delivered to one consumer and aren't settled yet.

A job is queued, then running, then finished; it leaves once the broker has answered its settlement. A job
whose lease ended is lost. Several threads share the jobs. Those that run handlers start and finish them. The
consumer's own thread adds and settles them. The lease renewer's thread extends the leases (LSE-3), and learns
which were lost (LSE-4). One lock guards the states; no call to the broker and no log handler runs while it is
held. Another has settlements sent one call after the other.
"""

import threading
from collections import deque
from collections.abc import Sequence
from logging import Logger
from math import inf
from time import monotonic

from ...domain.errors import BackendUnavailable, Closed, JobsError
from ...domain.printable import printable
from ...domain.wording import quantity
from ...ports import Ack, ConsumerBackend, Dead, Delivery, Release, Retry, Settlement, SettleOutcome


class InFlight:
    """The jobs of one consumer, and how those before them were settled.

    Args:
        backend: Where they come from.
        logger: Where losses and releases are told.
    """

    def __init__(self, backend: ConsumerBackend, logger: Logger) -> None:
        self._backend = backend
        self._connection_is_lease = backend.lease_s is None
        self._lease_s = inf if backend.lease_s is None else backend.lease_s
        self._logger = logger
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._jobs: dict[str, Delivery] = {}
        """All, by their receipts: the queued, the running and the finished."""
        self._queued: deque[Delivery] = deque()
        self._running: dict[str, Delivery] = {}
        self._lost: set[str] = set()
        """The receipts of running jobs that another consumer may run too, as their leases ended."""
        self._settlements: deque[Settlement] = deque()
        """Of the finished jobs, but for those that a call to the broker is about to settle."""
        self._waiting: dict[threading.Event, int] = {}
        """Who waits until how many jobs are finished."""
        self.is_closed = False
        """Whether :meth:`close` was called, so that nothing is to be started any more."""
        self._suspects = 0
        """How many of the queued jobs were with a consumer that died."""
        self._started_s = 0.0
        self._extended_s = 0.0
        self.started = 0
        """How many jobs were started."""
        self.settled: dict[type[Settlement], int] = {Ack: 0, Retry: 0, Dead: 0, Release: 0}
        """How many were settled in each way."""
        self.lost = 0
        """How many were finished, but lost before they were settled."""

    # -- the threads that run handlers, and the consumer's -----------------------------------------

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Queue jobs that were received just now."""
        with self._lock:
            if self.is_closed:  # the backend releases them
                return
            if not self._jobs:  # else the leases of others began before
                self._extended_s = monotonic()
            self._jobs |= {delivery.receipt: delivery for delivery in deliveries}
            self._queued.extend(deliveries)
            self._suspects += len([delivery for delivery in deliveries if delivery.crashes])

    def start_next(self) -> Delivery | None:
        """Start the next queued job, once it is sure that its lease stands; None if no job is queued.

        A job that was with a consumer which died isn't started while another runs: it runs alone.
        """
        now = monotonic()
        if now - self._extended_s >= self._lease_s and self._queued:
            self._check_leases(now)
        with self._lock:
            if not self._queued:
                return None
            delivery = self._queued[0]
            if delivery.crashes:
                if self._running:
                    return None
                self._suspects -= 1
            self._started_s = now  # first: the renewer's thread reads it once a job runs
            self._running[delivery.receipt] = self._queued.popleft()
            self.started += 1
        return delivery

    def start_next_beside_others(self) -> Delivery | None:
        """Start the next queued job unless it must run alone; otherwise as :meth:`start_next`."""
        return self.start_next() if self.has_startable else None

    def start_suspect(self) -> Delivery | None:
        """Start the next queued job if it must run alone, and none runs; otherwise as :meth:`start_next`."""
        return self.start_next() if self._suspects and not self.has_startable else None

    def finish(self, settlement: Settlement) -> None:
        """Note how a running job is to be settled; :meth:`settle` tells the broker.

        A job that was released meanwhile, as its consumer stopped, stays so.
        """
        receipt = settlement.receipt
        with self._lock:
            if receipt in self._running:
                self._settlements.append(settlement)  # first: an interrupt in between may not drop it
                del self._running[receipt]
                if self._lost:
                    self._lost.discard(receipt)
                if self._waiting:
                    self._wake_waiting()

    def wait_for_finished(self, count: int, timeout_s: float) -> None:
        """Wait until ``count`` finished jobs are to be settled, or no job runs, for ``timeout_s`` at most."""
        enough = threading.Event()
        with self._lock:
            self._waiting[enough] = count
            self._wake_waiting()
        try:
            enough.wait(timeout_s)
        finally:
            with self._lock:
                del self._waiting[enough]

    def end_waits(self) -> None:
        """Make :meth:`wait_for_finished` return at once."""
        with self._lock:
            for waiting in self._waiting:
                waiting.set()

    def put_back(self, delivery: Delivery) -> None:
        """Release a job that was started instead of running it; :meth:`settle` tells the broker."""
        with self._lock:
            self.started -= 1
        self.finish(Release(delivery.receipt))

    @property
    def has_queued(self) -> bool:
        """Whether a job is left that hasn't been started."""
        return bool(self._queued)

    @property
    def has_startable(self) -> bool:
        """Whether the next queued job may run beside others."""
        try:
            return not self._queued[0].crashes
        except IndexError:  # none is queued
            return False

    @property
    def has_suspect(self) -> bool:
        """Whether a queued job was with a consumer that died, so that it must run alone."""
        return self._suspects > 0

    @property
    def unsettled(self) -> int:
        """How many settlements the broker has yet to answer."""
        return len(self._settlements)

    @property
    def queued(self) -> int:
        """How many jobs haven't been started."""
        return len(self._queued)

    @property
    def held(self) -> int:
        """How many jobs are queued or running."""
        with self._lock:
            return len(self._queued) + len(self._running)

    @property
    def started_or_queued(self) -> int:
        """How many jobs were started, or are about to be."""
        with self._lock:
            return self.started + len(self._queued)

    @property
    def is_empty(self) -> bool:
        """Whether every job is settled."""
        return not self._jobs

    def holds(self, receipt: str) -> bool:
        """Whether this job isn't settled yet."""
        return receipt in self._jobs

    @property
    def has_lost(self) -> bool:
        """Whether a job runs that is lost (LSE-4)."""
        return bool(self._lost)

    def is_lost(self, receipt: str) -> bool:
        """Whether this job runs, and is lost (LSE-4)."""
        return receipt in self._lost

    def is_job_lost(self, job_id: str) -> bool:
        """Whether a job of this id runs, and is lost (LSE-4)."""
        with self._lock:
            return any(self._running[receipt].id == job_id for receipt in self._lost)

    def release_all(self) -> None:
        """Settle the finished jobs, and release all others; raises as :meth:`settle`."""
        with self._settling, self._lock:  # no call settles any at this moment
            finished = {settlement.receipt for settlement in self._settlements}
            self._settlements.extend(Release(receipt) for receipt in self._jobs if receipt not in finished)
            self._take_queued()
            self._running.clear()
            self._lost.clear()
        self.release_queued()

    # -- either thread ----------------------------------------------------------------------------

    def settle(self, *, take: int = 0) -> list[Delivery]:
        """Settle the finished jobs, and return up to ``take`` further jobs, leased in the same round trip.

        Raises:
            BackendUnavailable: the broker is away. Call again: the settlements are kept, unless the
                connection was the lease and they are lost with it.
        """
        with self._settling:
            settlements: list[Settlement] = []
            try:
                with self._lock:
                    settlements.extend(self._settlements)
                    self._settlements.clear()
                if not settlements and not take:
                    return []
                answer = self._backend.settle(settlements, take=take)
            except BaseException as error:
                if self._is_final(error):
                    self._give_up(settlements, error)
                else:
                    with self._lock:
                        self._settlements.extendleft(reversed(settlements))
                raise
            self._count(settlements, answer.outcomes)
            self._remove(settlements)
            return answer.deliveries

    def close(self) -> None:
        """Queue no more jobs, and release the queued ones; otherwise as :meth:`settle`."""
        with self._lock:
            self.is_closed = True
        self.end_waits()
        self.release_queued()

    def release_queued(self) -> None:
        """Settle the finished jobs, and release those not started yet; raises as :meth:`settle`."""
        self._backend.release_ahead()  # first, or the broker would send here again what is released now
        with self._lock:
            released = self._release_queued()
        self.settle()
        if released:
            self._logger.info("released %s, not started yet", quantity(released, "job"))

    # -- the lease renewer's thread ---------------------------------------------------------------

    @property
    def since_extended_s(self) -> float:
        """How many seconds ago the leases began, or were extended."""
        return monotonic() - self._extended_s

    @property
    def stalled_s(self) -> float:
        """For how many seconds queued jobs have waited for those that run; 0 if none runs."""
        return monotonic() - self._started_s if self._running else 0.0

    def extend(self) -> None:
        """Extend all leases, and learn which are lost (LSE-3, LSE-4).

        Raises:
            BackendUnavailable: the broker is away.
        """
        if self._jobs:
            self._extend(monotonic())

    # -- leases -----------------------------------------------------------------------------------

    def _check_leases(self, now: float) -> None:
        """Ask which jobs are lost, as their leases may be over; release the queued ones if nobody answers.

        This happens after an outage, or if this process stood still for as long as a lease.
        """
        try:
            self._extend(now)
        except BackendUnavailable as error:
            with self._lock:
                released = self._release_queued()
            self._logger.warning(
                "not starting %s: the lease may be over, and the broker is away: %s",
                quantity(released, "job"),
                error,
            )

    def _extend(self, now: float) -> None:
        with self._lock:
            receipts = list(self._jobs)
        try:
            outcomes = self._backend.extend(receipts)
        except Closed:  # a handler closed its consumer: its job was released
            outcomes = [SettleOutcome.LOST] * len(receipts)
        lost = {
            receipt
            for receipt, outcome in zip(receipts, outcomes, strict=True)
            if outcome is SettleOutcome.LOST
        }
        for id_ in self._lose(lost):
            self._logger.warning("job %s: its lease was lost; another consumer may run it", printable(id_))
        self._extended_s = now  # last: what failed is tried again at the next look

    def _lose(self, receipts: set[str]) -> list[str]:
        """Drop the queued jobs that are lost, mark the running ones, and return the ids of all these."""
        if not receipts:
            return []
        with self._lock:
            queued = [delivery for delivery in self._queued if delivery.receipt in receipts]
            for delivery in queued:
                del self._jobs[delivery.receipt]
            self._queued = deque(delivery for delivery in self._queued if delivery.receipt not in receipts)
            self._suspects -= sum(delivery.crashes > 0 for delivery in queued)
            running = [
                delivery
                for receipt, delivery in self._running.items()
                if receipt in receipts and receipt not in self._lost
            ]
            self._lost.update(delivery.receipt for delivery in running)
        return [delivery.id for delivery in (*queued, *running)]

    # -- settlements ------------------------------------------------------------------------------

    def _wake_waiting(self) -> None:
        """Wake those who waited for as many finished jobs as there are, with the lock held."""
        finished = len(self._settlements)
        for waiting, count in self._waiting.items():
            if finished >= count or not self._running:
                waiting.set()

    def _release_queued(self) -> int:
        """Finish the queued jobs by releasing them, with the lock held; return how many."""
        queued = self._take_queued()
        self._settlements.extend([Release(delivery.receipt) for delivery in queued])
        return len(queued)

    def _take_queued(self) -> deque[Delivery]:
        """Empty the queue, with the lock held, and return what was in it."""
        queued, self._queued, self._suspects = self._queued, deque(), 0
        return queued

    def _is_final(self, error: BaseException) -> bool:
        """Whether it is no use to send settlements again after this error."""
        if isinstance(error, BackendUnavailable):
            return self._connection_is_lease
        return isinstance(error, JobsError)

    def _give_up(self, settlements: list[Settlement], error: BaseException) -> None:
        self._remove(settlements)
        if isinstance(error, BackendUnavailable):  # the connection was the lease of all
            with self._lock:
                for delivery in self._take_queued():
                    self._jobs.pop(delivery.receipt, None)
        done = sum(not isinstance(settlement, Release) for settlement in settlements)
        self.lost += done
        self._logger.warning(
            "lost %s, and couldn't release %s: %s",
            quantity(done, "settlement"),
            quantity(len(settlements) - done, "job"),
            error,
        )

    def _remove(self, settlements: list[Settlement]) -> None:
        with self._lock:
            remove = self._jobs.pop
            for settlement in settlements:
                remove(settlement.receipt, None)

    def _count(self, settlements: list[Settlement], outcomes: list[SettleOutcome]) -> None:
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            if outcome is not SettleOutcome.LOST:
                self.settled[type(settlement)] += 1
            elif not isinstance(settlement, Release):
                self.lost += 1
                self._logger.warning(
                    "job %s: its lease was lost before it was settled; another consumer may run it",
                    printable(self._jobs[settlement.receipt].id),
                )
