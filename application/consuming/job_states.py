"""The states of the jobs of one consumer, from their delivery to the answer to their settlement.

A job is queued, then running, then finished; it leaves once the broker has answered its settlement. A job
whose lease ended is lost. Several threads share the states, which one lock guards. Nothing here calls the
broker or a log handler.
"""

import threading
from collections import deque
from collections.abc import Sequence
from time import monotonic

from ...domain import RetryPolicy
from ...ports import Delivery, Release, Settlement
from ...ports.signal_safe_event import SignalSafeEvent
from ..broker.deferral import AGAIN_S, MOST_DEFERRED
from .job_permits import PermitShare

_ONE_MORE_S = 10.0
"""How often a consumer with too many jobs whose settlements are deferred takes one more."""


class JobStates:
    """Which jobs are queued, running and finished.

    Args:
        policy: Which jobs run alone.
        cancelled: The receipts of running jobs that are to be cancelled; others only read it.
        permits: The consumer's share of the permits of its process, if that limits how many handlers run.
    """

    def __init__(self, policy: RetryPolicy, cancelled: set[str], permits: PermitShare | None = None) -> None:
        self._policy = policy
        self._permits = permits
        self.cancelled = cancelled
        self._lock = threading.Lock()
        self._jobs: dict[str, Delivery] = {}
        """All, by their receipts: the queued, the running and the finished."""
        self._queued: deque[Delivery] = deque()
        self._running: dict[str, Delivery] = {}
        self._starting: set[str] = set()
        """The receipts of running jobs whose handlers haven't begun, and may never."""
        self._lost: set[str] = set()
        """The receipts of running jobs that another consumer may run too, as their leases ended."""
        self._settlements: deque[Settlement] = deque()
        """Of the finished jobs, but for those that a call to the broker is about to settle."""
        self._deferred: list[Settlement] = []
        """Those that the broker couldn't carry out yet."""
        self._deferred_until_s = 0.0
        """When to send them again."""
        self._one_more_s = 0.0
        """When to take another job, though too many are deferred."""
        self._waiting: dict[SignalSafeEvent, int] = {}
        """Who waits until how many jobs are finished."""
        self.is_closed = False
        """Whether nothing is to be started any more."""
        self._is_held = False
        self._suspects = 0
        """How many of the queued jobs must run alone."""
        self._started_s = 0.0
        self._extended_s = 0.0
        """When the leases began, or were extended."""
        self.started = 0
        """How many jobs were started whose handlers have begun; it never counts down."""

    def add(self, deliveries: Sequence[Delivery]) -> None:
        """Queue jobs that were received just now."""
        with self._lock:
            if self.is_closed:  # the backend releases them
                return
            now = monotonic()
            if not self._jobs:  # else the leases of others began before
                self._extended_s = now
            if len(self._deferred) >= MOST_DEFERRED:
                self._one_more_s = now + _ONE_MORE_S
            self._jobs.update({delivery.receipt: delivery for delivery in deliveries})
            self._suspects += sum(self.runs_alone(each) for each in deliveries if each.crashes)
            self._queued.extend(deliveries)
            if self._permits is not None:
                self._permits.bind(len(deliveries), len(self._queued) + len(self._running))
            if self._is_held:
                self._release_queued()

    def _take_deferred(self, count: int) -> list[Delivery]:
        """Take up to ``count`` jobs out of here whose release is deferred, and that may run; return them."""
        with self._lock:
            return [] if self.is_closed or self._is_held else self._without_deferred(count)

    def _without_deferred(self, count: int) -> list[Delivery]:
        at_once = [each for each in self._deferred if isinstance(each, Release) and not each.delay_s]
        jobs = [self._jobs[each.receipt] for each in at_once if each.receipt in self._jobs][:count]
        taken = {job.receipt for job in jobs}
        self._deferred = [each for each in self._deferred if each.receipt not in taken]
        for receipt in taken:
            del self._jobs[receipt]
        return jobs

    def bind_queued(self) -> None:
        """Use permits that are at hand for jobs that are queued without."""
        if self._permits is not None:
            with self._lock:
                self._permits.bind_queued(len(self._queued) + len(self._running))

    def hold(self, is_held: bool) -> None:
        """Start no job while ``is_held``: :meth:`settle` releases what is queued, and what is added."""
        with self._lock:
            self._is_held = is_held
            if is_held:
                self._release_queued()

    def begin(self, delivery: Delivery) -> bool:
        """Count a job as started whose handler begins now; return False if it was released meanwhile."""
        with self._lock:
            if delivery.receipt not in self._starting:
                return False
            self._starting.discard(delivery.receipt)
            self.started += 1
            return True

    def finish(self, settlement: Settlement) -> None:
        """Note how a running job is to be settled; :meth:`settle` tells the broker.

        A job that was released meanwhile, as its consumer stopped, stays so.
        """
        receipt = settlement.receipt
        with self._lock:
            if receipt in self._running:
                self._settlements.append(settlement)  # first: an interrupt in between may not drop it
                del self._running[receipt]
                if self._starting:
                    self._starting.discard(receipt)
                if self._lost:
                    self._lost.discard(receipt)
                if self.cancelled:
                    self.cancelled.discard(receipt)
                if self._waiting:
                    self._wake_waiting()
                if self._permits is not None:
                    self._trim_permits()

    def wait_for_finished(self, count: int, timeout_s: float) -> None:
        """Wait until ``count`` finished jobs are to be settled, or no job runs, for ``timeout_s`` at most."""
        enough = SignalSafeEvent()
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
        for waiting in tuple(self._waiting):  # without the lock, which another consumer's thread can't take
            waiting.set()

    # -- what is asked of them ----------------------------------------------------------------------

    @property
    def has_startable(self) -> bool:
        """Whether the next queued job may run beside others."""
        try:
            delivery = self._queued[0]
        except IndexError:  # none is queued
            return False
        if self._permits is not None and not self._permits.may_start(len(self._running)):
            return False
        return not (delivery.crashes and self.runs_alone(delivery))

    @property
    def has_suspect(self) -> bool:
        """Whether a queued job must run alone."""
        return self._suspects > 0

    @property
    def running(self) -> int:
        """How many jobs run."""
        return len(self._running)

    def blocking_suspects(self) -> list[str]:
        """Return the ids of the queued jobs that must run alone, if one of them is the next to start."""
        with self._lock:
            suspects = list(filter(self.runs_alone, self._queued)) if self._suspects else []
            return [each.id for each in suspects] if suspects and suspects[0] is self._queued[0] else []

    def put_off_suspects(self, delay_s: float) -> None:
        """Release the queued jobs that must run alone, with a delay; a call that settles tells the broker."""
        with self._lock:
            queued = self._take_queued()
            for delivery in queued:
                if self.runs_alone(delivery):
                    self._settlements.append(Release(delivery.receipt, delay_s))
                else:
                    self._queued.append(delivery)
            self._trim_permits()

    def runs_alone(self, delivery: Delivery) -> bool:
        """Whether a job must run alone, as it may have killed the consumers that had it (RTY-3)."""
        return self._policy.runs_alone(delivery.crashes)

    @property
    def unsettled(self) -> int:
        """How many settlements the broker has yet to answer."""
        return len(self._settlements)

    @property
    def deferred(self) -> int:
        """How many settlements the broker couldn't carry out yet, as it takes no messages at present."""
        return len(self._deferred)

    def may_take(self, count: int) -> int:
        """Return how many of ``count`` jobs may be taken, beside those whose settlements are deferred.

        Where there are too many of these, one now and then: a full queue has room for a settlement only after
        somebody has taken a job of it.
        """
        if len(self._deferred) < MOST_DEFERRED:
            return count
        return min(count, 1) if monotonic() >= self._one_more_s else 0

    @property
    def is_to_settle(self) -> bool:
        """Whether there are settlements to be sent now."""
        return bool(self._settlements or (self._deferred and monotonic() >= self._deferred_until_s))

    @property
    def is_idle(self) -> bool:
        """Whether every job is settled, or its settlement is deferred."""
        return len(self._jobs) == len(self._deferred)

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
            return self.started + len(self._starting) + len(self._queued)

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

    def is_job_cancelled(self, job_id: str) -> bool:
        """Whether a job of this id runs, and is to be cancelled (CAN-2)."""
        with self._lock:
            return any(self._running[receipt].id == job_id for receipt in self.cancelled)

    @property
    def stalled_s(self) -> float:
        """For how many seconds queued jobs have waited for those that run; 0 if none runs."""
        return monotonic() - self._started_s if self._running else 0.0

    # -- for the calls to the broker -----------------------------------------------------------------

    def _release_queued(self, *, but_suspects: bool = False) -> int:
        """Finish the queued jobs by releasing them, with the lock held; return how many.

        Args:
            but_suspects: Whether to keep those that must run alone.
        """
        released = 0
        for delivery in self._take_queued():
            if but_suspects and self.runs_alone(delivery):
                self._queued.append(delivery)
                self._suspects += 1
            else:
                self._settlements.append(Release(delivery.receipt))
                released += 1
        self._trim_permits()
        return released

    def _take_queued(self) -> deque[Delivery]:
        """Empty the queue, with the lock held, and return what was in it."""
        queued, self._queued, self._suspects = self._queued, deque(), 0
        return queued

    def _drop_queued(self, receipts: set[str]) -> list[Delivery]:
        """Take the queued jobs of these receipts out of the queue, with the lock held, and return them."""
        queued = [delivery for delivery in self._queued if delivery.receipt in receipts]
        if queued:
            self._queued = deque(each for each in self._queued if each.receipt not in receipts)
            self._suspects -= sum(map(self.runs_alone, queued))
            self._trim_permits()
        return queued

    def _trim_permits(self) -> None:
        """Give back the permits that no job here needs any more, with the lock held."""
        if self._permits is not None:
            self._permits.trim(len(self._queued) + len(self._running))

    def _lose(self, receipts: set[str]) -> list[str]:
        """Drop the queued jobs that are lost, mark the running ones, and return the ids of all these."""
        if not receipts:
            return []
        with self._lock:
            queued = self._drop_queued(receipts)
            for delivery in queued:
                del self._jobs[delivery.receipt]
            lost = (self._running.keys() & receipts) - self._lost
            self._lost |= lost
            running = [self._running[receipt] for receipt in lost]
        return [delivery.id for delivery in (*queued, *running)]

    def _take_settlements(self) -> list[Settlement]:
        """Take those that are to be sent now."""
        with self._lock:
            taken = list(self._settlements)
            self._settlements.clear()
            if self._deferred and monotonic() >= self._deferred_until_s:
                taken += self._deferred
                self._deferred.clear()
        return taken

    def _defer(self, settlements: Sequence[Settlement]) -> None:
        """Keep settlements that the broker couldn't carry out."""
        with self._lock:
            self._deferred += settlements
            self._deferred_until_s = monotonic() + AGAIN_S

    def _remove(self, settlements: Sequence[Settlement]) -> None:
        with self._lock:
            remove = self._jobs.pop
            for settlement in settlements:
                remove(settlement.receipt, None)

    def _wake_waiting(self) -> None:
        """Wake those who waited for as many finished jobs as there are, with the lock held."""
        finished = len(self._settlements)
        for waiting, count in self._waiting.items():
            if finished >= count or not self._running:
                waiting.set()
