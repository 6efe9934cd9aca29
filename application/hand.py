"""What a consumer has in hand: jobs that were delivered to it and are not settled yet.

Two threads share it. The consumer's own starts one job after the other and settles them. The keeper's, once
in a while, extends the leases of all (LSE-3), learns which were lost (LSE-4), and gives jobs back that have
waited long behind a slow one, so that another consumer can run them.
"""

import threading
from collections import deque
from collections.abc import Iterable
from logging import Logger
from time import monotonic
from types import TracebackType
from typing import Self

from ..domain.errors import JobsError
from ..ports import ConsumerBackend, Delivery, Release, Settlement, SettleOutcome

_TICK_S = 1.0
"""How often the keeper looks at most; also how long a job may run before those behind it are given back."""


class Hand:
    """The deliveries in hand of one consumer."""

    def __init__(self, backend: ConsumerBackend, logger: Logger) -> None:
        self._backend = backend
        self._logger = logger
        self._waiting: deque[Delivery] = deque()
        self._unsettled: dict[str, Delivery] = {}
        self._lost: set[str] = set()
        self._current: Delivery | None = None
        self._started_s = 0.0
        self._extended_s = 0.0
        self.given_back = 0
        """How many jobs were given back because they waited behind a slow one."""

    # -- the consumer's thread --------------------------------------------------------------------

    def take(self, deliveries: list[Delivery]) -> None:
        """Add what was received just now."""
        self._extended_s = monotonic()
        self._unsettled.update((delivery.receipt, delivery) for delivery in deliveries)
        self._waiting.extend(deliveries)

    def start_next(self) -> Delivery | None:
        """Take the next job to run, or None where none is left."""
        self._current = None
        try:
            delivery = self._waiting.popleft()
        except IndexError:
            return None
        self._current = delivery
        self._started_s = monotonic()
        return delivery

    @property
    def has_waiting(self) -> bool:
        """Whether a job is left that hasn't been started."""
        return bool(self._waiting)

    def drop(self, settlements: Iterable[Settlement]) -> None:
        """Forget what was settled."""
        forget = self._unsettled.pop
        for settlement in settlements:
            forget(settlement.receipt, None)
        if self._lost:
            self._lost.intersection_update(self._unsettled)

    def drain(self) -> list[str]:
        """Give up everything that is in hand, and return its receipts."""
        self._waiting.clear()
        self._current = None
        receipts = list(self._unsettled)
        self._unsettled.clear()
        self._lost.clear()
        return receipts

    @property
    def current_is_lost(self) -> bool:
        """Whether the job that runs now is no longer this consumer's (LSE-4)."""
        current = self._current
        return current is not None and current.receipt in self._lost

    # -- the keeper's thread ----------------------------------------------------------------------

    def tend(self) -> None:
        """Give back what waits behind a slow job, and extend the leases that are a third gone."""
        now = monotonic()
        if self._current is not None and now - self._started_s >= _TICK_S and self._waiting:
            self._give_back_waiting()
        lease_s = self._backend.lease_s
        if lease_s is not None and self._unsettled and now - self._extended_s >= lease_s / 3:
            self._extended_s = now
            self._extend(list(self._unsettled))

    def _give_back_waiting(self) -> None:
        waiting = self._waiting
        taken: list[Delivery] = []
        while waiting:
            try:
                taken.append(waiting.pop())
            except IndexError:  # the consumer's thread was faster
                break
        releases = [Release(delivery.receipt) for delivery in taken]
        try:
            self._backend.settle(releases)
        except JobsError:
            waiting.extend(reversed(taken))
            raise
        self.drop(releases)
        self.given_back += len(releases)
        self._logger.info("gave %d jobs back that waited behind a slow one", len(taken))

    def _extend(self, receipts: list[str]) -> None:
        for receipt, outcome in zip(receipts, self._backend.extend(receipts), strict=True):
            delivery = self._unsettled.get(receipt)
            if outcome is SettleOutcome.LOST and delivery is not None and receipt not in self._lost:
                self._lost.add(receipt)
                self._logger.warning("job %s: its lease was lost; another consumer may run it", delivery.id)


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
