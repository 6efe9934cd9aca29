"""What a consumer has in hand: jobs that were delivered to it and are not settled yet.

Two threads share it. The consumer's own starts one job after the other and settles what is done. The
keeper's, once in a while, extends the leases of all (LSE-3) and learns which were lost (LSE-4); and while a
slow job runs, it settles what is done and gives back what waits, so that neither has to wait for it.
"""

import threading
from collections import deque
from collections.abc import Iterable, Iterator
from logging import Logger
from time import monotonic
from types import TracebackType
from typing import Self, TypeVar

from ..domain.errors import BackendUnavailable, Closed, JobsError
from ..ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)

_TICK_S = 1.0
"""How often the keeper looks at most; also how long a job may run before it counts as slow."""


class Hand:
    """The deliveries in hand of one consumer, and a tally of how those before them ended."""

    def __init__(self, backend: ConsumerBackend, logger: Logger) -> None:
        self._backend = backend
        self._logger = logger
        self._waiting: deque[Delivery] = deque()
        self._done: deque[Settlement] = deque()
        self._unsettled: dict[str, Delivery] = {}
        self._lost: set[str] = set()
        self._current: Delivery | None = None
        self._started_s = 0.0
        self._extended_s = 0.0
        self._settling = threading.Lock()
        self.settled: dict[type[Settlement], int] = {Ack: 0, Retry: 0, Dead: 0, Release: 0}
        """How many were settled in which way."""
        self.lost = 0
        """How many were done, but no longer this consumer's to settle."""

    def take(self, deliveries: list[Delivery]) -> None:
        """Add what was received just now."""
        self._extended_s = monotonic()
        for delivery in deliveries:
            self._unsettled[delivery.receipt] = delivery
        self._waiting.extend(deliveries)

    def start_next(self) -> Delivery | None:
        """Take the next job to run, passing over those lost while they waited, or None where none is left."""
        self._current = None
        if not self._waiting:
            return None
        now = monotonic()
        if self._may_be_over(now):
            self._make_sure(now)
        while True:
            try:
                delivery = self._waiting.popleft()
            except IndexError:
                return None
            if delivery.receipt not in self._lost:
                break
            self._unsettled.pop(delivery.receipt, None)
        self._started_s = now  # first: the keeper reads it once there is a current job
        self._current = delivery
        return delivery

    def finish(self, settlement: Settlement) -> None:
        """Say how the job that ran is to be settled; :meth:`settle` does it."""
        self._done.append(settlement)

    @property
    def has_waiting(self) -> bool:
        """Whether a job is left that hasn't been started."""
        return bool(self._waiting)

    @property
    def current_is_lost(self) -> bool:
        """Whether the job that runs now is no longer this consumer's (LSE-4)."""
        current = self._current
        return current is not None and current.receipt in self._lost

    def current(self) -> Delivery | None:
        """The job that runs now, unless it is lost."""
        return None if self.current_is_lost else self._current

    def settle(self, *, take: int = 0) -> list[Delivery]:
        """Settle all that is done, and return up to ``take`` further jobs, leased in the same round trip.

        A broker that can't be reached raises nothing: what was done, and what waits, comes back when its
        lease ends, and runs again.
        """
        with self._settling:
            # What is added meanwhile is for the next time.
            settlements = [self._done.popleft() for _ in range(len(self._done))]
            if not settlements and not take:
                return []
            try:
                answer = self._backend.settle(settlements, take=take)
            except JobsError as error:
                done = sum(not isinstance(settlement, Release) for settlement in settlements)
                self.lost += done
                self._logger.warning(
                    "%d settlements lost, %d jobs not released; their leases will run out: %s",
                    done,
                    len(settlements) - done,
                    error,
                )
                if not isinstance(error, BackendUnavailable):
                    raise
                unstarted = list(_drained(self._waiting))
                self._forget(unstarted)
                return []
            finally:
                self._forget(settlements)
            self._count(settlements, answer.outcomes)
            return answer.deliveries

    def give_back_waiting(self) -> None:
        """Settle all that is done, and release what hasn't been started."""
        self._backend.release_ahead()  # first, or what is released now would be sent here again
        releases = [Release(delivery.receipt) for delivery in _drained(self._waiting)]
        self._done.extend(releases)
        self.settle()
        if releases:
            self._logger.info("gave %d jobs back before they were started", len(releases))

    def give_back_all(self) -> None:
        """Settle all that is done, and release the rest."""
        self._current = None
        self.give_back_waiting()
        self._done.extend(Release(receipt) for receipt in list(self._unsettled))
        self.settle()

    def tend(self) -> None:
        """Clear the way around a slow job, and extend the leases that are a third gone (LSE-3, LSE-4)."""
        now = monotonic()
        if self._current is not None and now - self._started_s >= _TICK_S:
            self.give_back_waiting()
        lease_s = self._backend.lease_s
        # Where the connection is the lease, asking costs nothing, and tells whether it still stands.
        every_s = 0.0 if lease_s is None else lease_s / 3
        if self._unsettled and now - self._extended_s >= every_s:
            self._extend(list(self._unsettled))
            self._extended_s = now  # last: what failed is tried again at the next tick

    def _may_be_over(self, now: float) -> bool:
        lease_s = self._backend.lease_s
        return lease_s is not None and now - self._extended_s >= lease_s

    def _make_sure(self, now: float) -> None:
        """Ask whose the jobs that wait are: this process stood still, the keeper too, for a whole lease."""
        try:
            self._extend(list(self._unsettled))
            self._extended_s = now
        except BackendUnavailable as error:
            passed_over = list(_drained(self._waiting))
            self._forget(passed_over)
            self._logger.warning(
                "%d jobs aren't started: their leases may be over, and nobody answers: %s",
                len(passed_over),
                error,
            )

    def _extend(self, receipts: list[str]) -> None:
        try:
            outcomes = self._backend.extend(receipts)
        except Closed:  # under the handler's feet: its job was released
            outcomes = [SettleOutcome.LOST] * len(receipts)
        for receipt, outcome in zip(receipts, outcomes, strict=True):
            delivery = self._unsettled.get(receipt)
            if outcome is SettleOutcome.LOST and delivery is not None and receipt not in self._lost:
                self._lost.add(receipt)
                self._logger.warning("job %s: its lease was lost; another consumer may run it", delivery.id)

    def _forget(self, jobs: Iterable[Delivery | Settlement]) -> None:
        forget = self._unsettled.pop
        for job in jobs:
            forget(job.receipt, None)
        if self._lost:
            self._lost.intersection_update(self._unsettled)

    def _count(self, settlements: list[Settlement], outcomes: list[SettleOutcome]) -> None:
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            if outcome is not SettleOutcome.LOST:
                self.settled[type(settlement)] += 1
            elif not isinstance(settlement, Release):
                self.lost += 1
                self._logger.warning("lease %s was lost before it was settled", settlement.receipt)


ItemT = TypeVar("ItemT")


def _drained(items: deque[ItemT]) -> Iterator[ItemT]:
    """Take the items out one by one, whichever thread else takes some."""
    while True:
        try:
            item = items.popleft()
        except IndexError:
            return
        yield item


class Keeper:
    """The thread that tends a hand, for as long as the context lasts."""

    def __init__(self, hand: Hand, lease_s: float | None, logger: Logger) -> None:
        self._hand = hand
        self._logger = logger
        self._tick_s = _TICK_S if lease_s is None else min(_TICK_S, lease_s / 6)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mindtrace-jobs-keeper", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._tick_s):
            try:
                self._hand.tend()
            except JobsError as error:
                # The broker is out of reach or closing; the consumer's own thread deals with that.
                self._logger.debug("leases not extended: %s", error)
            except Exception:  # a fault of the adapter's must not stop the heartbeat
                self._logger.exception("leases not extended")
