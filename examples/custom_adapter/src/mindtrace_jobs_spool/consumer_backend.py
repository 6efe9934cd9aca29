"""A consumer's side of a queue in a folder."""

import threading
from collections.abc import Sequence
from contextlib import suppress
from itertools import count
from secrets import token_hex
from time import monotonic

from mindtrace.jobs.domain.errors import Closed, QueueNotFound
from mindtrace.jobs.ports import ConsumerBackend, Delivery, Release, Settled, Settlement, SettleOutcome

from . import transitions
from .change_notifier import ChangeNotifier
from .file_name import FileName, time_ns
from .folder import QueueFolder, State

_POLL_S = 0.025
"""How often, in seconds, a receiver polls for the changes of other processes."""


class SpoolConsumerBackend(ConsumerBackend):
    """Leases by rename. Made by :meth:`SpoolClient.open_consumer`."""

    def __init__(self, folder: QueueFolder, notifier: ChangeNotifier, lease_s: float) -> None:
        super().__init__()
        folder.names(State.READY)  # raises where there is no such queue
        self._folder = folder
        self._notifier = notifier
        self._lease_s = lease_s
        name = token_hex(8)
        self._prefix = f"{name}."
        self._receipts = (f"{name}.{number}" for number in count(1))
        self._held: dict[str, FileName] = {}
        self._lost: set[str] = set()
        self._lock = threading.Lock()  # of what is held; nobody waits for jobs under it
        self._interrupted = False
        self._closed = False

    @property
    def lease_s(self) -> float:
        return self._lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up = monotonic() + timeout_s
        while True:
            changes = self._notifier.changes  # first: what happens from here on cuts the wait short
            with self._lock:
                self._check_open()
                next_when = transitions.sweep(self._folder)
                deliveries = self._take(max_jobs)
            left_s = give_up - monotonic()
            if deliveries:
                return deliveries
            if self._interrupted or left_s <= 0:
                self._interrupted = False
                return []
            if next_when is not None:
                left_s = min(left_s, (next_when - time_ns()) / 1e9)
            self._notifier.wait(changes, max(0.0, min(left_s, _POLL_S)))

    def _take(self, max_jobs: int) -> list[Delivery]:
        deliveries = []
        for name in transitions.lease(self._folder, max_jobs, self._lease_s, self._receipts):
            content = self._folder.read(name, State.LEASED)
            if content is None:  # deleted meanwhile, or leased for less than this took
                continue
            self._held[name.token] = name
            _, _, receipt, attempt, number, crashes, id_ = name
            deliveries.append(
                Delivery(id_, content.body, receipt, attempt, number, crashes, deadline_s=self._lease_s)
            )
        return deliveries

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        with self._lock:
            self._check_open()
            outcomes = [self._settle_one(settlement) for settlement in settlements]
            if SettleOutcome.OK in outcomes:
                self._folder.sync()
            deliveries: list[Delivery] = []
            with suppress(QueueNotFound):  # deleted meanwhile; the outcomes say so
                if take:
                    transitions.sweep(self._folder)
                    deliveries = self._take(take)
        self._notifier.notify()
        return Settled(outcomes, deliveries)

    def _settle_one(self, settlement: Settlement) -> SettleOutcome:
        name = self._held.get(settlement.receipt)
        if name is None:
            return self._why_not_held(settlement.receipt)
        settled = False
        with suppress(QueueNotFound):
            settled = transitions.settle(self._folder, name, settlement)
        del self._held[settlement.receipt]  # not before: what raised may be tried again
        if settled:
            return SettleOutcome.OK
        self._lost.add(settlement.receipt)
        return SettleOutcome.LOST

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        with self._lock:
            self._check_open()
            return [self._extend_one(receipt) for receipt in receipts]

    def _extend_one(self, receipt: str) -> SettleOutcome:
        name = self._held.get(receipt)
        if name is None:
            return self._why_not_held(receipt)
        longer = transitions.extend(self._folder, name, self._lease_s)
        if longer is None:
            del self._held[receipt]
            self._lost.add(receipt)
            return SettleOutcome.LOST
        self._held[receipt] = longer
        return SettleOutcome.OK

    def _why_not_held(self, receipt: str) -> SettleOutcome:
        """Tell a receipt that was settled from one that was lost, or never this consumer's."""
        mine = receipt.startswith(self._prefix)
        return SettleOutcome.ALREADY if mine and receipt not in self._lost else SettleOutcome.LOST

    def interrupt(self) -> None:
        self._interrupted = True
        self._notifier.notify()

    def close(self) -> None:
        with self._lock:
            self._closed = True
            for receipt, name in self._held.items():
                transitions.settle(self._folder, name, Release(receipt))  # not what its lease has lost
            self._held.clear()
        self._notifier.notify()

    def _check_open(self) -> None:
        if self._closed:
            raise Closed(f"this consumer of queue {self._folder.queue!r} is closed")
