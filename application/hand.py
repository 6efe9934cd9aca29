"""What a consumer has in hand: jobs that were delivered to it and are not settled yet.

Two threads share it. The consumer's own starts one job after the other and settles finished ones. The
keeper's extends all leases in time (LSE-3) and learns which were lost (LSE-4); and while a slow job runs, it
settles finished jobs and releases those that wait, so that neither has to wait for it.

A settlement stays in hand until the broker answers it. While the broker is away, the keeper goes on extending
the leases, and each call of :meth:`Hand.settle` asks again.
"""

import threading
from collections import deque
from collections.abc import Iterable
from contextlib import suppress
from logging import Logger
from time import monotonic
from types import TracebackType
from typing import Self

from ..domain.errors import BackendUnavailable, Closed, JobsError
from ..domain.text import printable
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
        """Note how the job that ran is to be settled; :meth:`settle` does it."""
        self._done.append(settlement)

    def pass_over(self) -> None:
        """Release the job that was taken last instead of running it; :meth:`settle` does it."""
        current, self._current = self._current, None
        if current is not None:
            self._done.append(Release(current.receipt))

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

    @property
    def pending(self) -> int:
        """How many settlements the broker hasn't answered yet."""
        return len(self._done)

    def settle(self, *, take: int = 0) -> list[Delivery]:
        """Settle all finished jobs, and return up to ``take`` further jobs, leased in the same round trip.

        Raises:
            BackendUnavailable: the broker is away. Call again: the settlements stay in hand, unless the
                connection was the lease and they are lost with it.
        """
        with self._settling:
            # What is added meanwhile is for the next time.
            settlements = [self._done.popleft() for _ in range(len(self._done))]
            if not settlements and not take:
                return []
            try:
                answer = self._backend.settle(settlements, take=take)
            except BaseException as error:
                if self._is_final(error):
                    self._give_up(settlements, error)
                else:
                    self._done.extendleft(reversed(settlements))
                raise
            self._forget(settlements)
            self._count(settlements, answer.outcomes)
            return answer.deliveries

    def release_waiting(self) -> None:
        """Settle all finished jobs, and release those that haven't been started; raises as :meth:`settle`."""
        self._backend.release_ahead()  # first, or the broker would send here again what is released now
        released = self._pass_over_waiting()
        self.settle()
        if released:
            self._logger.info("released %d jobs before they were started", released)

    def release_all(self) -> None:
        """Settle all finished jobs, and release the rest; raises as :meth:`settle`."""
        self._current = None
        self._waiting.clear()
        settled = {settlement.receipt for settlement in self._done}
        self._done.extend(Release(receipt) for receipt in self._unsettled if receipt not in settled)
        self.release_waiting()

    def tend(self) -> None:
        """Extend the leases that are a third gone (LSE-3, LSE-4), and clear the way around a slow job."""
        now = monotonic()
        lease_s = self._backend.lease_s
        # Where the connection is the lease, asking costs nothing, and tells whether it still stands.
        every_s = 0.0 if lease_s is None else lease_s / 3
        if self._unsettled and now - self._extended_s >= every_s:
            self._extend(list(self._unsettled))
            self._extended_s = now  # last: what failed is tried again at the next tick
        if self._current is not None and now - self._started_s >= _TICK_S:
            self.release_waiting()

    def _is_final(self, error: BaseException) -> bool:
        """Whether it is no use to ask again after this error of a settlement."""
        if isinstance(error, BackendUnavailable):
            return self._backend.lease_s is None
        return isinstance(error, JobsError)

    def _give_up(self, settlements: list[Settlement], error: BaseException) -> None:
        waiting = list(self._waiting)
        if isinstance(error, BackendUnavailable):  # the connection was the lease of all
            self._waiting.clear()
            self._forget(waiting)
        self._forget(settlements)
        done = sum(not isinstance(settlement, Release) for settlement in settlements)
        self.lost += done
        self._logger.warning(
            "%d settlements lost, %d jobs not released: %s", done, len(settlements) - done, error
        )

    def _pass_over_waiting(self) -> int:
        """Have the jobs that wait released with the next settlement; return how many they are."""
        waiting: list[Delivery] = []
        with suppress(IndexError):  # none is left, whichever thread took some
            while True:
                waiting.append(self._waiting.popleft())
        self._done.extend(Release(delivery.receipt) for delivery in waiting)
        return len(waiting)

    def _may_be_over(self, now: float) -> bool:
        lease_s = self._backend.lease_s
        return lease_s is not None and now - self._extended_s >= lease_s

    def _make_sure(self, now: float) -> None:
        """Ask whose the jobs that wait are, for their leases may be over; start none if nobody answers.

        So it is after an outage, or where this process stood still for as long as a lease.
        """
        try:
            self._extend(list(self._unsettled))
            self._extended_s = now
        except BackendUnavailable as error:
            passed_over = self._pass_over_waiting()
            self._logger.warning(
                "%d jobs aren't started: their leases may be over, and the broker is away: %s",
                passed_over,
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
                self._logger.warning(
                    "job %s: its lease was lost; another consumer may run it", printable(delivery.id)
                )

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
                self._logger.warning("lease %s was lost before it was settled", printable(settlement.receipt))


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
