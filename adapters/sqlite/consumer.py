"""A consumer's side of a queue in a file."""

import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from time import monotonic

from ...domain.errors import BackendUnavailable, Closed, JobsError, QueueNotFound
from ...domain.job_progress import Progress
from ...ports import ConsumerBackend, Delivery, Release, Settled, Settlement, SettleOutcome
from ...ports.signal_safe_event import SignalSafeEvent
from ..shared.error_messages import consumer_closed
from ..shared.next_job_answers import with_refusals, without
from ..shared.receipts import Held
from .cancel_requests import find_cancel_requests
from .damage import repair
from .introspection import write_progress
from .lease import LeasedJob, Outlook, Taken, extend, outlook, sweep, take
from .session import FileSettings, Session
from .settle import SettledBatch, settle
from .transaction import QueueSession, Transaction
from .wakeups import READY, Waiter, make_waiter

_MAX_BATCH = 1000
"""The most jobs that one transaction leases, so that nobody waits for long behind it."""


class SQLiteConsumerBackend(ConsumerBackend):
    """Receives a batch in one transaction, and waits for a wake-up: a publish wakes it at once (RCV-2).

    Made by :meth:`SQLiteClient.open_consumer`.
    """

    def __init__(self, settings: FileSettings, namespace: str, queue: str, lease_s: float) -> None:
        super().__init__()
        self._session = Session(settings, f"consumer of queue {queue!r}")
        self._queue = QueueSession(self._session, settings, namespace, queue)
        self._wakeups = settings.wakeups
        self._look_s = settings.look_s
        self._retry_timeout_s = settings.retry_timeout_s
        self._lease_s = lease_s
        self._lock = threading.RLock()  # what is held is as the file has it
        self._held: Held[LeasedJob] = Held(secrets.token_urlsafe(8))
        self._waiter: Waiter | None = None
        self._waits_for: int | None = None
        self._interrupted = SignalSafeEvent()
        self._closed = False
        self._pid = os.getpid()

    @property
    def lease_s(self) -> float:
        return self._lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        while True:
            self._check_open()
            found = self._queue.read(outlook)
            if found.is_damaged:
                while self._queue.write(repair):
                    pass
                found = self._queue.read(outlook)
            if found.is_ready and (deliveries := self._settle_and_take([], max_jobs).deliveries):
                return deliveries
            remaining_s = give_up - monotonic()
            if self._interrupted.is_set() or remaining_s <= 0:
                self._interrupted.clear()
                return []
            if not found.is_ready:
                self._wait(found, remaining_s)

    def _wait(self, found: Outlook, remaining_s: float) -> None:
        if self._waiter is None or self._waits_for != found.queue:
            self._listen(found.queue)  # and look once more: the wake-up may have come meanwhile
            return
        next_s = self._look_s if found.next_event_s is None else found.next_event_s
        self._waiter.wait(min(remaining_s, next_s, self._look_s))

    def _listen(self, queue: int) -> None:
        former, self._waiter = self._waiter, make_waiter(self._wakeups, queue, READY)
        self._waits_for = queue
        if former is not None:
            former.close()
        if self._closed:  # meanwhile, so that nobody else will
            self._waiter.close()

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        try:
            return self._settle_and_take(settlements, take)
        except QueueNotFound:  # deleted: every receipt of it is lost (ADM-3)
            with self._lock:
                return Settled(
                    [self._held.settle(each.receipt, took_effect=False) for each in settlements], []
                )

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        with self._lock:
            self._check_open()
            known = self._held.those_of(receipts)
            seqs = {receipt: held.seq for receipt, held in known.items()}

            def work(tx: Transaction) -> tuple[dict[str, LeasedJob | None], dict[int, int]]:
                extended = {receipt: extend(tx, held, self._lease_s) for receipt, held in known.items()}
                return extended, find_cancel_requests(tx, seqs.values())

            try:
                extended, requests = self._queue.write(work)
            except QueueNotFound:
                extended, requests = dict.fromkeys(known), {}
            for receipt, held in extended.items():
                if held is None:
                    self._held.lose(receipt)
                else:
                    self._held.replace(receipt, held)
            return [
                self._held.outcome(receipt, is_asked=seqs.get(receipt) in requests) for receipt in receipts
            ]

    def report(self, receipt: str, progress: Progress) -> None:
        with self._lock:
            held = self._held.get(receipt)
            if held is None:
                return
            self._check_open()
            with suppress(QueueNotFound):  # deleted: the receipt is lost
                self._queue.write(lambda tx: write_progress(tx, held, progress))

    def interrupt(self) -> None:
        self._interrupted.set()
        if (waiter := self._waiter) is not None:
            waiter.wake()

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        self.close_by(monotonic() + self._retry_timeout_s)

    def close_by(self, moment: float) -> None:
        """Close it, without waiting longer than up to a moment of the monotonic clock."""
        if self._closed or os.getpid() != self._pid:  # what a parent process holds stays with it
            return
        # Held until the end, so that nothing is leased between the release and that.
        is_locked = self._lock.acquire(timeout=max(0.0, moment - monotonic()))
        try:
            if not is_locked:
                raise BackendUnavailable("a call on another thread hasn't ended")
            self._session.set_deadline(moment)
            if receipts := self._held.receipts():
                self.settle([Release(receipt) for receipt in receipts])
        except JobsError as error:
            self.logger.warning("a consumer closed without releasing its jobs: %s", error)
        finally:
            self._closed = True
            self._session.close()
            if is_locked:
                self._lock.release()
        if self._waiter is not None:
            self._waiter.close()

    # -- one transaction --------------------------------------------------------------------------

    def _settle_and_take(self, settlements: Sequence[Settlement], count: int) -> Settled:
        with self._lock:
            self._check_open()
            known = self._held.to_settle(settlements)

            def work(tx: Transaction) -> tuple[SettledBatch, list[Taken]]:
                sweep(tx)
                return settle(tx, known), take(tx, min(count, _MAX_BATCH), self._lease_s)

            batch, taken = self._queue.write(work)
            end, took_effect, cancelled = self._held.settle, batch.settled.get, batch.cancelled
            outcomes = [
                end(
                    each.receipt,
                    took_effect=took_effect(each.receipt, False),
                    is_cancelled=each.receipt in cancelled,
                )
                for each in (without(settlements, batch.refused) if batch.refused else settlements)
            ]
            if batch.refused:
                outcomes = with_refusals(settlements, batch.refused, outcomes)
            return Settled(outcomes, [self._grant(each) for each in taken])

    def _grant(self, taken: Taken) -> Delivery:
        job, body, attempt, crashes = taken
        receipt = self._held.grant(job)
        return Delivery(job.id, body, receipt, attempt, job.number, crashes, self._lease_s)

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._queue.name!r} belongs to another process")
        if self._closed:
            raise consumer_closed(self._queue.name)
