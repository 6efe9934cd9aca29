"""The turns of a rate, for the jobs of one consumer."""

from collections.abc import Callable, Sequence
from math import ceil, inf

from ...domain.limits import Rate
from ...ports import CoordinationStore
from .held_job import HeldJob

_LATE_S = 0.02
"""How late a job may start, or by a tenth of the interval if that is more; later it needs another turn."""
_LATE = 0.1
_MAX_WAIT_S = 5.0
"""How far ahead a turn may be reserved; also never more than a sixth of the lease."""
_MAX_CLOSED_S = 60.0
"""For how long a consumer takes no jobs at most, as the next turn is far away."""


class Turns:
    """Reserves turns for jobs that are there, and only for as many as can start when their turns come.

    A turn that isn't used is lost, so the rate is never exceeded. A consumer that holds no job reserves none.

    Args:
        store: Where the rate is counted.
        queue: The queue's name.
        rate: How fast jobs may start.
        lease_s: For how long a job is leased.
        clock: The consumer's clock.
    """

    def __init__(
        self, store: CoordinationStore, queue: str, rate: Rate, *, lease_s: float, clock: Callable[[], float]
    ) -> None:
        self._store = store
        # A rate of other intervals counts by itself, or its turns, which may be days away, had to pass first.
        self._key = f"rates/{queue}/{rate.interval_s:.6f}"
        self._rate = rate
        self._clock = clock
        self._max_wait_s = min(_MAX_WAIT_S, lease_s / 6)
        self._late_s = max(_LATE_S, rate.interval_s * _LATE)
        self.ahead = max(rate.burst, ceil(_LATE_S / rate.interval_s))
        """How many jobs to hold: those whose turns come at the same time, or nearly so."""
        self._not_before_s = -inf
        """When the next turn comes at the earliest, as far as is known."""
        self._opens_s = -inf
        self.runs_when_away = rate.when_store_is_away == "run"
        """Whether jobs run without a rate while the store is away."""

    @property
    def closed_s(self) -> float:
        """For how many seconds to take no job, as no turn can be had soon."""
        return max(0.0, self._opens_s - self._clock())

    @property
    def none_is_due(self) -> bool:
        """Whether it is known that no turn can be had at once."""
        return self._clock() < self._not_before_s

    def reserve(self, jobs: Sequence[HeldJob], within_s: float) -> list[HeldJob]:
        """Reserve turns for jobs, and return those whose turn is too far away for them to be held.

        Args:
            jobs: Those that may run as soon as they have a turn, in order.
            within_s: Reserve no turn that comes later than this.

        Raises:
            BackendUnavailable: the store is away.
        """
        now = self._clock()
        for job in jobs:
            if job.turn_s is not None and now - job.turn_s > self._late_s:
                job.turn_s = None
        wanting = [job for job in jobs if job.turn_s is None]
        if wanting and now + min(within_s, self._max_wait_s) >= self._not_before_s:
            self._reserve(wanting[: self.ahead], min(within_s, self._max_wait_s))
        is_far = self._not_before_s - self._clock() > self._max_wait_s
        return [job for job in wanting if job.turn_s is None] if is_far else []

    def is_due(self, job: HeldJob) -> bool:
        """Whether the turn of a job has come."""
        return job.turn_s is not None and job.turn_s <= self._clock()

    def _reserve(self, jobs: Sequence[HeldJob], max_wait_s: float) -> None:
        rate = self._rate
        waits_s, retry_s = self._store.reserve(
            self._key, len(jobs), interval_s=rate.interval_s, burst=rate.burst, max_wait_s=max_wait_s
        )
        now = self._clock()  # after the answer: a turn may be late, and never early
        for job, wait_s in zip(jobs, waits_s, strict=False):
            job.turn_s = now + wait_s
        if retry_s:
            self._not_before_s = now + retry_s
        if retry_s > self._max_wait_s:  # opens before the turn, to reserve it ahead
            self._opens_s = now + min(retry_s - self._max_wait_s / 2, _MAX_CLOSED_S)
