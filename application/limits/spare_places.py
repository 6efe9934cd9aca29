"""Places of jobs that are settled, for the jobs that are taken in the same call."""

from collections import Counter
from collections.abc import Sequence

from ...domain.errors import BackendUnavailable
from ...ports import Delivery, Place
from .held_job import HeldJob
from .outage import StoreOutage
from .places import ConsumerPlace, Places


class SparePlaces:
    """Passes places on to the next jobs of their keys, unless a limit is reached (ADR 79).

    Args:
        places: Where they are.
        outage: Whether the store is away.
        ended: The places of the jobs that are settled.
    """

    def __init__(self, places: Places, outage: StoreOutage, ended: Sequence[Place]) -> None:
        self._places = places
        self._outage = outage
        self._by_key: dict[str, list[ConsumerPlace]] = {}
        """Also keys of which there is none: the places of their next jobs are asked for to be passed on."""
        self.to_leave: list[Place] = []
        """Those that can't be passed on."""
        for place in ended:
            if (those := self._by_key.get(place.key)) is None:
                those = self._by_key[place.key] = []
            if isinstance(place, ConsumerPlace):
                those.append(place)
            else:
                self.to_leave.append(place)

    def rest(self) -> list[Place]:
        """Return those that no job has got, which are to be left; they are no longer here."""
        rest: list[Place] = [place for those in self._by_key.values() for place in those]
        self._by_key.clear()
        return rest

    def pass_on(self, deliveries: Sequence[Delivery], keys: Sequence[str | None]) -> dict[str, Place] | None:
        """Return the places of jobs by their receipts, if there is one for each job; otherwise None.

        Args:
            deliveries: The jobs that were taken.
            keys: Of which key each needs a place; None if it needs none.
        """
        needed = Counter(keys)
        del needed[None]
        if any(len(self._by_key.get(key, ())) < count for key, count in needed.items() if key is not None):
            return None
        pairs = zip(deliveries, keys, strict=True)
        return {delivery.receipt: self._by_key[key].pop() for delivery, key in pairs if key is not None}

    def give(self, jobs: Sequence[HeldJob], keys: Sequence[str | None]) -> None:
        """Give jobs places as long as there are some, and have the others ask for theirs."""
        for job, key in zip(jobs, keys, strict=True):
            if key is None:
                continue
            if those := self._by_key.get(key):
                job.place = place = those.pop()
                job.asked_s = place.taken_s
            else:
                is_known = key in self._by_key
                job.place = self._places.new(key) if is_known else self._places.place_of(job.delivery)
                job.has_place = False

    def take_out_unusable(self, keys: Sequence[str | None]) -> list[Place]:
        """Take out places that others may wait for, or that end too soon, and return them: leave them.

        Args:
            keys: Those of the jobs that were taken.
        """
        try:
            reached = self._places.reached({key for key in keys if key is not None and self._by_key.get(key)})
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
