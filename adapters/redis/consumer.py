"""A consumer's side of a queue in Redis."""

import json
import os
import secrets
import threading
from collections.abc import Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from ...domain.errors import Closed, JobsError, QueueNotFound
from ...domain.job_progress import Progress
from ...ports import ConsumerBackend, Delivery, Release, Settled, Settlement, SettleOutcome
from ...ports.signal_safe_event import SignalSafeEvent
from ..shared.next_job_answers import with_refusals, without
from ..shared.receipts import Receipts
from .errors import RefusedByServer, ServerUnreachable
from .next_job_requests import add_next_jobs, find_refused, looking_only
from .requests import KEEP_ANSWER_MS, NumberedRequests, RemoteQueue, Request
from .scripts import EXTEND, REPORT_PROGRESS, SETTLE_AND_TAKE
from .settlements import Held, SettlementBatch
from .transport import Argument
from .undeliverable import burial, describe_buried, find_undeliverable

_Request = Request[SettlementBatch]
_Requests = NumberedRequests[SettlementBatch]
_MAX_BATCH = 1000
"""The most settlements or extensions of one call: a script can't take many thousands of arguments at once."""
_MAX_TAKE = 500
"""The most jobs that one call takes, so that the server isn't busy with one consumer for long."""
_CLOSING_S = 2.0
"""How long ``close`` waits for a ``receive`` on another thread to end."""
_INTERRUPT_S = 0.5
"""How long ``interrupt`` tries to reach the server: a signal handler may have called it."""
_KEEP_PROGRESS_MS = 86_400_000
"""How long progress is kept after the last report."""
_ASKED = ord("2")
"""What ``extend.lua`` answers for a job that was asked to be cancelled."""
_FIRST_DELIVERY = (1, 1, 0)
"""Attempt, number and crashes of a job that nothing happened to before."""


class RedisConsumerBackend(ConsumerBackend):
    """Receives with one round trip a batch, and waits on a stream: a publish wakes it at once (RCV-2).

    The request for the next jobs goes to the server together with the wait, so that a publish and the
    delivery of the job are one trip apart. So a request is under way for as long as the wait lasts, and
    others of this consumer overtake it. Requests that wait have a sender of their own: the server remembers
    what the last of them took, whatever was settled since.

    A request that was never answered is sent again before any other, under its own number: it is carried out
    once, and what it settled is known.

    Made by :meth:`RedisClient.open_consumer`.
    """

    def __init__(self, queue: RemoteQueue, *, lease_s: float, sweep_s: float) -> None:
        super().__init__()
        self._queue = queue
        self._redis = queue.redis
        self._lease_s = lease_s
        self._sweep_s = min(sweep_s, lease_s / 3)  # it notices an outage before that ends a lease
        self._sender = secrets.token_urlsafe(8)
        self._interrupt_key = queue.keys.interrupt(self._sender)
        self._lock = threading.RLock()  # what is held, and the requests
        self._receiving = threading.RLock()
        self._requests = _Requests(queue, SETTLE_AND_TAKE, self._sender)
        self._waits = _Requests(queue, SETTLE_AND_TAKE, f"{self._sender}.wait")
        self._waiting: _Request | None = None
        """The request that waits at the server."""
        self._receipts = Receipts(self._sender)
        self._held: dict[str, Held] = {}
        self._no_settlements = SettlementBatch([], {}, self._receipts.why_not_held)
        self._unclaimed: list[str] = []
        """The receipts of jobs that an unanswered request took for nobody."""
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
            except QueueNotFound:  # deleted: every receipt of it is lost (ADM-3)
                outcomes += [self._lose(settlement.receipt) for settlement in chunk]
                continue
            outcomes += settled.outcomes
            deliveries += settled.deliveries
        return Settled(outcomes, deliveries)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        self._check_open()
        if self._requests.unanswered is not None:  # else what it settled would seem to be lost
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
            with self._lock:
                for (receipt, _), kept in zip(chunk, answer.decode(), strict=True):
                    # Else it was settled meanwhile, or may have been.
                    if kept == "0" and receipt in self._held and not self._is_in_doubt(receipt):
                        self._lose(receipt)
        return [self._outcome(receipt, is_asked=receipt in cancelled) for receipt in receipts]

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
            return  # what is held is the parent's
        left_s = self._redis.closing_left_s
        if not self._lock.acquire(timeout=max(0.0, min(self._redis.retry_timeout_s, left_s))):
            self._closed = True
            self.logger.warning("a consumer closed without releasing its jobs: a request is under way still")
            return
        try:
            if self._closed:
                return
            if self._waiting is not None:  # what it took is released; if it took nothing yet, it never will
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
        except (JobsError, ServerUnreachable) as error:  # then a wait can't be under way for long either
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
        except JobsError as error:
            refused = find_refused(error, batch)
            if refused and request is not None and isinstance(error, RefusedByServer):
                return self._send_others(settlements, take, request, refused, error)
            self._receipts.lose(batch.receipts())  # settled or not: nobody can tell any more
            raise
        except BaseException as error:  # an outage; or an interrupt, which may come between any two steps
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
        """Settle all but the acks whose next jobs were refused; those are held still (THEN-3)."""
        self._held.update(request.content.held())
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
        except RefusedByServer:
            requests.unanswered = None
            for receipt in batch.receipts():
                self._lose(receipt)
            raise
        requests.unanswered = None
        try:
            outcomes, deliveries = self._read_answer(request, 0, answer)
            if outcomes:  # else its acks with next jobs never took effect, and are held still
                for receipt in batch.receipts():
                    self._held.pop(receipt, None)
                for receipt in batch.answer(outcomes):
                    self._lose(receipt)
            # Nobody knows for how long they are leased still.
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
                if self._closed and deliveries:  # taken just before
                    with suppress(JobsError):  # then their leases run out
                        self._settle([Release(delivery.receipt) for delivery in deliveries], 0)
                self._check_open()
                return deliveries
        except JobsError:
            raise
        except BaseException:  # an interrupt: the server may have leased jobs by then
            with self._lock:
                self._waits.keep(request)
            raise
        finally:
            self._waiting = None

    def _send_again(self, request: _Request) -> Any:
        """Send a wait whose answer didn't come: what it took is answered again, or it takes now."""
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
        """Bury jobs that were leased and can't be delivered; if that fails, their leases run out."""
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
    """The server had nothing: a wait from then on misses nothing, whenever it begins."""

    wake_id: str
    """The last wake-up before that."""
    until: float
    """When something may become ready without a wake-up, by the monotonic clock."""
