"""A consumer's side of a queue in Redis."""

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from math import inf
from time import monotonic
from typing import Any, NamedTuple

from ...domain.errors import Closed, JobsError, QueueNotFound
from ...domain.reasons import DeadReason
from ...domain.reporting import Progress
from ...domain.text import printable
from ...ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Release,
    Retry,
    Settled,
    Settlement,
    SettleOutcome,
)
from ..shared.receipts import Receipts
from .connections import Argument
from .keys import QueueKeys
from .link import Call, Link, OutOfReach, RefusedByServer
from .looking import write_progress
from .records import NO_BODY, find_odd, shown
from .refusals import naming_queue
from .scripts import EXCHANGE, EXTEND

_MAX_BATCH = 1000
"""The most settlements or extensions of one call: a script can't take many thousands of arguments at once."""
_MAX_TAKE = 500
"""The most jobs that one call takes, so that the server isn't busy with one consumer for long."""
_KEEP_MS = 600_000
"""How long the answer to a request is kept for the case that it was lost."""
_ENDING_S = 2.0
"""How long ``close`` waits for a ``receive`` on another thread to end."""
_INTERRUPT_S = 0.5
"""How long ``interrupt`` tries to reach the server: a signal handler may have called it."""
_NO_SETTLEMENTS = (0,)
"""How a request tells that it settles nothing."""
_FIRST_DELIVERY = (1, 1, 0)
"""Attempt, number and crashes of a job that nothing happened to before."""

_Held = tuple[str, str]
"""The id of a job, and the token of its lease, which is that of all that were taken together."""


class RedisConsumerBackend(ConsumerBackend):
    """Receives with one round trip a batch, and waits on a stream: a publish wakes it at once (RCV-2).

    What it wants once it is woken goes to the server together with the wait, so that a publish and the
    delivery of the job are one trip apart. That makes a request which is under way for as long as the wait
    lasts: another of this consumer's that overtakes it makes it STALE, and it takes nothing any more.

    A request whose answer never came stays open: it is sent again before any other, under its own number, so
    that it is carried out once, and what it settled is known.

    Made by :meth:`RedisClient.open_consumer`.
    """

    def __init__(self, link: Link, keys: QueueKeys, *, lease_s: float, sweep_s: float) -> None:
        super().__init__()
        self._link = link
        self._keys = keys
        self._lease_s = lease_s
        self._sweep_s = sweep_s
        self._consumer = secrets.token_urlsafe(8)
        self._names = keys.for_exchange(self._consumer)
        self._lock = threading.RLock()  # what is held, and the numbers of requests
        self._receiving = threading.RLock()
        self._requests = 0
        self._receipts = Receipts(self._consumer)
        self._held: dict[str, _Held] = {}
        self._open: _Open | None = None
        self._unclaimed: list[str] = []
        """The receipts of jobs that an open request took for nobody."""
        self._idle: _Idle | None = None
        self._interrupted = threading.Event()
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
                exchanged = self._exchange(chunk, take if is_last else 0)
            except QueueNotFound:  # deleted: every receipt of it is lost (ADM-3)
                outcomes += [self._lose(settlement.receipt) for settlement in chunk]
                continue
            outcomes += exchanged.outcomes
            deliveries += exchanged.deliveries
        return Settled(outcomes, deliveries)

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        self._check_open()
        if self._open is not None:  # else what it settled would seem to be lost
            with self._lock, suppress(QueueNotFound), naming_queue(self._keys.queue, self._link):
                self._catch_up()
        known = [(receipt, job) for receipt in receipts if (job := self._held.get(receipt)) is not None]
        for start in range(0, len(known), _MAX_BATCH):
            chunk = known[start : start + _MAX_BATCH]
            arguments: list[Argument] = [round(self._lease_s * 1000)]
            for _, job in chunk:
                arguments += job
            try:
                with naming_queue(self._keys.queue, self._link):
                    answer: bytes = self._link.run(EXTEND, self._keys.for_extend(), arguments)
            except QueueNotFound:
                answer = b"0" * len(chunk)
            with self._lock:
                for (receipt, _), kept in zip(chunk, answer.decode(), strict=True):
                    # Else it was settled meanwhile, or may have been.
                    if kept == "0" and receipt in self._held and not self._is_in_doubt(receipt):
                        self._lose(receipt)
        why_not = self._receipts.why_not_held
        return [SettleOutcome.OK if receipt in self._held else why_not(receipt) for receipt in receipts]

    def report(self, receipt: str, progress: Progress) -> None:
        held = self._held.get(receipt)
        if held is not None:
            write_progress(self._link, self._keys, held[0], progress)

    def interrupt(self) -> None:
        self._interrupted.set()
        self._end_wait()

    def close(self) -> None:
        if os.getpid() != self._pid:
            return  # what is held is the parent's
        if not self._lock.acquire(timeout=max(0.0, min(self._link.retry_timeout_s, self._link.left_s))):
            self._closed = True
            self.logger.warning("a consumer closed without releasing its jobs: a request is under way still")
            return
        try:
            if self._closed:
                return
            # Also makes STALE what waits at the server, and would take jobs for nobody.
            self._settle([Release(receipt) for receipt in list(self._held)], 0)
        except JobsError as error:
            self.logger.warning("a consumer closed without releasing its jobs: %s", error)
            return
        finally:
            self._closed = True
            self._lock.release()
        self._end_wait()
        if self._receiving.acquire(timeout=max(0.0, min(_ENDING_S, self._link.left_s))):
            with suppress(JobsError, OutOfReach):  # else they expire
                self._link.forget_requests(self._names[-1], self._keys.interrupt(self._consumer))
            self._receiving.release()

    def _end_wait(self) -> None:
        key = self._keys.interrupt(self._consumer)
        try:
            self._link.command("XADD", key, "MAXLEN", 1, "*", "w", 1, retry_timeout_s=_INTERRUPT_S)
            self._link.command("PEXPIRE", key, 2000, retry_timeout_s=_INTERRUPT_S)
        except (JobsError, OutOfReach) as error:  # then a wait can't be under way for long either
            self.logger.debug("a wait wasn't interrupted: %s", error)

    # -- one round trip ---------------------------------------------------------------------------

    def _exchange(self, settlements: Sequence[Settlement], take: int) -> Settled:
        with self._lock, naming_queue(self._keys.queue, self._link):
            self._catch_up()
            return self._send(settlements, take)

    def _send(self, settlements: Sequence[Settlement], take: int) -> Settled:
        batch = _Batch(settlements, self._held, self._receipts.why_not_held)
        request = self._next_request(take, batch.arguments)
        try:
            answer = self._link.run(*request)
        except JobsError:
            self._receipts.lose(batch.receipts())  # settled or not: nobody can tell any more
            raise
        except BaseException as error:  # an outage, or an interrupt
            self._held.update(batch.held())
            if not isinstance(error, OutOfReach) or error.may_have_run:
                self._open = _Open(request, self._requests, batch)
            raise
        outcomes, deliveries = self._understood(self._requests, take, answer)
        for receipt in batch.answer(outcomes):
            self._lose(receipt)
        return Settled(batch.outcomes, deliveries)

    def _catch_up(self) -> None:
        """Learn what became of the open request, and give back what it took."""
        if self._open is not None:
            request, number, batch = self._open
            try:
                answer = self._link.run(*request)
            except RefusedByServer:
                self._open = None
                for receipt in batch.receipts():
                    self._lose(receipt)
                raise
            self._open = None
            outcomes, deliveries = self._understood(number, 0, answer)
            for receipt in batch.receipts():
                self._held.pop(receipt, None)
            for receipt in batch.answer(outcomes):
                self._lose(receipt)
            # Nobody knows for how long they are leased still.
            self._unclaimed += [delivery.receipt for delivery in deliveries]
        if self._unclaimed:
            self._send([Release(receipt) for receipt in self._unclaimed], 0)
            self._unclaimed.clear()

    def _is_in_doubt(self, receipt: str) -> bool:
        return self._open is not None and receipt in self._open.batch.receipts()

    def _take(self, take: int) -> list[Delivery]:
        with self._lock:
            self._check_open()
            return self._exchange([], take).deliveries

    def _wait_and_take(self, wake_id: str, wait_s: float, take: int) -> list[Delivery]:
        with self._lock, naming_queue(self._keys.queue, self._link):
            self._check_open()
            self._catch_up()
            request = self._next_request(take, _NO_SETTLEMENTS)
            number = self._requests
        interrupt = self._keys.interrupt(self._consumer)
        streams = [(self._keys.wake, wake_id), (interrupt, self._interrupts_seen)]
        news, answer = self._link.wait(streams, wait_s, request)
        self._interrupts_seen = news.get(interrupt, self._interrupts_seen)
        with self._lock:
            if answer is None:
                self._check_open()
                answer = self._asked_again(request, number)
            if answer is None:
                return []
            _, deliveries = self._understood(number, take, answer)
            if self._closed and deliveries:  # taken just before
                with suppress(JobsError):  # then their leases run out
                    self._settle([Release(delivery.receipt) for delivery in deliveries], 0)
            self._check_open()
            return deliveries

    def _asked_again(self, request: Call, number: int) -> Any:
        """Repeat a request whose answer didn't come: what it took is answered again, or it takes now."""
        self._idle = None
        try:
            with naming_queue(self._keys.queue, self._link):
                try:
                    return self._link.run(*request)
                except OutOfReach:
                    if number == self._requests:
                        self._open = _Open(request, number, _Batch([], {}, self._receipts.why_not_held))
                    raise
        except RefusedByServer as error:
            if str(error).startswith("STALE"):  # another has overtaken it, so it took nothing
                return None
            raise

    def _next_request(self, take: int, settlements: Sequence[Argument]) -> Call:
        self._requests += 1
        lease_ms = round(self._lease_s * 1000)
        return (
            EXCHANGE,
            self._names,
            [
                self._requests,
                self._consumer,
                lease_ms,
                _KEEP_MS + lease_ms,
                min(take, _MAX_TAKE),
                *settlements,
            ],
        )

    def _understood(self, request: int, take: int, answer: Any) -> tuple[bytes, list[Delivery]]:
        now, event, wake, outcomes, ids, bodies, infos = answer
        if take:
            until = monotonic() + (event - now) / 1000 if event >= 0 else inf
            self._idle = None if ids else _Idle(wake.decode(), until)
        return outcomes, self._deliveries(request, ids, bodies, infos)

    def _deliveries(
        self, request: int, ids: list[bytes], bodies: list[bytes | None], infos: list[bytes]
    ) -> list[Delivery]:
        deliveries = []
        held, lease_s, granted = self._held, self._lease_s, self._receipts.granted
        receipt_start, token = f"{self._consumer}.", f"{self._consumer}:{request}"
        odd = find_odd(ids, bodies, infos) if ids else None
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
        """Bury jobs that were leased and can't be delivered; where that fails, their leases run out.

        One without a body is dropped: there is nothing to bury.
        """
        operations: list[Argument] = [0]
        for id_, damage in damaged:
            operations += (f"d{DeadReason.MALFORMED}", id_, token, damage, 0)
        with suppress(JobsError), naming_queue(self._keys.queue, self._link):
            outcomes: bytes = self._link.run(*self._next_request(0, operations))[3]
            for (id_, damage), outcome in zip(damaged, outcomes.decode(), strict=True):
                if outcome == "1":  # else somebody else was faster
                    end = "was dropped" if damage == NO_BODY else f"is dead: {DeadReason.MALFORMED}"
                    self.logger.error(
                        "queue %s: job %s %s: %s", self._keys.queue, printable(shown(id_)), end, damage
                    )

    def _lose(self, receipt: str) -> SettleOutcome:
        self._held.pop(receipt, None)
        self._receipts.lose([receipt])
        return SettleOutcome.LOST

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._keys.queue!r} belongs to another process")
        if self._closed:
            raise Closed(f"this consumer of queue {self._keys.queue!r} is closed")


class _Idle(NamedTuple):
    """The server had nothing: a wait from then on misses nothing, whenever it begins."""

    wake_id: str
    """The last wake-up before that."""
    until: float
    """When something may become ready without a wake-up, by the monotonic clock."""


class _Open(NamedTuple):
    """A request that may or may not have run."""

    request: Call
    number: int
    batch: "_Batch"


class _Batch:
    """Settlements on their way to the script, which answers plain acks first, and back in their own order."""

    def __init__(
        self,
        settlements: Sequence[Settlement],
        held: dict[str, _Held],
        why_not_held: Callable[[str], SettleOutcome],
    ) -> None:
        self.outcomes = [SettleOutcome.OK] * len(settlements)
        self._acked: list[int] = []
        self._otherwise: list[int] = []
        self._settlements = settlements
        self._runs: list[tuple[str, list[str]]] = []
        self._others: list[Argument] = []
        runs, others = self._runs, self._others
        token_of_run, ids = "", list[str]()
        for place, settlement in enumerate(settlements):
            job = held.pop(settlement.receipt, None)
            if job is None:
                self.outcomes[place] = why_not_held(settlement.receipt)
            elif type(settlement) is Ack and settlement.result is None:
                self._acked.append(place)
                id_, token = job
                if token != token_of_run:
                    token_of_run, ids = token, []
                    runs.append((token, ids))
                ids.append(id_)
            else:
                self._otherwise.append(place)
                others += _operation(settlement, job)
        self.arguments: list[Argument] = [len(runs)]
        """What the script is to be told."""
        for token, ids in runs:
            self.arguments += (token, ",".join(ids))
        self.arguments += others

    def receipts(self) -> list[str]:
        """The receipts that are sent, in the order of the arguments."""
        return [self._settlements[place].receipt for place in (*self._acked, *self._otherwise)]

    def held(self) -> Iterator[tuple[str, _Held]]:
        """The receipts that are sent, each with what was held under it."""
        acked = [(id_, token) for token, ids in self._runs for id_ in ids]
        others = self._others
        otherwise = [(str(others[at + 1]), str(others[at + 2])) for at in range(0, len(others), 5)]
        return zip(self.receipts(), (*acked, *otherwise), strict=True)

    def answer(self, answers: bytes) -> Iterator[str]:
        """Take the script's answers; yield the receipts that were lost."""
        if b"0" not in answers:
            return
        for place, kept in zip((*self._acked, *self._otherwise), answers.decode(), strict=True):
            if kept == "0":
                self.outcomes[place] = SettleOutcome.LOST
                yield self._settlements[place].receipt


def _operation(settlement: Settlement, job: _Held) -> tuple[Argument, ...]:
    """A settlement as the script reads it: op, id, token, text, number."""
    match settlement:
        case Ack(_, result, ttl_s):
            return ("a", *job, result or b"", max(1, round(ttl_s * 1000)))
        case Retry(_, delay_s, error):
            return ("r", *job, error.encode("utf-8", "replace"), round(delay_s * 1000))
        case Dead(_, reason, error):
            return (f"d{reason}", *job, error.encode("utf-8", "replace"), 0)
        case Release():
            return ("l", *job, "", 0)
