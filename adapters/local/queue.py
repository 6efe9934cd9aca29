"""One queue in memory: every state that a job can be in, and every step between them, under one lock.

A job is *waiting* (in ``_order`` when ready, in ``_delayed`` before), *leased* (in the ``held`` of one
consumer's lease table) or *dead*. ``_live`` knows the waiting and the leased by id.
"""

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Self

from ...domain.errors import QueueNotFound
from ...domain.job_progress import Progress
from ...domain.queue import Queue
from ...ports import (
    Ack,
    Cancel,
    CancelOutcome,
    Dead,
    DeadLetter,
    Delivery,
    Failure,
    JobResult,
    JobStatus,
    Message,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    ResultStatus,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from ...ports.cancelling import outcome_of_ended
from ..shared.error_messages import consumer_closed
from ..shared.records import MAX_HISTORY
from .clock import Clock, ManualClock
from .dead_letters import DeadLetters
from .delayed import DelayedJobs
from .end_notifier import EndNotifier
from .leases import LeaseTable, LeaseTables
from .order import ORDERS, Order, StoredJob
from .results import Results

_OK = SettleOutcome.OK
_ACCEPTED = PublishStatus.ACCEPTED
_table_numbers = itertools.count(1)
"""Of this process, so that no receipt is given out again by a queue that was declared anew."""


class LocalQueue:
    """One queue: thread-safe, and all its methods but ``receive`` and ``result`` return at once."""

    def __init__(self, queue: Queue, clock: Clock, lock: threading.Lock, queues: Mapping[str, Self]) -> None:
        self.queue = queue
        self._clock = clock
        self._queues = queues
        """The queues of the namespace, by name: an ack may publish into any of them."""
        self._lock = lock
        """Shared with them. Taken itself, not by a condition, whose code an interrupt may end half-way."""
        self._changed = threading.Condition(self._lock)
        """Notified when a receiver may find a job, or must plan its waking anew."""
        self._ends = EndNotifier(self._lock, clock)
        self._receivers_waiting = 0
        self._order: Order = ORDERS[queue.kind]()
        self._delayed = DelayedJobs()
        self._live: dict[str, StoredJob] = {}
        self._tables = LeaseTables()
        self._dead = DeadLetters()
        self._results = Results()
        self._places = itertools.count(1)
        self._deleted = False

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        with self._lock:
            now = self._check_not_deleted()
            new = tuple.__new__  # half of what PublishOutcome(...) costs
            return [new(PublishOutcome, (m.id, self._admit(m, now), None, None, None)) for m in messages]

    def _admit(self, message: Message, now: float) -> PublishStatus:
        if message.id in self._live or message.id in self._dead:
            return PublishStatus.DUPLICATE
        job = StoredJob(message.id, message.body, message.priority)
        self._results.forget(job.id)
        self._make_ready(job, message.delay_s, now)
        self._live[job.id] = job  # last: after an interrupt a job that nobody can take would be a duplicate
        return _ACCEPTED

    def _make_ready(self, job: StoredJob, delay_s: float, now: float) -> None:
        job.place = next(self._places)
        if delay_s <= 0:
            self._order.add(job)
            if self._receivers_waiting:
                self._changed.notify()
            return
        due = now + delay_s
        if due < self._next_event() and self._receivers_waiting:
            self._changed.notify_all()
        self._delayed.add(job, due)

    # -- delivering -------------------------------------------------------------------------------

    def open_table(self, lease_s: float) -> LeaseTable:
        with self._lock:
            self._check_not_deleted()
            table = LeaseTable(f"{self.queue.name}-{next(_table_numbers)}", lease_s)
            self._tables.add(table)
            return table

    def receive(self, table: LeaseTable, max_jobs: int, timeout_s: float) -> list[Delivery]:
        with self._lock:
            give_up_s = monotonic() + timeout_s
            while True:
                now = self._check_open(table)
                if deliveries := self._take(table, max_jobs, now):
                    return deliveries
                remaining_s = give_up_s - monotonic()
                if table.interrupted or remaining_s <= 0:
                    table.interrupted = False
                    self._pass_on()
                    return []
                self._wait(remaining_s)

    def _wait(self, timeout_s: float) -> None:
        self._receivers_waiting += 1
        try:
            self._clock.wait_until(self._next_event(), self._changed, timeout_s)
        except BaseException:  # such as KeyboardInterrupt
            self._pass_on()
            raise
        finally:
            self._receivers_waiting -= 1

    def _pass_on(self) -> None:
        """Wake another receiver: the one that leaves may have eaten a wake-up meant for any (RCV-2)."""
        if self._receivers_waiting:
            self._changed.notify()

    def _take(self, table: LeaseTable, max_jobs: int, now: float) -> list[Delivery]:
        self._sweep(now)
        count = min(max_jobs, len(self._order))
        if count <= 0:
            return []
        lease_ends = now + table.lease_s
        if lease_ends < self._tables.next_expiry:
            if lease_ends < self._next_event() and self._receivers_waiting:
                self._changed.notify_all()
            self._tables.next_expiry = lease_ends
        return table.grant(self._order.pop, count, lease_ends)

    def _sweep(self, now: float) -> None:
        """Make ready what is due and what was leased too long (DLY-1, LSE-2)."""
        while self._delayed.first_due <= now:
            job = self._delayed.pop()
            job.place = next(self._places)
            self._order.add(job)
        for job in self._tables.expire(now) if now >= self._tables.next_expiry else ():
            if job.cancel_ttl_s is not None:
                self._end_cancelled(job, job.cancel_ttl_s, now)
                continue
            job.crashes += 1
            self._order.give_back(job)

    def _next_event(self) -> float:
        """When a job may become ready without anyone's doing."""
        return min(self._delayed.first_due, self._tables.next_expiry)

    def interrupt(self, table: LeaseTable) -> None:
        with self._lock:
            table.interrupted = True
            self._changed.notify_all()

    def close_table(self, table: LeaseTable) -> None:
        with self._lock:
            if table.closed:
                return
            now = self._clock.now()
            self._sweep(now)  # first: a lease that is over isn't ended by this
            table.closed = True
            self._tables.remove(table)
            for job in table.held.values():
                if job.cancel_ttl_s is None:
                    self._order.give_back(job)
                else:
                    self._end_cancelled(job, job.cancel_ttl_s, now)
            table.held.clear()
            self._changed.notify_all()

    # -- settling ---------------------------------------------------------------------------------

    def settle(self, table: LeaseTable, settlements: Sequence[Settlement], take: int) -> Settled:
        with self._lock:
            now = self._check_open(table)
            self._sweep(now)
            if self._ends.told:
                self._ends.note(table.ending(settlements))
            outcomes = [self._settle_one(table, settlement, now) for settlement in settlements]
            self._ends.wake()
            return Settled(outcomes, self._take(table, take, now) if take else [])

    def _settle_one(self, table: LeaseTable, settlement: Settlement, now: float) -> SettleOutcome:
        job = table.held.pop(settlement.receipt, None)
        if job is None:
            return table.why_not_held(settlement.receipt)
        if isinstance(settlement, Ack):
            if settlement.then and not all(step.queue in self._queues for step in settlement.then):
                table.hold(settlement.receipt, job)
                return SettleOutcome.REFUSED
            self._live.pop(job.id, None)
            self._results.keep(job.id, settlement, now)  # first: a next job may have the same id
            for step in settlement.then:
                self._queues[step.queue]._admit(step.message, now)
        elif isinstance(settlement, Cancel):
            self._end_cancelled(job, settlement.result_ttl_s, now)
        elif job.cancel_ttl_s is not None:
            self._end_cancelled(job, job.cancel_ttl_s, now)
            return SettleOutcome.CANCELLED
        elif isinstance(settlement, Retry):
            job.history = (*job.history, Failure(job.attempt, settlement.error))[-MAX_HISTORY:]
            job.attempt += 1
            self._make_ready(job, settlement.delay_s, now)
        elif isinstance(settlement, Dead):
            self._live.pop(job.id, None)
            self._dead.add(job, settlement, now)
        elif settlement.delay_s > 0:
            self._make_ready(job, settlement.delay_s, now)
        else:
            self._order.give_back(job)
            self._pass_on()
        return _OK

    def extend(self, table: LeaseTable, receipts: Sequence[str]) -> list[SettleOutcome]:
        with self._lock:
            now = self._check_open(table)
            self._sweep(now)
            return [table.extend(receipt, now) for receipt in receipts]

    # -- cancelling -------------------------------------------------------------------------------

    def cancel(self, ids: Sequence[str], result_ttl_s: float) -> list[CancelOutcome]:
        with self._lock:
            now = self._bring_up_to_date()
            leased = self._tables.leased()
            return [self._cancel_one(id_, leased.get(id_), result_ttl_s, now) for id_ in ids]

    def _cancel_one(
        self, job_id: str, leased: StoredJob | None, result_ttl_s: float, now: float
    ) -> CancelOutcome:
        if leased is not None:
            if leased.cancel_ttl_s is None:
                leased.cancel_ttl_s = result_ttl_s
            return CancelOutcome.REQUESTED
        if (job := self._live.get(job_id)) is not None:
            if not self._delayed.remove(job):
                self._order.remove(job)
            self._end_cancelled(job, result_ttl_s, now)
            return CancelOutcome.CANCELLED
        return outcome_of_ended(self._find_result(job_id, now))

    def _end_cancelled(self, job: StoredJob, ttl_s: float, now: float) -> None:
        self._live.pop(job.id, None)
        self._results.keep_cancelled(job.id, ttl_s, now)
        self._ends.tell([job.id])

    def report(self, table: LeaseTable, receipt: str, progress: Progress) -> None:
        with self._lock:
            if (job := table.held.get(receipt)) is not None:
                job.progress = progress

    # -- introspection and administration ---------------------------------------------------------

    def progress(self, ids: Iterable[str] | None) -> dict[str, Progress]:
        with self._lock:
            self._bring_up_to_date()
            running = self._tables.leased().items()
            told = {id_: job.progress for id_, job in running if job.progress is not None}
        return told if ids is None else {id_: told[id_] for id_ in ids if id_ in told}

    def counts(self) -> QueueCounts:
        with self._lock:
            self._bring_up_to_date()
            return QueueCounts(len(self._order), len(self._delayed), self._tables.in_flight, len(self._dead))

    def waits_for_clock(self) -> str | None:
        """Name the first delayed job, if none is ready and the clock stands still."""
        with self._lock:
            now = self._bring_up_to_date()
            stands_still = isinstance(self._clock, ManualClock) and not len(self._order)
            return self._delayed.describe_first(now) if stands_still else None

    def purge(self) -> int:
        with self._lock:
            self._bring_up_to_date()
            leased = self._tables.leased()
            purged = len(self._live) - len(leased)
            self._live = leased
            self._order = ORDERS[self.queue.kind]()
            self._delayed = DelayedJobs()
            return purged

    def delete(self) -> None:
        with self._lock:
            self._deleted = True
            self._tables.lose_all()
            self._changed.notify_all()
            self._ends.wake()

    def dead_letters(self, limit: int, offset: int) -> list[DeadLetter]:
        with self._lock:
            self._check_not_deleted()
            return self._dead.page(limit, offset)

    def redrive(self, ids: Sequence[str] | None) -> int:
        with self._lock:
            now = self._check_not_deleted()
            jobs = self._dead.take(ids)
            for job in jobs:
                fresh = StoredJob(job.id, job.body, job.priority, number=job.number)
                self._live[fresh.id] = fresh
                self._make_ready(fresh, 0, now)
            return len(jobs)

    def discard(self, ids: Sequence[str] | None) -> int:
        with self._lock:
            self._check_not_deleted()
            return len(self._dead.take(ids))

    # -- results ----------------------------------------------------------------------------------

    def result(self, job_id: str, timeout_s: float) -> JobResult | None:
        def look() -> JobResult | None:
            return self._find_result(job_id, self._check_not_deleted())

        with self._lock:
            return self._ends.wait_for(look, timeout_s)

    def status(self, job_id: str) -> JobStatus:
        with self._lock:
            now = self._bring_up_to_date()
            if job_id in self._live:
                return JobStatus.RUNNING if job_id in self._tables.leased() else JobStatus.WAITING
            found = self._find_result(job_id, now)
            return JobStatus.UNKNOWN if found is None else JobStatus(found.status)

    def results(self, ids: Sequence[str]) -> dict[str, JobResult]:
        with self._lock:
            now = self._check_not_deleted()
            return {id_: found for id_ in ids if (found := self._find_result(id_, now)) is not None}

    def tell_ends(self, ended: set[str]) -> None:
        """Add the id of each job that ends from now on to ``ended``."""
        with self._lock:
            self._check_not_deleted()
            self._ends.told.append(ended)

    def tell_no_ends(self, ended: set[str]) -> None:
        """Stop doing so."""
        with self._lock:
            self._ends.stop_telling(ended)

    def wait_for_ends(self, ended: set[str], timeout_s: float) -> set[str]:
        """Wait until there is something in ``ended``, and take it out."""

        def look() -> set[str] | None:
            self._check_not_deleted()
            return ended or None

        with self._lock:
            taken = set(self._ends.wait_for(look, timeout_s) or ())
            ended.clear()
            return taken

    def _find_result(self, job_id: str, now: float) -> JobResult | None:
        if job_id in self._live:
            return None
        if job_id in self._dead:
            return JobResult(ResultStatus.FAILED, error=self._dead[job_id][1].error)
        return self._results.find(job_id, now)

    # -- state ------------------------------------------------------------------------------------

    def _check_open(self, table: LeaseTable) -> float:
        """Return the time, unless the consumer or its queue is gone."""
        if table.closed:
            raise consumer_closed(self.queue.name)
        return self._check_not_deleted()

    def _bring_up_to_date(self) -> float:
        """Return the time, with every job where it belongs by then, unless the queue is gone."""
        self._sweep(now := self._check_not_deleted())
        return now

    def _check_not_deleted(self) -> float:
        if self._deleted:
            raise QueueNotFound(f"queue {self.queue.name!r}: deleted meanwhile")
        return self._clock.now()
