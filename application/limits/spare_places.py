"""Places of jobs that are settled, for the jobs that are taken in the same call."""

from collections import Counter
from collections.abc import Collection, Mapping, Sequence
from contextlib import suppress

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import Delivery, Place
from ..broker.store_outage import StoreOutage
from .held_job import HeldJob
from .places import ConsumerPlace, Places
from .returned_places import ReturnedPlaces


class SparePlaces:
    """Passes places on to the next jobs of their keys, unless a limit is reached (ADR 79).

    Args:
        places: Where they are.
        returned: Gives back those that aren't passed on.
        outage: Whether the store is away.
        ended: The places of the jobs that are settled.
    """

    def __init__(
        self, places: Places, returned: ReturnedPlaces, outage: StoreOutage, ended: Sequence[Place]
    ) -> None:
        self._places = places
        self._returned = returned
        self._outage = outage
        self._by_key: dict[str, list[ConsumerPlace]] = {}
        self.suffice = False
        """Whether there is one for each job that was taken."""
        self.to_leave: list[Place] = []
        """Those that can't be passed on."""
        for place in ended:
            if not isinstance(place, ConsumerPlace):
                self.to_leave.append(place)
            elif (those := self._by_key.get(place.key)) is None:
                self._by_key[place.key] = [place]
            else:
                those.append(place)

    def leave_rest(self) -> None:
        """Leave those that no job has got."""
        rest = [place for those in self._by_key.values() for place in those]
        self._by_key.clear()
        with suppress(JobsError):  # else they end by themselves; a job that was taken isn't to be lost for it
            self._returned.leave(rest)

    def fit(self, deliveries: Sequence[Delivery], keys: Sequence[str | None]) -> None:
        """Have a place for each job that was taken, if there are so many.

        Places for which others may wait are left, and those that end too soon. What is missing then is asked
        for in one request. A job that was released before may have a place, or a position in line, of its
        own, and gets no other.

        Args:
            deliveries: The jobs.
            keys: Of which key each needs a place; None if it needs none.
        """
        needed = Counter(key for key in keys if key is not None)
        try:
            self._returned.leave(self._take_out_unusable(needed))
            missing = self._missing(needed)
            if missing and self._places.may_pass_on and not self._outage.is_on:
                self._take_more(missing)
                missing = self._missing(needed)
        except JobsError:  # the next call meets the error again, and then loses no job
            self.leave_rest()
            return
        self.suffice = not missing and not any(map(was_released, deliveries))

    def pass_on(self, deliveries: Sequence[Delivery], keys: Sequence[str | None]) -> dict[str, Place]:
        """Return the places of jobs by their receipts, where they suffice."""
        pairs = zip(deliveries, keys, strict=True)
        return {delivery.receipt: self._by_key[key].pop() for delivery, key in pairs if key is not None}

    def give(self, jobs: Sequence[HeldJob], keys: Sequence[str | None]) -> None:
        """Give jobs places as long as there are some, and have the others ask in their own names."""
        for job, key in zip(jobs, keys, strict=True):
            if key is None:
                continue
            those = None if was_released(job.delivery) else self._by_key.get(key)
            if those:
                job.place = place = those.pop()
                job.asked_s = place.taken_s
            else:
                job.place = self._places.own(job.delivery, key)
                job.has_place = False

    def _missing(self, needed: Mapping[str, int]) -> dict[str, int]:
        """Return how many more places are needed than there are, by key."""
        have = {key: len(self._by_key.get(key, ())) for key in needed}
        return {key: count - have[key] for key, count in needed.items() if count > have[key]}

    def _take_more(self, missing: Mapping[str, int]) -> None:
        """Ask for places; where there is none, leave the line, as the job is to stand there itself."""
        asked = self._places.more(missing)
        try:
            has = self._places.take(asked)
        except BackendUnavailable as error:
            self._outage.begin(error)
            self._returned.leave(asked)  # as it may have given them
            return
        self._outage.end()
        for place, has_it in zip(asked, has, strict=True):
            if has_it:
                self._by_key.setdefault(place.key, []).append(place)
        self._returned.leave([place for place, has_it in zip(asked, has, strict=True) if not has_it])

    def _take_out_unusable(self, needed: Collection[str]) -> list[Place]:
        """Take out places that others may wait for, or that end too soon, and return them."""
        keys = [key for key in needed if self._by_key.get(key)]
        try:
            reached = self._places.reached(keys)
        except BackendUnavailable as error:
            self._outage.begin(error)
            reached = list(self._by_key)
        left: list[Place] = [place for key in reached for place in self._by_key.pop(key)]
        since_s = self._places.passed_on_since_s
        for key, those in self._by_key.items():
            usable = [place for place in those if place.taken_s >= since_s]
            if len(usable) < len(those):
                left += [place for place in those if place.taken_s < since_s]
                self._by_key[key] = usable
        return left


def was_released(delivery: Delivery) -> bool:
    """Whether a job was delivered before, and came back without an attempt or a crash."""
    return delivery.number > delivery.attempt + delivery.crashes
