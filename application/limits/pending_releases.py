"""Releases of jobs that wait for a limit, until the broker has answered."""

import threading
from collections.abc import Callable, Sequence
from typing import NamedTuple

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import ConsumerBackend, Delivery, Release, Settled, Settlement, SettleOutcome
from ..broker.deferral import AGAIN_S


class Returning(NamedTuple):
    """A job that is to go back."""

    release: Release
    """What the broker is told."""
    delivery: Delivery
    """The job, which the broker may not take back yet."""


class PendingReleases:
    """Sends releases together with settlements, and again with the next ones if the broker was away.

    Args:
        backend: Where the jobs come from.
        clock: The consumer's clock.
    """

    def __init__(self, backend: ConsumerBackend, clock: Callable[[], float]) -> None:
        self._backend = backend
        self._clock = clock
        self._lock = threading.Lock()
        self._settling = threading.Lock()
        self._pending: list[Returning] = []
        self.are_deferred = False
        """Whether the broker deferred the last of them, as it takes no messages."""
        self._again_s = 0.0
        """When to try others then."""

    def __len__(self) -> int:
        return len(self._pending)

    @property
    def may_try(self) -> bool:
        """Whether to release jobs that could as well stay: it isn't known that the broker takes none back."""
        return not self.are_deferred or self._clock() >= self._again_s

    def add(self, returning: Sequence[Returning]) -> None:
        """Send these with the next settlements."""
        with self._lock:
            self._pending += returning

    def unsent(self) -> list[Delivery]:
        """Return the jobs of which the broker hasn't heard, as far as is known."""
        with self._lock:
            return [each.delivery for each in self._pending]

    def settle(
        self, settlements: Sequence[Settlement], take: int
    ) -> tuple[list[Settlement], Settled, list[Delivery]]:
        """Settle as the backend, and release jobs too.

        Returns:
            What was sent, the releases last; the answer; and the jobs that couldn't be released, as the
            broker takes no messages. These are the caller's again.
        """
        with self._settling:
            with self._lock:
                returning, self._pending = self._pending, []
            sent = [*settlements, *(each.release for each in returning)]
            if not (sent or take):
                return sent, Settled([], []), []
            try:
                settled = self._backend.settle(sent, take=take)
            except BaseException as error:
                if isinstance(error, BackendUnavailable) or not isinstance(error, JobsError):
                    with self._lock:  # an interrupt may have come before the broker heard them
                        self._pending = returning + self._pending
                raise
            return sent, settled, self._deferred(returning, settled.outcomes[len(settlements) :])

    def _deferred(self, returning: Sequence[Returning], outcomes: Sequence[SettleOutcome]) -> list[Delivery]:
        if not returning:
            return []
        pairs = zip(returning, outcomes, strict=True)
        deferred = [each.delivery for each, outcome in pairs if outcome is SettleOutcome.DEFERRED]
        self.are_deferred = bool(deferred)
        self._again_s = self._clock() + AGAIN_S
        return deferred
