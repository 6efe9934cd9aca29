"""Faults of counts of places."""

import time
from collections.abc import Callable, Sequence

from ...ports import KeyCount, Place, PlaceCount
from .fault_registry import breaks
from .pass_through import BrokenStore, PassThrough
from .records import coordinates
from .shared_stores import LendsOneStore

_ALL = 1_000_000
_LONG_S = 86_400.0
_GAP_S = 0.002
"""How much later the second of two requests comes."""


class CountsKeysOtherwise(PassThrough):
    """Changes what was counted of each key, and adds up what comes out."""

    def change(self, count: KeyCount) -> KeyCount:
        """Return what is told of a key."""
        return count

    def is_counted(self, key: str, prefix: str) -> bool:
        """Whether a key is counted that may begin so."""
        return key.startswith(prefix)

    def count_places(self, store: BrokenStore, prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        found = super().count_places(store, [prefix[:1] for prefix in prefixes], _ALL)
        return [
            self.add_up(
                [self.change(each) for each in count.busiest if self.is_counted(each.key, prefix)], busiest
            )
            for prefix, count in zip(prefixes, found, strict=True)
        ]

    def add_up(self, counts: Sequence[KeyCount], busiest: int) -> PlaceCount:
        """Return the count of all keys."""
        held, waiting = sum(each.held for each in counts), sum(each.waiting for each in counts)
        named = sorted(counts, key=lambda each: (-each.held, -each.waiting, each.key))[:busiest]
        return PlaceCount(held, waiting, len(counts), named)


@breaks("CRD-8", where=coordinates)
class CountsThoseWhoWaitAsHolders(CountsKeysOtherwise):
    """A holder that waits is counted as if it had a place."""

    def change(self, count: KeyCount) -> KeyCount:
        return count._replace(held=count.held + count.waiting, waiting=0)


@breaks("CRD-8", where=coordinates)
class CountsNobodyWhoWaits(CountsKeysOtherwise):
    """The line isn't counted."""

    def change(self, count: KeyCount) -> KeyCount:
        return count._replace(waiting=0)


@breaks("CRD-8", where=coordinates)
class TotalsAreOfTheBusiestKeys(CountsKeysOtherwise):
    """Only the keys that are named are added up."""

    def add_up(self, counts: Sequence[KeyCount], busiest: int) -> PlaceCount:
        return super().add_up(super().add_up(counts, busiest).busiest, busiest)


@breaks("CRD-8", where=coordinates)
class NamesAllKeys(CountsKeysOtherwise):
    """Every key is named, however few were asked for: ten thousand keys are a long answer."""

    def add_up(self, counts: Sequence[KeyCount], busiest: int) -> PlaceCount:
        return super().add_up(counts, _ALL)


@breaks("CRD-8", where=coordinates)
class NamesTheFirstKeys(CountsKeysOtherwise):
    """The keys that come first by name are named, and not the busiest."""

    def add_up(self, counts: Sequence[KeyCount], busiest: int) -> PlaceCount:
        named = sorted(counts, key=lambda each: each.key)[:busiest]
        return super().add_up(counts, busiest)._replace(busiest=named)


@breaks("CRD-8", where=coordinates)
class ComparesKeysInAnyCase(CountsKeysOtherwise):
    """A prefix in capitals is taken for one in small letters, and the other way round."""

    def count_places(self, store: BrokenStore, prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        others = [prefix[:1].swapcase() for prefix in prefixes]
        both = zip(
            PassThrough.count_places(self, store, [prefix[:1] for prefix in prefixes], _ALL),
            PassThrough.count_places(self, store, others, _ALL),
            prefixes,
            strict=True,
        )
        return [
            self.add_up(
                list(
                    {
                        each.key: each
                        for each in [*own.busiest, *other.busiest]
                        if each.key.lower().startswith(prefix.lower())
                    }.values()
                ),
                busiest,
            )
            for own, other, prefix in both
        ]


@breaks("CRD-8", where=coordinates)
class CountsTheKeyOfThatNameAlone(CountsKeysOtherwise):
    """Only the key that is equal to the prefix is counted."""

    def is_counted(self, key: str, prefix: str) -> bool:
        return key == prefix


@breaks("CRD-8", where=coordinates)
class TakesUnderscoresForAnyCharacter(CountsKeysOtherwise):
    """The prefix is a pattern: an underscore in it stands for any character."""

    def is_counted(self, key: str, prefix: str) -> bool:
        return len(key) >= len(prefix) and all(
            wanted in ("_", found) for wanted, found in zip(prefix, key, strict=False)
        )


@breaks("CRD-8", where=coordinates)
class AnswersOfPrefixesAreMixedUp(PassThrough):
    """The counts come in the order of the prefixes, whatever order they were asked for in."""

    def count_places(self, store: BrokenStore, prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        return super().count_places(store, sorted(prefixes), busiest)


@breaks("CRD-8", where=coordinates)
class CountsWhatIsOver(PassThrough):
    """What was taken is counted until it is left, though its time may be over."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._over: dict[str, PlaceCount] = {}

    def count_places(self, store: BrokenStore, prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        counts = super().count_places(store, prefixes, busiest)
        for prefix, count in zip(prefixes, counts, strict=True):
            before = self._over.get(prefix)
            if before is None or count.held + count.waiting > before.held + before.waiting:
                self._over[prefix] = count
        return [self._over[prefix] for prefix in prefixes]

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        super().leave_places(store, places)
        self._over.clear()


@breaks("CRD-8", where=coordinates)
class ACountExtendsPlaces(PassThrough):
    """Who is counted is touched: a place that is looked at often never ends."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._holders: dict[str, list[Place]] = {}

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        for place in places:
            self._holders.setdefault(place.key, []).append(place)
        return super().take_places(store, places, ttl_s)

    def count_places(self, store: BrokenStore, prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        for key in self._holders:
            if key.startswith(tuple(prefixes)):
                super().take_places(store, self._holders[key][:1], _LONG_S)
        return super().count_places(store, prefixes, busiest)


@breaks("CRD-8", where=coordinates)
class HoldersAndLineAreCountedApart(PassThrough):
    """Holders are counted in one request and the line in another: who moved on meanwhile is in both."""

    def count_places(self, store: BrokenStore, prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        holders = super().count_places(store, prefixes, busiest)
        time.sleep(_GAP_S)
        lines = super().count_places(store, prefixes, busiest)
        pairs = zip(holders, lines, strict=True)
        return [held._replace(waiting=line.waiting) for held, line in pairs]


@breaks("CON-2", where=coordinates)
class PlacesOfAllNamespacesAreCounted(LendsOneStore):
    """A count in a borrowed store covers the namespace of the first client, also for other clients."""

    def count_places(self, store: BrokenStore, prefixes: Sequence[str], busiest: int) -> list[PlaceCount]:
        return self.first(store).count_places(prefixes, busiest=busiest)
