"""A consumer's side of a queue in a table."""

import os
from collections.abc import Callable, Sequence
from contextlib import suppress
from secrets import token_hex
from time import monotonic
from typing import Any, TypeVar

from mindtrace.jobs.adapters.shared.error_messages import consumer_closed
from mindtrace.jobs.adapters.shared.receipts import Held
from mindtrace.jobs.domain.errors import Closed, JobsError, QueueNotFound
from mindtrace.jobs.ports import ConsumerBackend, Delivery, Release, Settled, Settlement, SettleOutcome

from .database import Database
from .transaction import Transaction

POLL_S = 0.025
"""How often a receiver looks for what other processes did, and for what time brings."""
Step = tuple[dict[str, bool], list[tuple[Any, ...]]]
"""By receipt, whether its lease still held when it was settled; and the rows of the jobs that were taken."""
AnswerT = TypeVar("AnswerT")


class TableConsumerBackend(ConsumerBackend):
    """Made by :meth:`TableClient.open_consumer`. All of it is guarded by the lock of the database."""

    def __init__(self, database: Database, namespace: str, queue: str, lease_s: float) -> None:
        super().__init__()
        self._database = database
        self._namespace = namespace
        self._queue = queue
        self._lease_s = lease_s
        self._held = Held[str](token_hex(8))
        """The token of each lease, by receipt. It also remembers what was settled, and what was lost."""
        self._unseen: list[str] = []
        """Tokens of jobs that were taken by a call that couldn't return them."""
        self._interrupted = self._closed = False
        self._pid = os.getpid()

    @property
    def lease_s(self) -> float:
        return self._lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        while True:
            changes = self._database.changes  # before it looks: what happens from here on ends the wait
            deliveries = self._settle_and_take([], max_jobs).deliveries
            left_s = give_up - monotonic()
            if deliveries:
                return deliveries
            if self._interrupted or left_s <= 0:
                self._interrupted = False
                return []
            self._database.wait(changes, min(left_s, POLL_S))

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        with self._database.lock:
            try:
                return self._settle_and_take(settlements, take)
            except QueueNotFound:  # deleted, with all that was leased
                return Settled([self._settled(settlement, {}) for settlement in settlements], [])

    def _settle_and_take(self, settlements: Sequence[Settlement], count: int) -> Settled:
        def work(tx: Transaction) -> Step:
            for unseen in self._unseen:
                tx.settle(unseen, Release(unseen))
            settled: dict[str, bool] = {}
            for settlement in settlements:
                token = self._held.get(settlement.receipt)
                if token and settlement.receipt not in settled:
                    settled[settlement.receipt] = tx.settle(token, settlement)
            tx.catch_up()  # a retry without a delay is due
            return settled, tx.take(count, self._lease_s) if count else []

        with self._database.lock:
            settled, rows = self._run(work, self._came_late)
            self._unseen.clear()
            return Settled([self._settled(each, settled) for each in settlements], self._granted(rows))

    def _came_late(self, step: Step) -> None:
        """Note what a call did that couldn't return it: the receipts are settled, the jobs go back."""
        settled, rows = step
        for receipt, held in settled.items():
            self._held.settle(receipt, took_effect=held)
        self._unseen += [row[0] for row in rows]

    def _settled(self, settlement: Settlement, settled: dict[str, bool]) -> SettleOutcome:
        receipt = settlement.receipt
        return self._held.settle(receipt, took_effect=settled.get(receipt, False))

    def _granted(self, rows: list[tuple[Any, ...]]) -> list[Delivery]:
        return [
            Delivery(id_, body, self._held.grant(token), attempt, number, crashes, self._lease_s)
            for token, id_, body, attempt, number, crashes in rows
        ]

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        def work(tx: Transaction) -> dict[str, bool]:
            held = {receipt: token for receipt in receipts if (token := self._held.get(receipt))}
            return {receipt: tx.extend(token, self._lease_s) for receipt, token in held.items()}

        with self._database.lock:
            try:
                extended = self._run(work)
            except QueueNotFound:
                extended = {}
            for receipt in receipts:
                if not extended.get(receipt):
                    self._held.lose(receipt)
            return [self._held.outcome(receipt) for receipt in receipts]

    def interrupt(self) -> None:
        self._interrupted = True
        self._database.notify()

    def close(self) -> None:
        if self._closed or os.getpid() != self._pid:  # what a parent process holds stays with it
            return
        with self._database.lock:
            with suppress(JobsError):  # else the leases end by themselves
                self.settle([Release(receipt) for receipt in self._held.receipts()])
            self._closed = True
        self._database.notify()

    def _run(
        self, work: Callable[[Transaction], AnswerT], if_late: Callable[[AnswerT], None] = lambda _: None
    ) -> AnswerT:
        if os.getpid() != self._pid:
            raise Closed(f"this consumer of queue {self._queue!r} belongs to another process")
        if self._closed:
            raise consumer_closed(self._queue)
        return self._database.run(
            lambda db, now: work(Transaction(db, now, self._namespace, self._queue)), if_late
        )
