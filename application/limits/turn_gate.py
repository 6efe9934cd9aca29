"""What lets a job start when it has its turn."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from math import inf

from ...domain.envelope import expiry_in
from ...domain.errors import BackendUnavailable
from ...ports import Release
from ..broker.store_outage import StoreOutage
from .held_job import HeldJob
from .no_limits import NoTurnGate

_SHORT_S = 0.05
"""How long to wait at most while a job waits for its turn."""


class TurnGate(NoTurnGate, ABC):
    """What all rates have in common: while the store is away, jobs wait for their turns, or need none."""

    lets_all_start = False
    runs_when_away: bool
    """Whether jobs run without a rate while the store is away."""

    @property
    @abstractmethod
    def closed_s(self) -> float:
        """For how many seconds to take no job, as no turn can be had soon."""

    def waits(self, job: HeldJob) -> bool:
        """Whether the turn of a job is too far away to be reserved: never, if all jobs have one key."""
        return False

    @abstractmethod
    def is_due(self, job: HeldJob) -> bool:
        """Whether the turn of a job has come, or it needs none."""

    @abstractmethod
    def reserve(
        self,
        jobs: Sequence[HeldJob],
        far: Sequence[HeldJob],
        most: int,
        within_s: float,
        *,
        may_release: bool,
    ) -> list[Release]:
        """Reserve turns, and return releases, as :meth:`admit`.

        Raises:
            BackendUnavailable: the store is away.
        """

    def note_taken(self, jobs: Sequence[HeldJob]) -> None:
        for job in jobs:
            job.expires_s = expiry_in(job.delivery.body) or inf

    def far(self, jobs: Iterable[HeldJob]) -> list[HeldJob]:
        return [job for job in jobs if self.waits(job)]

    def admit(
        self,
        jobs: Sequence[HeldJob],
        far: Sequence[HeldJob],
        most: int,
        within_s: float,
        outage: StoreOutage,
        *,
        may_release: bool,
    ) -> tuple[list[HeldJob], list[Release]]:
        if not (jobs or far):
            return [], []
        if not outage.is_on:
            try:
                releases = self.reserve(jobs, far, most, within_s, may_release=may_release)
            except BackendUnavailable as error:
                outage.begin(error)
            else:
                outage.end()
                return [job for job in jobs if self.is_due(job)], releases
        return list(jobs) if self.runs_when_away else [], []

    def changes_s(self, jobs: Sequence[HeldJob], now: float) -> float:
        if jobs:
            return min([now + _SHORT_S, *[job.turn_s for job in jobs if job.turn_s is not None]])
        closed_s = self.closed_s
        return now + closed_s if closed_s else inf
