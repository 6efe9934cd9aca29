"""Releases of jobs that wait for a limit, until the broker has confirmed them."""

import threading
from collections.abc import Callable, Sequence
from math import inf

from ...domain.errors import BackendUnavailable
from ...ports import ConsumerBackend, Release, Settled, Settlement, SettleOutcome

_AGAIN_S = 0.5
"""How long to wait before releases that the broker deferred are sent again."""


class PendingReleases:
    """Sends releases together with settlements, and again with the next ones if the broker was away.

    Args:
        backend: Where the jobs come from.
        clock: The consumer's clock.
    """

    def __init__(self, backend: ConsumerBackend, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self._deferred_until_s = 0.0
        """When to send again what was deferred."""
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._pending: list[Release] = []

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def due_s(self) -> float:
        """When to send them, even without settlements; never where there are none."""
        return self._deferred_until_s if self._pending else inf

    def add(self, releases: Sequence[Release]) -> None:
        """Send these with the next settlements."""
        with self._lock:
            self._pending += releases

    def unsent(self) -> list[Release]:
        """Return those that the broker hasn't confirmed."""
        with self._lock:
            return list(self._pending)

    def settle(self, settlements: Sequence[Settlement], take: int) -> tuple[list[Settlement], Settled]:
        """Settle as the backend, and the releases too; return what was sent, these last, and the answer."""
        with self._settling:
            with self._lock:
                releases, self._pending = self._pending, []
            sent = [*settlements, *releases]
            if not (sent or take):
                return sent, Settled([], [])
            try:
                settled = self._backend.settle(sent, take=take)
            except BackendUnavailable:
                with self._lock:
                    self._pending = releases + self._pending
                raise
            self._keep_deferred(releases, settled.outcomes[len(settlements) :])
            return sent, settled

    def _keep_deferred(self, releases: Sequence[Release], outcomes: Sequence[SettleOutcome]) -> None:
        pairs = zip(releases, outcomes, strict=True)
        if deferred := [each for each, outcome in pairs if outcome is SettleOutcome.DEFERRED]:
            self.add(deferred)
            self._deferred_until_s = self._clock() + _AGAIN_S
