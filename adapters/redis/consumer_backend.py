"""A consumer's side of a queue in Redis."""

import os
import secrets
import threading
from collections.abc import Callable, Iterator, Sequence
from time import monotonic
from typing import NamedTuple

from ...domain.errors import Closed, JobsError, QueueNotFound
from ...domain.reporting import Progress
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
from .keys import QueueKeys
from .link import Argument, Link, OutOfReach
from .looking import write_progress
from .refusals import naming_queue
from .scripts import EXCHANGE, EXTEND

_MAX_BATCH = 1000
"""The most jobs or settlements of one call: a script can't take many thousands of arguments at once."""
_KEEP_MS = 600_000
"""How long the answer to a request is kept for the case that it was lost."""


_FIRST_DELIVERY = (1, 1, 0)
"""Attempt, number and crashes of a job that nothing happened to before."""

_Held = tuple[str, str]
"""The id of a job, and the token of its lease."""


class RedisConsumerBackend(ConsumerBackend):
    """Receives with one round trip a batch, and waits on a stream: a publish wakes it at once (RCV-2).

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
        self._lock = threading.RLock()  # a request number must not overtake another
        self._requests = 0
        self._granted = 0
        self._held: dict[str, _Held] = {}
        self._lost: set[str] = set()
        self._interrupted = threading.Event()
        self._interrupts_seen = "0-0"
        self._closed = False
        self._pid = os.getpid()

    @property
    def lease_s(self) -> float:
        return self._lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        while True:
            exchanged = self._exchange([], max_jobs)
            if exchanged.deliveries:
                return exchanged.deliveries
            remaining_s = give_up - monotonic()
            if self._interrupted.is_set() or remaining_s <= 0:
                self._interrupted.clear()
                return []
            wait_s = min(remaining_s, self._sweep_s, exchanged.next_event_s)
            interrupt = self._keys.interrupt(self._consumer)
            streams = [(self._keys.wake, exchanged.wake_id), (interrupt, self._interrupts_seen)]
            news = self._link.wait(streams, wait_s)
            self._interrupts_seen = news.get(interrupt, self._interrupts_seen)
            if not news and wait_s == remaining_s:
                self._interrupted.clear()
                return []  # nothing came up to the very end, so there is nothing to ask for

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        outcomes: list[SettleOutcome] = []
        deliveries: list[Delivery] = []
        with self._lock:
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
                    if kept == "0" and receipt in self._held:  # else it was settled meanwhile
                        self._lose(receipt)
        return [
            SettleOutcome.OK if receipt in self._held else self._why_not_held(receipt) for receipt in receipts
        ]

    def report(self, receipt: str, progress: Progress) -> None:
        held = self._held.get(receipt)
        if held is not None:
            write_progress(self._link, self._keys, held[0], progress)

    def interrupt(self) -> None:
        self._interrupted.set()
        self._end_wait()

    def close(self) -> None:
        if self._closed:
            return
        try:
            self.settle([Release(receipt) for receipt in list(self._held)])
            self._link.command("UNLINK", self._keys.last(self._consumer))
        except (JobsError, OutOfReach) as error:
            self.logger.warning("a consumer closed without releasing its jobs: %s", error)
        finally:
            self._closed = True
        self._end_wait()

    def _end_wait(self) -> None:
        key = self._keys.interrupt(self._consumer)
        try:
            self._link.command("XADD", key, "MAXLEN", 1, "*", "w", 1)
            self._link.command("PEXPIRE", key, 2000)
        except (JobsError, OutOfReach) as error:  # then a wait can't be under way for long either
            self.logger.debug("a wait wasn't interrupted: %s", error)

    # -- one round trip ---------------------------------------------------------------------------

    def _exchange(self, settlements: Sequence[Settlement], take: int) -> "_Exchanged":
        with self._lock:
            self._check_open()
            self._requests += 1
            batch = _Batch(settlements, self._held, self._why_not_held)
            lease_ms = round(self._lease_s * 1000)
            arguments: list[Argument] = [
                self._requests,
                self._consumer,
                lease_ms,
                _KEEP_MS + lease_ms,
                min(take, _MAX_BATCH),
                *batch.arguments,
            ]
            try:
                with naming_queue(self._keys.queue, self._link):
                    answer = self._link.run(EXCHANGE, self._names, arguments)
            except BaseException:
                self._lost.update(batch.receipts())  # settled or not: nobody can tell any more
                raise
            now, event, wake, answers, ids, bodies, infos = answer
            for receipt in batch.answer(answers):
                self._lose(receipt)
            return _Exchanged(
                batch.outcomes,
                self._deliveries(self._requests, ids, bodies, infos),
                wake.decode(),
                max(0.0, (event - now) / 1000) if event >= 0 else self._sweep_s,
            )

    def _deliveries(
        self, request: int, ids: list[bytes], bodies: list[bytes | None], infos: list[bytes]
    ) -> list[Delivery]:
        deliveries = []
        held, lease_s, granted = self._held, self._lease_s, self._granted
        receipt_start, token_start = f"{self._consumer}.", f"{self._consumer}:{request}:"
        for place, (raw_id, body, info) in enumerate(zip(ids, bodies, infos, strict=True), 1):
            if body is None:  # deleted since, where this is an answer repeated
                continue
            receipt = f"{receipt_start}{granted + place}"
            id_ = raw_id.decode()
            held[receipt] = (id_, f"{token_start}{place}")
            attempt, number, crashes = map(int, info.split(b":")) if info else _FIRST_DELIVERY
            deliveries.append(Delivery(id_, body, receipt, attempt, number, crashes, lease_s))
        self._granted = granted + len(ids)
        return deliveries

    def _lose(self, receipt: str) -> SettleOutcome:
        self._held.pop(receipt, None)
        self._lost.add(receipt)
        return SettleOutcome.LOST

    def _why_not_held(self, receipt: str) -> SettleOutcome:
        """Tell a receipt that was settled from one that was lost, or never granted to this consumer."""
        name, _, number = receipt.rpartition(".")
        granted = name == self._consumer and number.isdecimal() and 0 < int(number) <= self._granted
        return SettleOutcome.ALREADY if granted and receipt not in self._lost else SettleOutcome.LOST

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._keys.queue!r} belongs to another process")
        if self._closed:
            raise Closed(f"this consumer of queue {self._keys.queue!r} is closed")


class _Exchanged(NamedTuple):
    outcomes: list[SettleOutcome]
    deliveries: list[Delivery]
    wake_id: str
    next_event_s: float


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
        acks: list[Argument] = []
        others: list[Argument] = []
        for place, settlement in enumerate(settlements):
            job = held.pop(settlement.receipt, None)
            if job is None:
                self.outcomes[place] = why_not_held(settlement.receipt)
            elif type(settlement) is Ack and settlement.result is None:
                self._acked.append(place)
                acks += job
            else:
                self._otherwise.append(place)
                others += _operation(settlement, job)
        self.arguments: list[Argument] = [len(self._acked), *acks, *others]
        """What the script is to be told."""

    def receipts(self) -> list[str]:
        """The receipts that are sent, in the order of the arguments."""
        return [self._settlements[place].receipt for place in (*self._acked, *self._otherwise)]

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
