"""Faults of limits: of semaphores whose places are leases, and of the lines before them."""

import itertools
import time
from collections.abc import Callable, Sequence
from math import inf

from ...ports import Place
from .fault_registry import breaks
from .leases import skew_s
from .pass_through import BrokenBackend, BrokenStore, PassThrough
from .records import coordinates

_GAP_S = 0.002
"""How long what was seen is believed before it is acted on."""


class KnowsHolders(PassThrough):
    """Knows who has a place of each key, until when; in the order in which they got it."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._held: dict[str, dict[str, float]] = {}

    def holders(self, key: str) -> dict[str, float]:
        """Who has a place of this key now, and until when."""
        held = self._held.setdefault(key, {})
        for holder in [holder for holder, until in held.items() if until <= self.now()]:
            held.pop(holder, None)
        return held

    def has(self, place: Place) -> bool:
        """Whether the holder has the place."""
        return place.holder in self.holders(place.key)

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        return [self.take(store, place, ttl_s) for place in places]

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        """Take one place."""
        (taken,) = super().take_places(store, [place], ttl_s)
        if taken:
            self.holders(place.key)[place.holder] = self.now() + ttl_s
        return taken

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        super().leave_places(store, places)
        for place in places:
            self.holders(place.key).pop(place.holder, None)


@breaks("CRD-5", where=coordinates)
class CountsThenTakes(KnowsHolders):
    """Who has a place is counted in one request, and the place taken in the next."""

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        seen = len(self.holders(place.key))
        time.sleep(_GAP_S)
        came_since = len(self.holders(place.key)) - seen
        return super().take(store, place._replace(limit=place.limit + came_since), ttl_s)


@breaks("CRD-5", where=coordinates)
class TakingTwiceTakesTwo(PassThrough):
    """A limit is a counter: who takes again to extend has a second place."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._numbers = itertools.count()

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        named = [place._replace(holder=f"{place.holder:.400}-{next(self._numbers)}") for place in places]
        return super().take_places(store, named, ttl_s)


@breaks("CRD-5", where=coordinates)
class AnyoneFreesAPlace(KnowsHolders):
    """A limit is a counter: a leave raises it, whoever leaves, also twice."""

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        for place in places:
            holders = self.holders(place.key)
            whose = place.holder if place.holder in holders else next(iter(holders), place.holder)
            super().leave_places(store, [place._replace(holder=whose)])


@breaks("CRD-5", where=coordinates)
class PlacesNeverEnd(PassThrough):
    """A place is had until it is left: that of a worker that died is lost for good."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        return super().take_places(store, places, 1e9)


@breaks("CRD-5", where=coordinates)
class ExtendingChangesNothing(KnowsHolders):
    """A place ends when it was first to end: taking it again is answered well, and moves nothing."""

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        return self.has(place) or super().take(store, place, ttl_s)


@breaks("CRD-5", where=coordinates)
class ExtendingNeverShortens(KnowsHolders):
    """A place ends at the latest moment that its holder was ever given: a shorter time is passed over."""

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        until = self.holders(place.key).get(place.holder, 0.0)
        return super().take(store, place, max(ttl_s, until - self.now()))


@breaks("CRD-5", where=coordinates)
class AShortPlaceEndsAll(KnowsHolders):
    """All places of a key end with the one that was asked for last, as by an EXPIRE of the key."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ends: dict[str, float] = {}

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        if self.now() >= self._ends.get(place.key, inf):
            for holder in list(self.holders(place.key)):
                self.leave_places(store, [place._replace(holder=holder)])
        self._ends[place.key] = self.now() + ttl_s
        return super().take(store, place, ttl_s)


@breaks("CRD-5", where=coordinates)
class WaitingIsNotExtended(KnowsHolders):
    """Who waits stands in the line for the time of its first request, and then joins at its end."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._waits: dict[tuple[str, str], float] = {}

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        pair = (place.key, place.holder)
        if self._waits.setdefault(pair, self.now() + ttl_s) <= self.now() and not self.has(place):
            store.inner.leave_places([place])
            self._waits[pair] = self.now() + ttl_s
        return super().take(store, place, ttl_s)

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        super().leave_places(store, places)
        for place in places:
            self._waits.pop((place.key, place.holder), None)


@breaks("CRD-5", where=coordinates)
class PlacesByTheWorkersClock(PassThrough):
    """When a place ends is computed from the worker's calendar."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        return super().take_places(store, places, max(0.0, ttl_s + skew_s()))


@breaks("CRD-5", where=coordinates)
class PlacesOfWholeSeconds(PassThrough):
    """A place lasts whole seconds, the rest is cut off."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        return super().take_places(store, places, float(int(ttl_s)))


@breaks("CRD-5", where=coordinates)
class HasNoLine(PassThrough):
    """A free place goes to who asks first: those who wait may starve."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        answers = super().take_places(store, places, ttl_s)
        super().leave_places(
            store, [place for place, taken in zip(places, answers, strict=True) if not taken]
        )
        return answers


@breaks("CRD-5", where=coordinates)
class AskingAgainGoesToTheEnd(KnowsHolders):
    """Who asks again stands at the end of the line."""

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        if not self.has(place):
            store.inner.leave_places([place])
        return super().take(store, place, ttl_s)


@breaks("CRD-5", where=coordinates)
class TheDeadStayInLine(KnowsHolders):
    """Who stops asking stands in the line for good, and nobody behind it gets a place."""

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        return super().take(store, place, inf) and super().take(store, place, ttl_s)


@breaks("CRD-5", where=coordinates)
class LeavingKeepsTheLine(KnowsHolders):
    """Who leaves before it had a place stands in the line all the same."""

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        super().leave_places(store, [place for place in places if self.has(place)])


@breaks("CRD-5", where=coordinates)
class AllOrNothing(KnowsHolders):
    """Of several places in one call all are taken or none: one that is full keeps its caller from all."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        answers = super().take_places(store, places, ttl_s)
        if all(answers):
            return answers
        store.inner.leave_places([place for place, taken in zip(places, answers, strict=True) if taken])
        return [False] * len(places)


@breaks("CRD-5", where=coordinates)
class AnswersByKey(PassThrough):
    """Several places of one key in one call are one entry of a table, and all get the answer of the last."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        answers = super().take_places(store, places, ttl_s)
        by_key = dict(zip([place.key for place in places], answers, strict=True))
        return [by_key[place.key] for place in places]


@breaks("CRD-5", where=coordinates)
class TakesTheFirstHundred(PassThrough):
    """One request takes a hundred places at most, and the rest is answered well."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        return super().take_places(store, places[:100], ttl_s) + [True] * len(places[100:])


@breaks("CRD-5", where=coordinates)
class ALowerLimitTakesPlacesAway(KnowsHolders):
    """Lowering a limit ends the places of those who came last."""

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        if place.holder in list(self.holders(place.key))[place.limit :]:
            self.leave_places(store, [place])
        return super().take(store, place, ttl_s)


@breaks("CRD-5", where=coordinates)
class TheFirstLimitStays(PassThrough):
    """A limit is what the first caller made it: another has no effect."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._limits: dict[str, int] = {}

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        limited = [place._replace(limit=self._limits.setdefault(place.key, place.limit)) for place in places]
        return super().take_places(store, limited, ttl_s)


@breaks("CRD-5", where=coordinates)
class JoinsKeyAndHolder(PassThrough):
    """A place is kept under its key, a colon and its holder: k:l of m is taken for k of l:m."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._taken: dict[str, set[Place]] = {}

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        for place in places:
            self._taken.setdefault(f"{place.key}:{place.holder}", set()).add(place)
        return super().take_places(store, places, ttl_s)

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        for place in places:
            super().leave_places(store, list(self._taken.pop(f"{place.key}:{place.holder}", ())))


@breaks("CRD-5", where=coordinates)
class HoldersHaveNoCase(PassThrough):
    """The column of holders has a collation without case: A is taken for a."""

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        return super().take_places(
            store, [place._replace(holder=place.holder.lower()) for place in places], ttl_s
        )


@breaks("CRD-5", where=coordinates)
class OneKeyAHolder(KnowsHolders):
    """A holder has one place at all: who takes one of another key loses the first."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._last: dict[str, Place] = {}

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        last = self._last.get(place.holder)
        if last is not None and last.key != place.key:
            self.leave_places(store, [last])
        self._last[place.holder] = place
        return super().take(store, place, ttl_s)


@breaks("CRD-5", where=coordinates)
class AnEndedPlaceIsExtended(KnowsHolders):
    """Who had a place gets it back though its time is over and others wait: a renewal asks for nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._had: set[tuple[str, str]] = set()

    def take(self, store: BrokenStore, place: Place, ttl_s: float) -> bool:
        taken = super().take(store, place, ttl_s)
        if taken:
            self._had.add((place.key, place.holder))
        return taken or (place.key, place.holder) in self._had

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        super().leave_places(store, places)
        self._had -= {(place.key, place.holder) for place in places}


class PlacesOfAClient(PassThrough):
    """Knows which client took which place."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._taken: dict[BrokenBackend, set[Place]] = {}

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        self._taken.setdefault(store.client, set()).update(places)
        return super().take_places(store, places, ttl_s)

    def give_back(self, client: BrokenBackend) -> None:
        """Leave all that a client took."""
        if taken := self._taken.pop(client, None):
            client.inner.coordination.leave_places(list(taken))


@breaks("CRD-5", where=coordinates)
class PlacesGoWithTheConnection(PlacesOfAClient):
    """A place is an advisory lock of PostgreSQL, which is lost with the connection."""

    def sever(self, client: BrokenBackend) -> None:
        self.give_back(client)


@breaks("CRD-5", where=coordinates)
class PlacesGoWithTheClient(PlacesOfAClient):
    """A client that closes gives back what its holders have, though they may work on elsewhere."""

    def close(self, client: BrokenBackend) -> None:
        self.give_back(client)
        super().close(client)


@breaks("CRD-5", where=coordinates)
class TakesBeforeItLeaves(PassThrough):
    """Of a call that leaves and takes, the leaves come last."""

    def exchange_places(
        self,
        store: BrokenStore,
        places: Sequence[Place],
        ttl_s: float,
        waits_s: float,
        leaving: Sequence[Place],
    ) -> list[bool]:
        answers = super().exchange_places(store, places, ttl_s, waits_s, ())
        store.inner.leave_places(leaving)
        return answers


@breaks("CRD-5", where=coordinates)
class HandsPlacesOver(PassThrough):
    """Who leaves and asks in one call has the place handed over, past those who wait longer."""

    def exchange_places(
        self,
        store: BrokenStore,
        places: Sequence[Place],
        ttl_s: float,
        waits_s: float,
        leaving: Sequence[Place],
    ) -> list[bool]:
        left = {place.key for place in leaving}
        wider = [place._replace(limit=place.limit + 100 * (place.key in left)) for place in places]
        return super().exchange_places(store, wider, ttl_s, waits_s, leaving)


@breaks("CRD-5", where=coordinates)
class WaitsForTheTimeOfPlaces(PassThrough):
    """Who waits stands in line for as long as it would have had its place."""

    def exchange_places(
        self,
        store: BrokenStore,
        places: Sequence[Place],
        ttl_s: float,
        waits_s: float,
        leaving: Sequence[Place],
    ) -> list[bool]:
        return super().exchange_places(store, places, ttl_s, ttl_s, leaving)


@breaks("CRD-5", where=coordinates)
class PlacesEndAsPositionsDo(PassThrough):
    """A place ends when its holder would wait no more."""

    def exchange_places(
        self,
        store: BrokenStore,
        places: Sequence[Place],
        ttl_s: float,
        waits_s: float,
        leaving: Sequence[Place],
    ) -> list[bool]:
        return super().exchange_places(store, places, waits_s, waits_s, leaving)
