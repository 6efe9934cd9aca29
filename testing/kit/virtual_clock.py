"""The kit's clock, and the moments at which limits change."""

from collections.abc import Sequence
from heapq import heappop, heappush
from math import inf

from ..adapters.local.clock import ManualClock
from ..adapters.local.coordination import LocalCoordinationStore
from ..adapters.local.namespace import Namespace
from ..ports import Place, Reservation


class VirtualClock(ManualClock):
    """A clock that can be moved to a moment exactly, as sums of seconds are rounded."""

    def move_to(self, moment_s: float) -> None:
        """Move on to ``moment_s``, in seconds since 1970, and wake the threads whose moment has come."""
        self.advance(0.0 if moment_s <= self._now_s else moment_s - self._now_s)
        self._now_s = max(self._now_s, moment_s)


class NotingStore(LocalCoordinationStore):
    """A coordination store that notes when turns come and places end, so that nobody has to poll for them."""

    def __init__(self, namespace: Namespace) -> None:
        super().__init__(namespace)
        self._moments: list[float] = []

    def next_change(self) -> float:
        """Return the first noted moment that is still to come; infinity if there is none."""
        now = self.now()
        while self._moments and self._moments[0] <= now:
            heappop(self._moments)
        return self._moments[0] if self._moments else inf

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        reservation = super().reserve(key, count, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s)
        for wait_s in (*reservation.waits_s, reservation.retry_s):
            self._note(wait_s)
        return reservation

    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        has = super().take_places(places, ttl_s=ttl_s, waits_s=waits_s, leaving=leaving)
        if any(has):  # one that isn't given ends nothing: to stop for each request would make further ones
            self._note(ttl_s)
        return has

    def _note(self, wait_s: float) -> None:
        if wait_s > 0:
            heappush(self._moments, self.now() + wait_s + _ROUNDED_S)


_ROUNDED_S = 2e-6
"""The store counts whole microseconds, and a sum of seconds since 1970 may be one of them short."""
