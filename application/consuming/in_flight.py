"""The jobs that were delivered to one consumer and aren't settled yet.

A job is queued, then running, then finished; it leaves once the broker has answered its settlement. A job
whose lease ended is lost. Two threads share the jobs. The consumer's own thread starts and finishes them. The
lease renewer's thread extends the leases (LSE-3), learns which were lost (LSE-4), and keeps a slow job from
holding up the others. One lock guards the states; no call to the broker and no log handler runs while it is
held. Another has settlements sent one call after the other.
"""

import threading
from collections import deque
from collections.abc import Sequence
from enum import Enum
from logging import Logger
from math import inf
from time import monotonic

from ...domain.errors import BackendUnavailable, Closed, JobsError
from ...domain.printable import printable
from ...ports import Ack, ConsumerBackend, Dead, Delivery, Release, Retry, Settlement, SettleOutcome


class JobState(Enum):
    """How far a job has come."""

    QUEUED = "queued"
    RUNNING = "running"
    FINISHED = "finished"
    """Its settlement is known, and the broker hasn't answered it yet."""
    LOST = "lost"
    """It runs, but its lease ended: another consumer may run it."""


# Module names, as Python 3.11 takes longer to look up a member of an Enum than all else here takes a job.
_QUEUED, _RUNNING, _FINISHED, _LOST = JobState


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
        self._states: dict[str, JobState] = {}
        """Of each job, by its receipt."""
        self._queued: deque[Delivery] = deque()
        self._settlements: deque[Settlement] = deque()
        """Of the finished jobs, but for those that a call to the broker is about to settle."""
        self._added: Sequence[Delivery] = ()
        """What was added last: a settlement knows its receipt alone, and people know the job's id."""
        self._is_closed = False
        self._running: Delivery | None = None
        self._started_s = 0.0
        self._extended_s = 0.0
        self.settled: dict[type[Settlement], int] = {Ack: 0, Retry: 0, Dead: 0, Release: 0}
        """How many were settled in each way."""
        self.lost = 0
        """How many were finished, but lost before they were settled."""

    # -- the consumer's thread --------------------------------------------------------------------

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Queue jobs that were received just now."""
        with self._lock:
            if self._is_closed:  # the backend releases them
                return
            self._extended_s = monotonic()
            self._added = deliveries
            self._states |= dict.fromkeys([delivery.receipt for delivery in deliveries], _QUEUED)
            self._queued.extend(deliveries)

    def start_next(self) -> Delivery | None:
        """Start the next queued job, once it is sure that its lease stands; None if no job is queued."""
        now = monotonic()
        if now - self._extended_s >= self._lease_s and self._queued:
            self._check_leases(now)
        with self._lock:
            if not self._queued:
                self._running = None
                return None
            self._started_s = now  # first: the renewer's thread reads it once a job runs
            self._running = delivery = self._queued.popleft()
            self._states[delivery.receipt] = _RUNNING
        return delivery

    def finish(self, settlement: Settlement) -> None:
        """Note how the running job is to be settled; :meth:`settle` tells the broker."""
        with self._lock:
            self._settlements.append(settlement)  # first: an interrupt in between may not drop it
            self._states[settlement.receipt] = _FINISHED

    def put_back(self) -> None:
        """Release the job that was started last instead of running it; :meth:`settle` tells the broker."""
        delivery, self._running = self._running, None
        if delivery is not None:
            with self._lock:
                self._release([delivery.receipt])

    @property
    def has_queued(self) -> bool:
        """Whether a job is left that hasn't been started."""
        return bool(self._queued)

    @property
    def unsettled(self) -> int:
        """How many settlements the broker has yet to answer."""
        return len(self._settlements)

    @property
    def running_is_lost(self) -> bool:
        """Whether the job that runs now is lost (LSE-4)."""
        delivery = self._running
        return delivery is not None and self._states.get(delivery.receipt) is _LOST

    def release_all(self) -> None:
        """Settle the finished jobs, and release all others; raises as :meth:`settle`."""
        self._running = None
        with self._lock:
            self._queued.clear()
            states = self._states.items()
            self._release([receipt for receipt, state in states if state is not _FINISHED])
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
            self._remove(settlements)
            self._count(settlements, answer.outcomes)
            return answer.deliveries

    def close(self) -> None:
        """Queue no more jobs, and release the queued ones; otherwise as :meth:`settle`."""
        with self._lock:
            self._is_closed = True
        self.release_queued()

    def release_queued(self) -> None:
        """Settle the finished jobs, and release those not started yet; raises as :meth:`settle`."""
        self._backend.release_ahead()  # first, or the broker would send here again what is released now
        with self._lock:
            released = self._release_queued()
        self.settle()
        if released:
            self._logger.info("released %d jobs before they were started", released)

    # -- the lease renewer's thread ---------------------------------------------------------------

    @property
    def since_extended_s(self) -> float:
        """How many seconds ago the leases began, or were extended."""
        return monotonic() - self._extended_s

    @property
    def running_s(self) -> float:
        """For how many seconds a job has run; 0 if none runs."""
        return 0.0 if self._running is None else monotonic() - self._started_s

    def extend(self) -> None:
        """Extend all leases, and learn which are lost (LSE-3, LSE-4).

        Raises:
            BackendUnavailable: the broker is away.
        """
        if self._states:
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
                "%d jobs aren't started: their leases may be over, and the broker is away: %s",
                released,
                error,
            )

    def _extend(self, now: float) -> None:
        with self._lock:
            receipts = list(self._states)
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
        """Drop the queued jobs that are lost, mark the running one, and return the ids of all these."""
        if not receipts:
            return []
        with self._lock:
            lost = [delivery for delivery in self._queued if delivery.receipt in receipts]
            for delivery in lost:
                del self._states[delivery.receipt]
            self._queued = deque(delivery for delivery in self._queued if delivery.receipt not in receipts)
            running = self._running
            runs = running is not None and self._states.get(running.receipt) is _RUNNING
            if running is not None and runs and running.receipt in receipts:
                self._states[running.receipt] = _LOST
                lost.append(running)
        return [delivery.id for delivery in lost]

    # -- settlements ------------------------------------------------------------------------------

    def _release(self, receipts: Sequence[str]) -> int:
        """Finish jobs by releasing them, with the lock held; return how many."""
        for receipt in receipts:
            self._settlements.append(Release(receipt))
            self._states[receipt] = _FINISHED
        return len(receipts)

    def _release_queued(self) -> int:
        queued = [delivery.receipt for delivery in self._queued]
        self._queued.clear()
        return self._release(queued)

    def _is_final(self, error: BaseException) -> bool:
        """Whether it is no use to send settlements again after this error."""
        if isinstance(error, BackendUnavailable):
            return self._connection_is_lease
        return isinstance(error, JobsError)

    def _give_up(self, settlements: list[Settlement], error: BaseException) -> None:
        self._remove(settlements)
        if isinstance(error, BackendUnavailable):  # the connection was the lease of all
            with self._lock:
                for delivery in self._queued:
                    self._states.pop(delivery.receipt, None)
                self._queued.clear()
        done = sum(not isinstance(settlement, Release) for settlement in settlements)
        self.lost += done
        self._logger.warning(
            "%d settlements lost, %d jobs not released: %s", done, len(settlements) - done, error
        )

    def _remove(self, settlements: list[Settlement]) -> None:
        with self._lock:
            remove = self._states.pop
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
                    printable(self._id_of(settlement.receipt)),
                )

    def _id_of(self, receipt: str) -> str:
        return next((delivery.id for delivery in self._added if delivery.receipt == receipt), receipt)
