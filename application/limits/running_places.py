"""The places of the jobs that run, or are about to, of one consumer."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping, Sequence

from ...domain.errors import BackendUnavailable
from ...ports import Place, Release, Settlement, SettleOutcome
from .held_job import HeldJob
from .places import ConsumerPlace, Places


class RunningPlaces:
    """Knows them by receipt, until the jobs have ended.

    A job that is released at once keeps its place, or its position in line, for the next consumer. So a place
    of a consumer's own name doesn't stay with its job.

    Args:
        places: Where they are.
        lease_is_connection: Whether nothing but the end of the connection ends a lease.
        clock: The consumer's clock.
    """

    def __init__(self, places: Places, *, lease_is_connection: bool, clock: Callable[[], float]) -> None:
        self._places = places
        self._lease_is_connection = lease_is_connection
        self._clock = clock
        self._lock = threading.Lock()
        self._by_receipt: dict[str, Place] = {}
        self._kept: dict[str, Place] = {}
        """Those that stay with jobs whose release the broker has yet to answer."""
        self._timed: tuple[str, float] | None = None
        """One of the jobs, and when it was passed on: how long it takes stands for all."""
        self.job_s: float | None = None
        """How long a job has its place, in seconds, as far as is known."""

    def __len__(self) -> int:
        return len(self._by_receipt)

    def count(self, held: Iterable[HeldJob]) -> Counter[str]:
        """Count them by key, with those of jobs that are held and have one already."""
        with self._lock:
            counts = Counter(place.key for place in self._by_receipt.values())
        counts.update(job.place.key for job in held if job.has_place and job.place is not None)
        return counts

    def add(self, places: Mapping[str, Place]) -> None:
        """Note the places of jobs that are passed on."""
        with self._lock:
            self._by_receipt.update(places)
            if self._timed is None and places:
                self._timed = next(iter(places)), self._clock()

    def _forget(self, receipt: str) -> Place | None:
        """Forget the place of a job, with the lock held, and learn how long it had it."""
        if self._timed is not None and self._timed[0] == receipt:
            took_s = self._clock() - self._timed[1]
            self.job_s = took_s if self.job_s is None else (self.job_s + took_s) / 2
            self._timed = None
        return self._by_receipt.pop(receipt, None)

    def release(self, jobs: Iterable[HeldJob]) -> tuple[list[Place], list[Place]]:
        """Note what stays with jobs that are about to be released.

        Returns:
            The places that don't stay with their jobs, and those that do.
        """
        leave: list[Place] = []
        kept: dict[str, Place] = {}
        for job in jobs:
            if isinstance(job.place, ConsumerPlace):
                leave.append(job.place)
            elif job.place is not None:
                kept[job.receipt] = job.place
        with self._lock:
            self._kept |= kept
        return leave, list(kept.values())

    def end(self, settlements: Sequence[Settlement]) -> tuple[list[Place], list[Place], list[Place]]:
        """Forget the places of jobs that are about to be settled.

        Returns:
            The places of those that end, of those that come again after a delay, and of those that come again
            at once and keep theirs.
        """
        ended: list[Place] = []
        delayed: list[Place] = []
        kept: list[Place] = []
        with self._lock:
            for settlement in settlements:
                place = self._forget(settlement.receipt)
                if place is None:
                    continue
                if not isinstance(settlement, Release) or isinstance(place, ConsumerPlace):
                    ended.append(place)
                elif settlement.delay_s:
                    delayed.append(place)
                else:
                    self._kept[settlement.receipt] = place
                    kept.append(place)
        return ended, delayed, kept

    def end_all(self, held: Iterable[HeldJob]) -> tuple[list[Place], list[Place]]:
        """Forget the places of all jobs, as their consumer closes and releases them.

        Returns:
            The places that end, and those that the jobs keep until another consumer receives them.
        """
        with self._lock:
            places = [*self._by_receipt.values()]
            self._by_receipt.clear()
        places += [job.place for job in held if job.has_place and job.place is not None]
        ended: list[Place] = [place for place in places if isinstance(place, ConsumerPlace)]
        return ended, [place for place in places if not isinstance(place, ConsumerPlace)]

    def cancelled(self, settlements: Sequence[Settlement], outcomes: Sequence[SettleOutcome]) -> list[Place]:
        """Return the places that stayed with jobs which the broker ended, as they were to be cancelled."""
        if not self._kept:
            return []
        with self._lock:
            pairs = zip(settlements, outcomes, strict=True)
            kept = [(self._kept.pop(settlement.receipt, None), outcome) for settlement, outcome in pairs]
        return [place for place, outcome in kept if place is not None and outcome is SettleOutcome.CANCELLED]

    def lose(self, receipts: Sequence[str]) -> None:
        """Forget the places of jobs that others may have."""
        with self._lock:
            for receipt in receipts:
                self._forget(receipt)

    def extend(self, receipts: Sequence[str]) -> set[str]:
        """Extend the places of these jobs, and return the receipts of those that lost theirs.

        Raises:
            BackendUnavailable: the store is away, and jobs wait then.
        """
        with self._lock:
            found = {receipt: self._by_receipt.get(receipt) for receipt in receipts}
        places = {receipt: place for receipt, place in found.items() if place is not None}
        try:
            lost = self._places.extend(list(places.values()), if_due=self._lease_is_connection)
        except BackendUnavailable:
            if self._lease_is_connection:  # nothing ends that lease, but to ask whether it stands is free
                return set()
            raise
        ended = {receipt: place for receipt, place in places.items() if place.holder in lost}
        with self._lock:
            return self._still_running(ended)

    def _still_running(self, places: Mapping[str, Place]) -> set[str]:
        """Return the receipts of those that weren't given back meanwhile, with the lock held."""
        return {receipt for receipt, place in places.items() if self._by_receipt.get(receipt) is place}
