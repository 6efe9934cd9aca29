"""The turns of a rate that counts all jobs together, for those of one consumer."""

from collections.abc import Callable, Iterable, Sequence
from math import ceil, inf

from ...domain.limits import Rate
from ...ports import CoordinationStore, Release
from .held_job import HeldJob
from .in_force import InForce
from .keys import prefix_of
from .turn_gate import TurnGate

_LATE_S = 0.02
"""How late a job may start, or by a tenth of the interval if that is more; later it needs another turn."""
_LATE = 0.1
_MAX_WAIT_S = 5.0
"""How far ahead a turn may be reserved; also never more than a sixth of the lease."""
_MAX_CLOSED_S = 60.0
"""For how long a consumer takes no jobs at most, as the next turn is far away."""

_LOOKS_AGAIN_S = 1.0
"""For how long it takes none at most without a look whether the rate was changed."""


def late_s(rate: Rate) -> float:
    """Return how many seconds after its turn a job may start."""
    return max(_LATE_S, rate.interval_s * _LATE)


def at_once(rate: Rate) -> int:
    """Return how many turns of a key come at the same time, or nearly so."""
    return max(rate.burst, ceil(_LATE_S / rate.interval_s))


def drop_missed(jobs: Iterable[HeldJob], now: float, late_s: float) -> None:
    """Take the turns from jobs that could not start in time: they need others."""
    for job in jobs:
        if job.turn_s is not None and now - job.turn_s > late_s:
            job.turn_s = None


def drop_turns(jobs: Iterable[HeldJob]) -> None:
    """Take the turns from jobs, as they are those of a rate that was changed."""
    for job in jobs:
        job.turn_s = None


class Turns(TurnGate):
    """Reserves turns for jobs that are there, and only for as many as can start when their turns come.

    A turn that isn't used is lost, so the rate is never exceeded. A consumer that holds no job reserves none.

    Args:
        store: Where the rate is counted.
        queue: The queue's name.
        in_force: How fast jobs may start.
        lease_s: For how long a job is leased.
        clock: The consumer's clock.
    """

    def __init__(
        self,
        store: CoordinationStore,
        queue: str,
        in_force: InForce[Rate],
        *,
        lease_s: float,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._queue = queue
        self._in_force = in_force
        self._clock = clock
        self._max_wait_s = min(_MAX_WAIT_S, lease_s / 6)
        self._obey(in_force.present)
        self._reserved_by = self._rate
        """The rate of which jobs have turns."""
        self.runs_when_away = in_force.declared.when_store_is_away == "run"

    def _obey(self, rate: Rate) -> None:
        """Begin with a rate, whose turns are counted by themselves."""
        self._rate = rate
        self._key = prefix_of(self._queue, rate)
        self._late_s = late_s(rate)
        self.ahead = at_once(rate)
        """How many jobs to hold: those whose turns come at the same time, or nearly so."""
        self._not_before_s = -inf
        """When the next turn comes at the earliest, as far as is known."""
        self._opens_s = -inf

    def _look_at_rate(self) -> None:
        rate = self._in_force.now()
        if rate != self._rate:
            self._obey(rate)

    @property
    def closed_s(self) -> float:
        if self._opens_s > self._clock():
            self._look_at_rate()
        return max(0.0, min(self._opens_s - self._clock(), _LOOKS_AGAIN_S))

    @property
    def none_is_due(self) -> bool:
        return self._clock() < self._not_before_s

    def room(self, room: int, at_hand: int) -> int:
        return 0 if self.closed_s else min(room, self.ahead - at_hand)

    def reserve(
        self,
        jobs: Sequence[HeldJob],
        far: Sequence[HeldJob],
        most: int,
        within_s: float,
        *,
        may_release: bool,
    ) -> list[Release]:
        self._look_at_rate()
        now = self._clock()
        if self._reserved_by != self._rate:
            drop_turns(jobs)
            self._reserved_by = self._rate
        drop_missed(jobs, now, self._late_s)
        wanting = [job for job in jobs if job.turn_s is None]
        if wanting and now + min(within_s, self._max_wait_s) >= self._not_before_s:
            self._reserve(wanting[: self.ahead], min(within_s, self._max_wait_s))
        is_far = may_release and self._not_before_s - self._clock() > self._max_wait_s
        return [Release(job.receipt) for job in wanting if job.turn_s is None] if is_far else []

    def is_due(self, job: HeldJob) -> bool:
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
