"""A consumer's side of a queue in PostgreSQL."""

import json
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
from ..shared.chunks import in_chunks
from ..shared.error_messages import consumer_closed
from ..shared.next_job_answers import publishes_into, with_refusals, without
from ..shared.receipts import Held
from .binary_format import int4, int8, parse_int
from .connection import Answer
from .errors import NextQueueMissing
from .requests import Look, Request, Requests
from .scan_positions import ScanPositions
from .session import Session
from .settlements import Ends, LeasedJob, Summary, TakenJob, read_extension, read_summary
from .statements import Statements
from .wakeups import READY, Waiter, Wakeups

_MAX_BATCH = 1000
"""The most settlements, and the most jobs, of one request."""
_LOOKS_S = (0.0, 0.02, 0.1)
"""How many seconds after each other to look again, once this consumer was the first to announce that it
waits. A publish that was under way at that moment may not have seen the announcement, and wakes nobody."""
_SWEEP_S = 0.2
"""How often a busy consumer has the server look for what is due and for leases that have ended."""


class PostgreSQLConsumerBackend(ConsumerBackend):
    """Receives a batch in one statement, and waits for a wake-up: a publish wakes it at once (RCV-2).

    A request that was never answered is sent again before any other. It keeps its token, so the server
    carries it out once, and its answer says what it settled.

    Made by :meth:`PostgreSQLClient.open_consumer`.
    """

    def __init__(
        self,
        session: Session,
        statements: Statements,
        wakeups: Wakeups,
        queue: str,
        key: int,
        *,
        lease_s: float,
        poll_s: float,
    ) -> None:
        super().__init__()
        self._session = session
        self._statements = statements
        self._requests = Requests(session, statements, queue, lease_s)
        self._kept = self._requests.kept
        self._wakeups = wakeups
        self._name = queue
        self._key = key
        self._lease_s = lease_s
        self._poll_s = poll_s
        self._lock = threading.RLock()  # guards the held jobs and the requests
        self._held: Held[LeasedJob] = Held(secrets.token_urlsafe(8))
        self._unclaimed: list[str] = []
        """The receipts of jobs that a request took whose answer came too late: its caller had gone."""
        self._scan = ScanPositions()
        self._looked_whole = True
        """Whether the last look was from the beginning of the queue."""
        self._next_sweep = 0.0
        self._next_event_s: float | None = None
        self._looks: list[float] = []
        self._waiter: Waiter | None = None
        self._waits_for = -1
        self._interrupted = SignalSafeEvent()
        self._closed = False
        self._pid = os.getpid()

    @property
    def lease_s(self) -> float:
        return self._lease_s

    @property
    def key(self) -> int:
        """The key of its queue in the tables."""
        return self._key

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        while True:
            self._check_open()
            deliveries = self._receive(max_jobs, is_to_wait=give_up > monotonic())
            if deliveries:
                self._looks = []
                return deliveries
            remaining_s = give_up - monotonic()
            if self._interrupted.is_set() or remaining_s <= 0:
                self._interrupted.clear()
                return []
            self._wait(remaining_s)

    def _receive(self, max_jobs: int, *, is_to_wait: bool) -> list[Delivery]:
        key = self._key
        try:
            return self._settle_and_take([], max_jobs, is_to_wait=is_to_wait, sweeps=True).deliveries
        except QueueNotFound:
            self._find_queue()  # raises QueueNotFound
            if self._key == key:
                raise
            return []

    def _find_queue(self) -> None:
        """Learn the key of a queue that was declared again."""
        answer = self._session.look(self._statements.find_queue, [self._name.encode()], queue=self._name)
        if answer.rows:
            self._key = parse_int(answer.value(0, 0))
            self._scan = ScanPositions()

    def _wait(self, remaining_s: float) -> None:
        if self._waiter is None or self._waits_for != self._key:
            former, self._waiter = self._waiter, self._wakeups.open_waiter(self._key, READY)
            self._waits_for = self._key
            if former is not None:
                former.close()
        pause_s = min(remaining_s, self._poll_s)
        if self._next_event_s is not None:
            pause_s = min(pause_s, self._next_event_s)
        if self._looks:
            pause_s = min(pause_s, self._looks.pop(0))
        if not self._looked_whole:
            pause_s = min(pause_s, max(0.0, self._scan.whole_in_s()))
        if pause_s > 0 and not self._interrupted.is_set() and not self._closed:
            self._waiter.wait(pause_s)

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        with self._lock:
            self._check_open()
            outcomes: list[SettleOutcome] = []
            deliveries: list[Delivery] = []
            # A statement can't see rows that it inserts. If a settlement publishes into this queue, a second
            # statement takes the next jobs.
            takes_after = take > 0 and any(publishes_into(each, self._name) for each in settlements)
            for start in range(0, max(1, len(settlements)), _MAX_BATCH):
                chunk = settlements[start : start + _MAX_BATCH]
                is_last = start + _MAX_BATCH >= len(settlements)
                try:
                    settled = self._settle_and_take(chunk, take if is_last and not takes_after else 0)
                except QueueNotFound:  # the queue was deleted, so all its receipts are lost (ADM-3)
                    outcomes += [self._end(settlement.receipt, took_effect=False) for settlement in chunk]
                    continue
                outcomes += settled.outcomes
                deliveries += settled.deliveries
            if takes_after:
                # The settlements took effect, so their outcomes are returned though the second statement
                # fails.
                with suppress(BackendUnavailable, QueueNotFound):
                    deliveries += self._settle_and_take([], take).deliveries
            return Settled(outcomes, deliveries)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        with self._lock:
            self._check_open()
            with suppress(QueueNotFound):
                self._catch_up()
            asked: set[str] = set()
            for chunk in in_chunks(dict.fromkeys(receipts), _MAX_BATCH):
                known = self._held.those_of(chunk)
                if not known:
                    continue
                request = self._requests.extension(self._key, known)
                try:
                    asked |= self._take_extension(request, self._requests.send(request))
                except QueueNotFound:
                    for receipt in known:
                        self._end(receipt, took_effect=False)
                except JobsError:
                    raise
                except BaseException:  # an interrupt
                    self._requests.keep(request)
                    raise
            return [self._held.outcome(receipt, is_asked=receipt in asked) for receipt in receipts]

    def report(self, receipt: str, progress: Progress) -> None:
        with self._lock:
            held = self._held.get(receipt)
            if held is None:
                return
            self._check_open()
            told = json.dumps([progress.done, progress.total]).encode()
            where = [int4(self._key), int8(held.place), int8(held.seq), int8(held.token)]
            self._session.look(self._statements.report, [*where, told], queue=self._name)

    def interrupt(self) -> None:
        self._interrupted.set()
        if (waiter := self._waiter) is not None:
            waiter.tell("")

    @property
    def is_closed(self) -> bool:
        """Whether it was closed."""
        return self._closed

    def close(self) -> None:
        if self._closed or os.getpid() != self._pid:  # a parent process keeps the jobs that it holds
            return
        is_locked = self._lock.acquire(timeout=self._session.retry_timeout_s)
        try:
            if not is_locked:
                self.logger.warning("a consumer closed without releasing its jobs: a call is under way still")
            elif (receipts := self._held.receipts()) or self._requests.unanswered is not None:
                self.settle([Release(receipt) for receipt in receipts])
        except JobsError as error:
            self.logger.warning("a consumer closed without releasing its jobs: %s", error)
        finally:
            self._closed = True
            if is_locked:
                self._requests.forget()
                self._lock.release()
        if (waiter := self._waiter) is not None:
            waiter.tell("")
            waiter.close()

    # -- one round trip ---------------------------------------------------------------------------

    def _settle_and_take(
        self, settlements: Sequence[Settlement], count: int, *, is_to_wait: bool = False, sweeps: bool = False
    ) -> Settled:
        with self._lock:
            self._check_open()
            self._catch_up()
            known = self._held.to_settle(settlements)
            if not known and count <= 0:
                return Settled([self._end(each.receipt, took_effect=False) for each in settlements], [])
            now, count = monotonic(), min(count, _MAX_BATCH)
            is_whole = count > 0 and self._scan.is_whole(now)
            sweeps = sweeps or is_whole or (count > 0 and now >= self._next_sweep)
            if sweeps:
                self._next_sweep = now + _SWEEP_S
            starts = self._scan.starts(is_whole=is_whole)
            sweep_s = self._scan.sweep_s(now, is_whole=is_whole) if sweeps else None
            look = Look(count, starts, self._scan.returned, sweep_s, is_to_wait)
            refused: set[str] = set()
            while True:
                request = self._requests.settlement(self._key, known, look)
                try:
                    answer = self._requests.send(request)
                    summary = read_summary(answer)
                    deliveries = self._take_answer(request, answer, summary, count)
                    ends = self._ends(request, summary.ends)
                    break
                except NextQueueMissing as missing:  # the server did nothing: settle the others without these
                    refused |= _publishing_into(missing.queue, known)
                    known = _all_but(refused, known)
                except JobsError:
                    raise
                except BaseException:  # an interrupt, which may come between any two steps
                    self._requests.keep(request)
                    raise
            if sweeps:
                self._scan.swept(now, is_all=summary.is_swept, is_whole=is_whole)
            if is_whole:
                self._scan.was_whole(now)
            self._looked_whole = is_whole
            outcomes = [
                ends.pop(receipt) if receipt in ends else self._end(receipt, took_effect=False)
                for receipt, *_ in without(settlements, refused)
            ]
            if refused:
                outcomes = with_refusals(settlements, refused, outcomes)
            return Settled(outcomes, deliveries)

    def _catch_up(self) -> None:
        """Learn what became of the unanswered request, and give back what it took."""
        if (request := self._requests.unanswered) is not None:
            self._requests.unanswered = None
            try:
                self._take_late_answer(request, self._requests.send(request))
            except NextQueueMissing:  # the server did nothing: the jobs of this request are still held
                self.logger.debug("a settlement is sent anew: a queue of its next jobs isn't declared")
            except QueueNotFound:
                for receipt in request.receipts:
                    self._end(receipt, took_effect=False)
                raise
            except BaseException:  # an outage, or an interrupt
                self._requests.keep(request)
                raise
        if self._unclaimed:
            receipts, self._unclaimed = self._unclaimed, []
            try:
                known = self._held.to_settle(map(Release, receipts))
                if known:
                    release = self._requests.settlement(self._key, known)
                    self._take_late_answer(release, self._requests.send(release))
            except BaseException:
                self._unclaimed = receipts
                raise

    def _take_late_answer(self, request: Request, answer: Answer) -> None:
        if self._requests.is_extension(request):
            self._take_extension(request, answer)
        else:
            summary = read_summary(answer)
            self._unclaimed += [each.receipt for each in self._take_answer(request, answer, summary, 0)]
            self._ends(request, summary.ends)

    # -- what was answered ------------------------------------------------------------------------

    def _take_answer(self, request: Request, answer: Answer, summary: Summary, count: int) -> list[Delivery]:
        """Hold the jobs that the request took, note what the summary says, and return the deliveries."""
        deliveries: list[Delivery] = []
        grant, lease_s, token, place = self._held.grant, self._lease_s, request.token, 0
        new, columns = tuple.__new__, range(len(TakenJob._fields))
        for row in range(answer.rows - 1):
            raw_place, seq, id_, body, attempt, number, crashes = answer.row(row, columns)
            place = parse_int(raw_place)
            receipt = grant(LeasedJob(place, parse_int(seq), token))
            fields = (
                (id_ or b"").decode(),
                body or b"",
                receipt,
                *map(parse_int, (attempt, number, crashes)),
                lease_s,
            )
            deliveries.append(new(Delivery, fields))
        if deliveries or request.receipts:
            self._kept.begin(token, len(deliveries))
        if count > 0 and summary.returned is not None:
            last_place = place if len(deliveries) >= count else None
            self._scan.saw(summary.seen_before, summary.returned, last_place)
        self._next_event_s = summary.next_event_s
        if summary.has_announced:
            self._looks = list(_LOOKS_S)
        return deliveries

    def _take_extension(self, request: Request, answer: Answer) -> set[str]:
        """Hold the leases that were extended; return those whose jobs are asked to be cancelled."""
        ends = read_extension(answer)
        held = 0
        for number, receipt in enumerate(request.receipts, 1):
            job = self._held.get(receipt)
            if job is None:
                continue
            if number in ends.lost:
                self._end(receipt, took_effect=False)
            else:
                held += 1
                # The tokens are equal if an interrupt ended an earlier reading of this answer after this job.
                if job.token != request.token:
                    self._held.replace(receipt, job._replace(token=request.token))
                    # Leave the former lease after the token was replaced: an interrupt between the two steps
                    # would else have the job leave twice.
                    self._kept.leave(job.token)
        # Begin to count the new lease last. If an interrupt comes before, the lease isn't counted, and the
        # server forgets it when its time is over.
        self._kept.begin(request.token, held)
        return {receipt for number, receipt in enumerate(request.receipts, 1) if number in ends.cancelled}

    def _ends(self, request: Request, ends: Ends) -> dict[str, SettleOutcome]:
        return {
            receipt: self._end(
                receipt, took_effect=number not in ends.lost, is_cancelled=number in ends.cancelled
            )
            for number, receipt in enumerate(request.receipts, 1)
        }

    def _end(self, receipt: str, *, took_effect: bool, is_cancelled: bool = False) -> SettleOutcome:
        job = self._held.get(receipt)
        outcome = self._held.settle(receipt, took_effect=took_effect, is_cancelled=is_cancelled)
        # The job was taken out of the table before it leaves its lease. In the other order, an interrupt
        # between the two steps would have it leave twice.
        if job is not None and took_effect:
            self._kept.leave(job.token)
        elif job is not None:
            self._kept.distrust(job.token)
        return outcome

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._name!r} belongs to another process")
        if self._closed:
            raise consumer_closed(self._name)


_Known = dict[str, tuple[LeasedJob, Settlement]]
"""The jobs that are held and to be settled, by receipt."""


def _publishing_into(queue: str, known: _Known) -> set[str]:
    """Return the receipts whose settlements publish into ``queue``."""
    return {receipt for receipt, (_, settlement) in known.items() if publishes_into(settlement, queue)}


def _all_but(receipts: set[str], known: _Known) -> _Known:
    return {receipt: each for receipt, each in known.items() if receipt not in receipts}
