"""A consumer's side of a queue in Redis."""

import json
import os
import secrets
import threading
from collections.abc import Iterable, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from ...domain.errors import AccessDenied, Closed, JobsError, QueueNotFound
from ...domain.job_progress import Progress
from ...ports import ConsumerBackend, Delivery, Release, Settled, Settlement, SettleOutcome
from ...ports.signal_safe_event import SignalSafeEvent
from ..shared.next_job_answers import with_refusals, without
from ..shared.receipts import Receipts
from .errors import RefusedByServer, ServerUnreachable, names_no_queue
from .requests import KEEP_ANSWER_MS, NumberedRequests, RemoteQueue, Request
from .scripts import EXTEND, REPORT_PROGRESS, SETTLE_AND_TAKE
from .settlements import Held, SettlementBatch, add_next_jobs, find_refused, looking_only
from .transport import Argument
from .undeliverable import burial, describe_buried, find_undeliverable

_Request = Request[SettlementBatch]
_Requests = NumberedRequests[SettlementBatch]
_MAX_BATCH = 1000
"""The most settlements or extensions of one call: a script can't take many thousands of arguments."""
_MAX_TAKE = 500
"""The most jobs that one call takes. More would keep the server busy with one consumer for long."""
_CLOSING_S = 2.0
"""How long ``close`` waits for a ``receive`` on another thread to end."""
_INTERRUPT_S = 0.5
"""How many seconds ``interrupt`` tries to reach the server. It is short, as a signal handler may call it."""
_KEEP_PROGRESS_MS = 86_400_000
"""How long progress is kept after the last report."""
_GONE = ord("0")
_ASKED = ord("2")
"""What ``extend.lua`` answers for a job that isn't held any more, and for one that is to be cancelled."""
_FIRST_DELIVERY = (1, 1, 0)
"""Attempt, number and crashes of a job that nothing happened to before."""


class RedisConsumerBackend(ConsumerBackend):
    """Receives with one round trip a batch, and waits on a stream: a publish wakes it at once (RCV-2).

    The wait and the request for the next jobs go to the server together, so that one trip lies between a
    publish and the delivery of its job. Such a request is under way for as long as the wait lasts, and other
    requests of this consumer overtake it. The requests that wait have a sender of their own. So the server
    remembers what the last of them took, however many jobs were settled since.

    A request that was never answered is sent again before any other. It keeps its number, so the server
    carries it out once, and its answer says what it settled.

    Made by :meth:`RedisClient.open_consumer`.
    """

    def __init__(self, queue: RemoteQueue, *, lease_s: float, sweep_s: float) -> None:
        super().__init__()
        self._queue = queue
        self._redis = queue.redis
        self._lease_s = lease_s
        self._sweep_s = min(sweep_s, lease_s / 3)  # so that an outage is noticed before it ends a lease
        self._sender = secrets.token_urlsafe(8)
        self._interrupt_key = queue.keys.interrupt(self._sender)
        self._lock = threading.RLock()  # guards the held jobs and the requests
        self._receiving = threading.RLock()
        self._requests = _Requests(queue, SETTLE_AND_TAKE, self._sender)
        self._waits = _Requests(queue, SETTLE_AND_TAKE, f"{self._sender}.wait")
        self._waiting: _Request | None = None
        """The request that waits at the server."""
        self._receipts = Receipts(self._sender)
        self._held: dict[str, Held] = {}
        self._no_settlements = SettlementBatch([], {}, self._receipts.why_not_held)
        self._unclaimed: list[str] = []
        """The receipts of jobs that a request took whose answer came too late: its caller had gone."""
        self._idle: _Idle | None = None
        self._interrupted = SignalSafeEvent()
        self._interrupts_seen = "0-0"
        self._closed = False
        self._pid = os.getpid()

    @property
    def lease_s(self) -> float:
        return self._lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        with self._receiving:  # `close` waits for it
            while True:
                now, idle = monotonic(), self._idle
                wait_s = min(give_up - now, self._sweep_s, idle.until - now) if idle else 0.0
                if idle is None or wait_s <= 0 or self._interrupted.is_set():
                    deliveries = self._take(max_jobs)
                else:
                    deliveries = self._wait_and_take(idle.wake_id, wait_s, max_jobs)
                if deliveries:
                    return deliveries
                if self._interrupted.is_set() or monotonic() >= give_up:
                    self._interrupted.clear()
                    return []

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        with self._lock:
            self._check_open()
            return self._settle(settlements, take)

    def _settle(self, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes: list[SettleOutcome] = []
        deliveries: list[Delivery] = []
        for start in range(0, max(1, len(settlements)), _MAX_BATCH):
            chunk = settlements[start : start + _MAX_BATCH]
            is_last = start + _MAX_BATCH >= len(settlements)
            try:
                settled = self._settle_and_take(chunk, take if is_last else 0)
            except QueueNotFound:  # the queue was deleted, so all its receipts are lost (ADM-3)
                outcomes += [self._lose(settlement.receipt) for settlement in chunk]
                continue
            outcomes += settled.outcomes
            deliveries += settled.deliveries
        return Settled(outcomes, deliveries)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        self._check_open()
        # Jobs that an unanswered request has settled would seem to be lost, so look it up first.
        if self._requests.unanswered is not None:
            with self._lock, suppress(QueueNotFound), self._queue.errors:
                self._catch_up()
        known = [(receipt, job) for receipt in receipts if (job := self._held.get(receipt)) is not None]
        cancelled: set[str] = set()
        for start in range(0, len(known), _MAX_BATCH):
            chunk = known[start : start + _MAX_BATCH]
            arguments: list[Argument] = [str(round(self._lease_s * 1000))]
            for _, job in chunk:
                arguments += job
            try:
                answer: bytes = self._queue.run(EXTEND, arguments)
            except QueueNotFound:
                answer = b"0" * len(chunk)
            if b"2" in answer:
                cancelled |= {
                    receipt for (receipt, _), kept in zip(chunk, answer, strict=True) if kept == _ASKED
                }
            gone = [receipt for (receipt, _), kept in zip(chunk, answer, strict=True) if kept == _GONE]
            with self._lock:
                self._lose_unsettled(gone)
        return [self._outcome(receipt, is_asked=receipt in cancelled) for receipt in receipts]

    def _lose_unsettled(self, receipts: Iterable[str]) -> None:
        """Lose these receipts, but for those that were settled meanwhile, or may have been."""
        for receipt in receipts:
            if receipt in self._held and not self._is_in_doubt(receipt):
                self._lose(receipt)

    def _outcome(self, receipt: str, *, is_asked: bool) -> SettleOutcome:
        if receipt not in self._held:
            return self._receipts.why_not_held(receipt)
        return SettleOutcome.CANCELLED if is_asked else SettleOutcome.OK

    def report(self, receipt: str, progress: Progress) -> None:
        held = self._held.get(receipt)
        if held is not None:
            told = json.dumps([progress.done, progress.total])
            self._queue.run(REPORT_PROGRESS, [*held, told, str(_KEEP_PROGRESS_MS)])

    def interrupt(self) -> None:
        self._interrupted.set()
        self._end_wait()

    def close(self) -> None:
        if os.getpid() != self._pid:
            return  # a parent process keeps the jobs that it holds
        left_s = self._redis.closing_left_s
        if not self._lock.acquire(timeout=max(0.0, min(self._redis.retry_timeout_s, left_s))):
            self._closed = True
            self.logger.warning("a consumer closed without releasing its jobs: a request is under way still")
            return
        try:
            if self._closed:
                return
            # The jobs that the waiting request took are released. If it took none yet, it never will.
            if self._waiting is not None:
                self._waits.keep(self._waiting)
            self._settle([Release(receipt) for receipt in list(self._held)], 0)
        except JobsError as error:
            self.logger.warning("a consumer closed without releasing its jobs: %s", error)
            return
        finally:
            self._closed = True
            self._lock.release()
        self._end_wait()
        if self._receiving.acquire(timeout=max(0.0, min(_CLOSING_S, self._redis.closing_left_s))):
            self._requests.end(self._waits.record, self._interrupt_key)
            self._receiving.release()

    def _end_wait(self) -> None:
        add = ("XADD", self._interrupt_key, "MAXLEN", "1", "*", "w", "1")
        try:
            self._redis.command(*add, retry_timeout_s=_INTERRUPT_S)
            self._redis.command("PEXPIRE", self._interrupt_key, "2000", retry_timeout_s=_INTERRUPT_S)
        except (JobsError, ServerUnreachable) as error:  # a wait can't last for long then, either
            self.logger.debug("a wait wasn't interrupted: %s", error)

    # -- one round trip ---------------------------------------------------------------------------

    def _take(self, take: int) -> list[Delivery]:
        with self._lock:
            self._check_open()
            return self._settle_and_take([], take).deliveries

    def _settle_and_take(self, settlements: Sequence[Settlement], take: int) -> Settled:
        with self._lock, self._queue.errors:
            self._catch_up()
            return self._send(settlements, take)

    def _send(self, settlements: Sequence[Settlement], take: int) -> Settled:
        held = {each.receipt: self._held[each.receipt] for each in settlements if each.receipt in self._held}
        request: _Request | None = None
        try:
            batch = SettlementBatch(settlements, self._held, self._receipts.why_not_held)
            request = self._make_request(self._requests, take, batch.arguments, batch)
            if not batch.next_jobs or add_next_jobs(request, self._queue.keys):
                answers, deliveries = self._read_answer(request, take, self._requests.send(request))
                for receipt in batch.answer(answers):
                    self._lose(receipt)
                return Settled(batch.outcomes, deliveries)
        except RefusedByServer as error:
            self._held.update(held)
            if request and (refused := find_refused(error, request.content)):
                return self._send_others(settlements, take, request, refused, error)
            if request and error.may_have_run:
                self._requests.keep(request)
            raise
        except BaseException as error:  # access denied, an outage; or an interrupt, between any two steps
            self._held.update(held)
            if request and (not isinstance(error, ServerUnreachable) or error.may_have_run):
                self._requests.keep(request)
            raise
        self._held.update(held)  # too many next jobs for one request
        half = len(settlements) // 2
        outcomes, rest = self._send(settlements[:half], 0).outcomes, self._send(settlements[half:], take)
        return Settled([*outcomes, *rest.outcomes], rest.deliveries)

    def _send_others(
        self,
        settlements: Sequence[Settlement],
        take: int,
        request: _Request,
        refused: set[str],
        refusal: RefusedByServer,
    ) -> Settled:
        """Settle all but those whose next jobs were refused. These jobs are still held (THEN-3)."""
        if refusal.may_have_run:
            self._requests.keep(request)
            self._catch_up()
        refused = {receipt for receipt in refused if receipt in self._held}
        if refused:
            self.logger.warning("queue %s: next jobs weren't published: %s", self._queue.name, refusal)
        settled = self._send(without(settlements, refused), take)
        return Settled(with_refusals(settlements, refused, settled.outcomes), settled.deliveries)

    def _catch_up(self) -> None:
        """Learn what became of the unanswered requests, and give back what they took."""
        self._look_up(self._waits)
        self._look_up(self._requests)
        if self._unclaimed:
            self._send([Release(receipt) for receipt in self._unclaimed], 0)
            self._unclaimed.clear()

    def _look_up(self, requests: _Requests) -> None:
        if (request := requests.unanswered) is None:
            return
        batch = request.content
        settles = bool(batch.outcomes) and not batch.next_jobs
        try:
            answer = requests.send(request if settles else looking_only(request))
        except RefusedByServer as error:
            # Another try would be refused as well. The server has the last word when the receipts are used.
            requests.unanswered = None
            if names_no_queue(error):
                for receipt in batch.receipts():
                    self._lose(receipt)
            raise
        requests.unanswered = None
        try:
            outcomes, deliveries = self._read_answer(request, 0, answer)
            # Without outcomes, settlements that have next jobs took no effect, and their jobs are still held.
            if outcomes:
                for receipt in batch.receipts():
                    self._held.pop(receipt, None)
                for receipt in batch.answer(outcomes):
                    self._lose(receipt)
            # Nobody knows how much of their leases is left, so they are given back.
            self._unclaimed += [delivery.receipt for delivery in deliveries]
        except BaseException:  # an interrupt
            requests.keep(request)
            raise

    def _is_in_doubt(self, receipt: str) -> bool:
        request = self._requests.unanswered
        return request is not None and receipt in request.content.receipts()

    def _wait_and_take(self, wake_id: str, wait_s: float, take: int) -> list[Delivery]:
        with self._lock, self._queue.errors:
            self._check_open()
            self._catch_up()
            nothing = self._no_settlements
            self._waiting = request = self._make_request(self._waits, take, nothing.arguments, nothing)
        streams = [(self._queue.keys.wake, wake_id), (self._interrupt_key, self._interrupts_seen)]
        try:
            news, answer = self._redis.wait(streams, wait_s, request.call)
            self._interrupts_seen = news.get(self._interrupt_key, self._interrupts_seen)
            with self._lock:
                self._waiting = None
                if answer is None:
                    self._check_open()
                    answer = self._send_again(request)
                _, deliveries = self._read_answer(request, take, answer)
                if self._closed and deliveries:  # the request took them just before this was closed
                    with suppress(JobsError):  # if this fails, their leases run out
                        self._settle([Release(delivery.receipt) for delivery in deliveries], 0)
                self._check_open()
                return deliveries
        except BaseException as error:
            # The server may have leased jobs by then: it runs the script also for a user who may not wait.
            if isinstance(error, AccessDenied) or not isinstance(error, JobsError):
                with self._lock:
                    self._waits.keep(request)
            raise
        finally:
            self._waiting = None

    def _send_again(self, request: _Request) -> Any:
        """Send again a request that waited without an answer. It returns what it took, or takes now."""
        self._idle = None
        with self._queue.errors:
            try:
                return self._waits.send(request)
            except ServerUnreachable:
                self._waits.keep(request)
                raise

    def _make_request(
        self, requests: _Requests, take: int, settlements: Sequence[Argument], batch: SettlementBatch
    ) -> _Request:
        lease_ms = round(self._lease_s * 1000)
        numbers = map(str, (lease_ms, KEEP_ANSWER_MS + lease_ms, min(take, _MAX_TAKE)))
        return requests.make([requests.sender, *numbers, *settlements], batch)

    # -- what was received ------------------------------------------------------------------------

    def _read_answer(self, request: _Request, take: int, answer: Any) -> tuple[bytes, list[Delivery]]:
        now, event, wake, outcomes, ids, bodies, infos = answer
        if take:
            until = monotonic() + (event - now) / 1000 if event >= 0 else inf
            self._idle = None if ids else _Idle(wake.decode(), until)
        return outcomes, self._deliveries(request.token, ids, bodies, infos)

    def _deliveries(
        self, token: str, ids: list[bytes], bodies: list[bytes | None], infos: list[bytes]
    ) -> list[Delivery]:
        deliveries = []
        held, lease_s, granted = self._held, self._lease_s, self._receipts.granted
        receipt_start = f"{self._sender}."
        odd = find_undeliverable(ids, bodies, infos) if ids else None
        infos = infos or [b""] * len(ids)
        new = tuple.__new__
        for number, (raw_id, body, info) in enumerate(zip(ids, bodies, infos, strict=True), granted + 1):
            if odd and number - granted - 1 in odd:
                continue
            receipt = f"{receipt_start}{number}"
            id_ = raw_id.decode()
            held[receipt] = (id_, token)
            attempt, times, crashes = map(int, info.split(b":")) if info else _FIRST_DELIVERY
            # A third of what Delivery(...) costs, which is most of what a delivery costs here.
            deliveries.append(new(Delivery, (id_, body, receipt, attempt, times, crashes, lease_s)))
        self._receipts.granted = granted + len(ids)
        if odd:
            self._bury([(ids[place], damage) for place, damage in odd.items() if damage], token)
        return deliveries

    def _bury(self, damaged: Sequence[tuple[bytes, str]], token: str) -> None:
        """Make dead letters of leased jobs that can't be delivered. If this fails, their leases run out."""
        with suppress(JobsError), self._queue.errors:
            operations = burial(damaged, token)
            request = self._make_request(self._requests, 0, operations, self._no_settlements)
            outcomes: bytes = self._requests.send(request)[3]
            for message in describe_buried(damaged, outcomes):
                self.logger.error("queue %s: %s", self._queue.name, message)

    def _lose(self, receipt: str) -> SettleOutcome:
        self._held.pop(receipt, None)
        self._receipts.lose([receipt])
        return SettleOutcome.LOST

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._queue.name!r} belongs to another process")
        if self._closed:
            raise Closed(f"this consumer of queue {self._queue.name!r} is closed")


class _Idle(NamedTuple):
    """A moment at which no job was ready. A wait that begins later misses nothing that came since."""

    wake_id: str
    """The last wake-up before that moment."""
    until: float
    """When a job may become ready without a wake-up, by the monotonic clock."""
