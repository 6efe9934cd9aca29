"""One queue in memory: every state that a job can be in, and every step between them, under one lock.

A job is *waiting* (in ``_order`` when ready, in ``_delayed`` before), *leased* (in the ``held`` of one
consumer's lease table) or *dead*. ``_live`` knows the waiting and the leased by id.

An interrupt (Ctrl-C, a signal handler that raises) may end any of these steps. Python looks for signals where
a call returns, where a function begins and where a loop goes back; never between plain assignments. So a step
changes what decides where a job belongs (``_live``, ``held``, ``_dead``, ``due``) in assignments that no call
parts. The job that it moves is in ``_moving`` meanwhile, and the next call puts it where it belongs.
"""

import itertools
import threading
from collections.abc import Iterable, Mapping, Sequence
from time import monotonic
from typing import Self, TypeVar

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
    Next,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    Release,
    ResultStatus,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from ...ports.cancelling import outcome_of_ended
from ...ports.signal_safe_event import SignalSafeEvent
from ..shared.error_messages import consumer_closed
from ..shared.records import MAX_HISTORY
from .clock import Clock, ManualClock
from .ended import DeadLetters, EndNotifier, Results, StoredLetter
from .leases import LeaseTable, LeaseTables
from .order import ORDERS, DelayedJobs, Order, StoredJob
from .waits import Waits

RecordT = TypeVar("RecordT")

_OK = SettleOutcome.OK
_ACCEPTED = PublishStatus.ACCEPTED
_table_numbers = itertools.count(1)
"""Of this process, so that no receipt is given out again by a queue that was declared anew."""


class NextsLeft:
    """What the ack or the death of a job that is gone still has to publish, if an interrupt ended it.

    The queues of a namespace share it: the one that is used first publishes them. Else the queue of such a
    job wouldn't have it yet; or would have it again, if it was published, taken and done meanwhile.
    """

    __slots__ = ("nexts",)

    def __init__(self) -> None:
        self.nexts: tuple[Next, ...] = ()


class LocalQueue:
    """One queue: thread-safe, and all its methods but ``receive`` and ``result`` return at once."""

    def __init__(
        self, queue: Queue, clock: Clock, lock: threading.Lock, queues: Mapping[str, Self], left: NextsLeft
    ) -> None:
        self.queue = queue
        self._clock = clock
        self._queues = queues
        """The queues of the namespace, by name: an ack or a death may publish into any of them."""
        self._lock = lock
        """Shared with them. Taken itself, not by a condition, whose code an interrupt may end half-way."""
        self._receivers = Waits()
        """Notified when a receiver may find a job, or must plan its waking anew."""
        self._ends = EndNotifier(self._lock, clock)
        self._order: Order = ORDERS[queue.kind]()
        self._delayed = DelayedJobs()
        self._live: dict[str, StoredJob] = {}
        self._tables = LeaseTables()
        self._dead = DeadLetters()
        self._results = Results()
        self._places = itertools.count(1)
        self.deleted = False
        self._moving: StoredJob | None = None
        """The job that is being moved; left over by an interrupt if no call is under way."""
        self._left = left

    # -- publishing -------------------------------------------------------------------------------

    def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        with self._lock:
            now = self._check_not_deleted()
            new = tuple.__new__  # half of what PublishOutcome(...) costs
            outcomes = [new(PublishOutcome, (m.id, self._admit(m, now), None, None, None)) for m in messages]
            self._moving = None
            return outcomes

    def publish_with(
        self, message: Message, records: dict[str, RecordT], key: str, record: RecordT
    ) -> PublishOutcome:
        """Publish a message and write a record of the coordination store: both or, if it raises, neither."""
        with self._lock:
            now = self._check_not_deleted()
            if (job := self._new_job(message, now)) is None:
                records[key] = record
                return PublishOutcome(message.id, PublishStatus.DUPLICATE)
            self._moving = self._live[job.id] = job
            records[key] = record
            self._results.forget(job.id)
            self._line_up(job)
            self._moving = None
            return PublishOutcome(message.id, _ACCEPTED)

    def _admit(self, message: Message, now: float) -> PublishStatus:
        if (job := self._new_job(message, now)) is None:
            return PublishStatus.DUPLICATE
        self._moving = self._live[job.id] = job
        self._results.forget(job.id)
        self._line_up(job)
        return _ACCEPTED

    def _new_job(self, message: Message, now: float) -> StoredJob | None:
        """Return the job of a message; None if there is one of the same id."""
        if message.id in self._live or message.id in self._dead:
            return None
        due = now + message.delay_s if message.delay_s > 0 else 0.0
        return StoredJob(message.id, message.body, message.priority, next(self._places), due)

    def _line_up(self, job: StoredJob) -> None:
        """Put a job where it waits, as its ``place`` and ``due`` say."""
        if not job.due:
            self._order.add(job)
            if self._receivers:
                self._receivers.notify()
            return
        if job.due < self._next_event():
            self._receivers.notify_all()
        self._delayed.add(job)

    # -- delivering -------------------------------------------------------------------------------

    def open_table(self, lease_s: float) -> LeaseTable:
        with self._lock:
            self._check_not_deleted()
            table = LeaseTable(f"{self.queue.name}-{next(_table_numbers)}", lease_s)
            self._tables.add(table)
            return table

    def receive(self, table: LeaseTable, max_jobs: int, timeout_s: float) -> list[Delivery]:
        with self._lock:
            now = self._check_open(table)
            if deliveries := self._take(table, max_jobs, now):
                return deliveries
        wake = SignalSafeEvent()
        try:
            return self._wait_and_take(table, max_jobs, wake, monotonic() + timeout_s)
        except BaseException:  # such as KeyboardInterrupt
            wake.set()  # first: if another interrupt ends what follows, no change is told to who is gone
            with self._lock:
                self._stop_waiting(wake)
            raise

    def _wait_and_take(
        self, table: LeaseTable, max_jobs: int, wake: SignalSafeEvent, give_up_s: float
    ) -> list[Delivery]:
        while (taken := self._take_or_join(table, max_jobs, wake, give_up_s)) is None:
            self._wait(wake, give_up_s)
        return taken

    def _wait(self, wake: SignalSafeEvent, give_up_s: float) -> None:
        with self._lock:
            moment_s = self._next_event()
        self._clock.wait_until(moment_s, wake, give_up_s - monotonic())

    def _take_or_join(
        self, table: LeaseTable, max_jobs: int, wake: SignalSafeEvent, give_up_s: float
    ) -> list[Delivery] | None:
        """Take jobs; if there are none, have ``wake`` set when there may be, and return None."""
        with self._lock:
            now = self._check_open(table)
            if deliveries := self._take(table, max_jobs, now):
                self._receivers.pop(wake, None)
                return deliveries
            if table.interrupted or monotonic() >= give_up_s:
                table.interrupted = False
                self._stop_waiting(wake)
                return []
            self._receivers.join(wake)
            return None

    def _stop_waiting(self, wake: SignalSafeEvent) -> None:
        """Wake another receiver: the one that leaves may have eaten a wake-up meant for any (RCV-2)."""
        self._receivers.pop(wake, None)
        self._receivers.notify()

    def _take(self, table: LeaseTable, max_jobs: int, now: float) -> list[Delivery]:
        self._sweep(now)
        count = min(max_jobs, len(self._order))
        if count <= 0:
            return []
        lease_ends = now + table.lease_s
        if lease_ends < self._tables.next_expiry:
            if lease_ends < self._next_event():
                self._receivers.notify_all()
            self._tables.next_expiry = lease_ends
        deliveries = table.grant(self._order.pop, count, lease_ends)
        self._order.popped = None
        return deliveries

    def _sweep(self, now: float) -> None:
        """Make ready what is due and what was leased too long (DLY-1, LSE-2)."""
        while self._delayed.first_due <= now:
            self._make_ready(self._delayed.first)
        if now >= self._tables.next_expiry:
            self._end_leases(now)

    def _make_ready(self, job: StoredJob) -> None:
        self._moving = job
        self._delayed.drop_first()
        job.place, job.due = next(self._places), 0.0
        self._order.add(job)
        self._moving = None

    def _end_leases(self, now: float) -> None:
        for table, receipt, job in self._tables.over(now):
            self._moving = job
            table.end(receipt, job)
            self._give_back(job, now)
        self._moving = None
        self._tables.plan()

    def _give_back(self, job: StoredJob, now: float) -> None:
        """Let a job that is leased no more return to its place, unless its cancellation was asked for."""
        if job.cancel_ttl_s is None:
            self._order.give_back(job)
        else:
            self._end_cancelled(job, job.cancel_ttl_s, now)

    def _next_event(self) -> float:
        """When a job may become ready without anyone's doing."""
        return min(self._delayed.first_due, self._tables.next_expiry)

    def next_event(self) -> float:
        """Return when the next delay or lease ends; infinity if there is none."""
        with self._lock:
            self._bring_up_to_date()
            self._tables.plan()
            return self._next_event()

    def end_lease(self, job_id: str) -> bool:
        """End the lease of a job as if its time were over (LSE-2); return whether it has one."""
        with self._lock:
            now = self._bring_up_to_date()
            if (found := self._tables.find(job_id)) is None:
                return False
            table, receipt, job = found
            self._moving = job
            table.end(receipt, job)
            self._give_back(job, now)
            self._moving = None
            self._receivers.notify_all()
            return True

    def interrupt(self, table: LeaseTable) -> None:
        with self._lock:
            table.interrupted = True
            self._receivers.notify_all()

    def close_table(self, table: LeaseTable) -> None:
        with self._lock:
            if table not in self._tables:
                return
            self._finish(now := self._clock.now())
            self._sweep(now)  # first: a lease that is over isn't ended by this
            table.closed = True
            for receipt, job in list(table.held.items()):
                self._moving = job
                del table.held[receipt]
                self._give_back(job, now)
            self._moving = None
            self._tables.remove(table)
            self._receivers.notify_all()

    # -- settling ---------------------------------------------------------------------------------

    def settle(self, table: LeaseTable, settlements: Sequence[Settlement], take: int) -> Settled:
        with self._lock:
            now = self._check_open(table)
            self._sweep(now)
            if self._ends.told:
                self._ends.note(table.ending(settlements))
            outcomes = [self._settle_one(table, settlement, now) for settlement in settlements]
            self._ends.wake()
            self._moving = None
            return Settled(outcomes, self._take(table, take, now) if take else [])

    def _settle_one(self, table: LeaseTable, settlement: Settlement, now: float) -> SettleOutcome:
        held, receipt = table.held, settlement.receipt
        if (job := held.get(receipt)) is None:
            return table.why_not_held(receipt)
        self._moving = job
        if isinstance(settlement, Ack):
            if settlement.then and not self._are_declared(settlement.then):
                return SettleOutcome.REFUSED
            self._results.keep(job.id, settlement, now)  # of no account while the job is live
            self._left.nexts = settlement.then
            del held[receipt]
            self._live.pop(job.id, None)
            if settlement.then:
                self._publish_nexts(now)
        elif isinstance(settlement, Cancel):
            self._end_cancelled(job, settlement.result_ttl_s, now, (held, receipt))
        elif job.cancel_ttl_s is not None:
            self._end_cancelled(job, job.cancel_ttl_s, now, (held, receipt))
            return SettleOutcome.CANCELLED
        elif isinstance(settlement, Dead):
            if settlement.then and not self._are_declared(settlement.then):
                return SettleOutcome.REFUSED
            letter = self._dead.letter(job, settlement, now)
            dead = StoredLetter(job, letter, self._dead.plan_end(job, settlement.ttl_s, now))
            self._left.nexts = settlement.then
            del held[receipt]
            self._dead[job.id] = dead
            self._live.pop(job.id, None)
            if settlement.then:
                self._publish_nexts(now)
        else:
            self._put_back(job, settlement, now, (held, receipt))
        return _OK

    def _put_back(
        self,
        job: StoredJob,
        settlement: Retry | Release,
        now: float,
        leased: tuple[dict[str, StoredJob], str],
    ) -> None:
        """Have a job wait again: at its old place if it was released at once, else as if it arrived anew."""
        held, receipt = leased
        if isinstance(settlement, Release) and settlement.delay_s <= 0:
            del held[receipt]
            self._order.give_back(job)
            self._receivers.notify()
            return
        history, attempt = job.history, job.attempt
        if isinstance(settlement, Retry):
            history = (*history, Failure(attempt, settlement.error))[-MAX_HISTORY:]
            attempt += 1
        due = now + settlement.delay_s if settlement.delay_s > 0 else 0.0
        place = next(self._places)
        job.history, job.attempt, job.due, job.place = history, attempt, due, place
        del held[receipt]
        self._line_up(job)

    def _publish_nexts(self, now: float) -> None:
        self._moving = None  # the job that has ended is gone; from here `_left` says that something is left
        while self._left.nexts:
            step = self._left.nexts[0]
            if (queue := self._queues.get(step.queue)) is not None:
                queue._admit_next(step.message, now)
            self._left.nexts = self._left.nexts[1:]

    def _admit_next(self, message: Message, now: float) -> None:
        self._place_moved(now)
        self._dead.remove_expired(now)
        self._admit(message, now)
        self._moving = None

    def _are_declared(self, then: Iterable[Next]) -> bool:
        return {step.queue for step in then} <= self._queues.keys()

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
            self._moving = job
            self._end_cancelled(job, result_ttl_s, now)
            if job.due:
                self._delayed.remove(job)
            else:
                self._order.remove(job)
            self._moving = None
            return CancelOutcome.CANCELLED
        return outcome_of_ended(self._find_result(job_id, now))

    def _end_cancelled(
        self,
        job: StoredJob,
        ttl_s: float,
        now: float,
        leased: tuple[dict[str, StoredJob], str] | None = None,
    ) -> None:
        self._results.keep_cancelled(job.id, ttl_s, now)  # of no account while the job is live
        if leased is not None:
            held, receipt = leased
            del held[receipt]
        self._live.pop(job.id, None)
        self._ends.tell([job.id])

    def report(self, table: LeaseTable, receipt: str, progress: Progress) -> None:
        with self._lock:
            if (job := table.held.get(receipt)) is not None:
                job.progress = progress

    # -- introspection and administration ---------------------------------------------------------

    def progress(self, ids: Iterable[str] | None) -> dict[str, Progress]:
        with self._lock:
            self._bring_up_to_date()
            told = {id_: job.progress for id_, job in self._tables.leased().items()}
        asked = told if ids is None else ids
        return {id_: progress for id_ in asked if (progress := told.get(id_)) is not None}

    def counts(self) -> QueueCounts:
        with self._lock:
            self._bring_up_to_date()
            return QueueCounts(len(self._order), len(self._delayed), self._tables.in_flight, len(self._dead))

    def first_ready(self) -> bytes | None:
        with self._lock:
            self._bring_up_to_date()
            job = self._order.first()
            return None if job is None else job.body

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
            order, delayed = ORDERS[self.queue.kind](), DelayedJobs()
            self._live, self._order, self._delayed = leased, order, delayed
            return purged

    def delete(self) -> None:
        with self._lock:
            self._finish(self._clock.now())  # what an ack has still to publish into other queues
            self.deleted = True
            self._tables.lose_all()
            self._receivers.notify_all()
            self._ends.wake()

    def dead_letters(self, limit: int, offset: int) -> list[DeadLetter]:
        with self._lock:
            self._check_not_deleted()
            return self._dead.page(limit, offset)

    def redrive(self, ids: Sequence[str] | None) -> int:
        with self._lock:
            self._check_not_deleted()
            jobs = self._dead.find(ids)
            for job in jobs:
                fresh = StoredJob(job.id, job.body, job.priority, next(self._places), number=job.number)
                self._moving = self._live[fresh.id] = fresh
                del self._dead[fresh.id]
                self._line_up(fresh)
            self._moving = None
            return len(jobs)

    def discard(self, ids: Sequence[str] | None) -> int:
        with self._lock:
            self._check_not_deleted()
            jobs = self._dead.find(ids)
            for job in jobs:
                del self._dead[job.id]
            return len(jobs)

    # -- results ----------------------------------------------------------------------------------

    def result(self, job_id: str, timeout_s: float) -> JobResult | None:
        def look() -> JobResult | None:
            return self._find_result(job_id, self._check_not_deleted())

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
            found = {id_: self._find_result(id_, now) for id_ in ids}
        return {id_: result for id_, result in found.items() if result is not None}

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
            taken = set(ended)
            ended.clear()
            return taken or None

        return self._ends.wait_for(look, timeout_s) or set()

    def _find_result(self, job_id: str, now: float) -> JobResult | None:
        if job_id in self._live:
            return None
        if job_id in self._dead:
            return JobResult(ResultStatus.FAILED, error=self._dead[job_id].letter.error)
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
        if self.deleted:
            raise QueueNotFound(f"queue {self.queue.name!r}: deleted meanwhile")
        now = self._clock.now()
        if self._moving or self._order.popped or self._left.nexts:
            self._finish(now)
        if self._dead.ends:
            self._dead.remove_expired(now)
        return now

    def _finish(self, now: float) -> None:
        """Do what an interrupt left undone."""
        self._place_moved(now)
        self._publish_nexts(now)

    def _place_moved(self, now: float) -> None:
        """Put the job that an interrupt left half-way where it belongs, and wake those who may miss that."""
        for job in (self._moving, self._order.popped):
            if job is not None:
                self._moving = job
                self._place(job, now)
        self._moving = self._order.popped = None

    def _place(self, job: StoredJob, now: float) -> None:
        self._delayed.remove(job)
        self._order.remove(job)
        if self._live.get(job.id) is job:
            self._results.forget(job.id)
            if job.id not in self._tables.leased():
                self._put_where_it_waits(job, now)
        self._receivers.notify_all()
        self._ends.wake()

    def _put_where_it_waits(self, job: StoredJob, now: float) -> None:
        if job.due:
            self._delayed.add(job)
        else:
            self._give_back(job, now)
