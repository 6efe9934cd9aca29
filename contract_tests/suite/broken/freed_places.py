"""Faults of the reports to those who are next in line for a place."""

from collections.abc import Callable, Sequence

from ...ports import Capabilities, Place, PlaceWatch
from .fault_registry import breaks
from .pass_through import BrokenStore, PassThrough

Tell = Callable[[str | None], None]


def tells(capabilities: Capabilities) -> bool:
    """Only an adapter that tells of freed places can tell wrongly."""
    return capabilities.freed_places


class KnowsLines(PassThrough):
    """Knows the watches, and who waits for each key, in order."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.tells: dict[str, Tell] = {}
        self.lines: dict[str, dict[str, str]] = {}

    def watch_places(self, store: BrokenStore, tell: Tell) -> PlaceWatch:
        watch = super().watch_places(store, self.wrapped(tell))
        self.tells[watch.name] = tell
        return watch

    def wrapped(self, tell: Tell) -> Tell:
        """What the adapter inside tells."""
        return tell

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        answers = super().take_places(store, places, ttl_s)
        for place, has_it in zip(places, answers, strict=True):
            line = self.lines.setdefault(place.key, {})
            if has_it:
                line.pop(place.holder, None)
            else:
                line[place.holder] = place.watch
        return answers


@breaks("CRD-7", where=tells)
class TellsNobody(PassThrough):
    """Nobody is told: a place stays empty until somebody happens to ask."""

    def watch_places(self, store: BrokenStore, tell: Tell) -> PlaceWatch:
        return super().watch_places(store, lambda key: None)


@breaks("CRD-7", where=tells)
class TellsTheLast(KnowsLines):
    """The last of those who wait is told, in place of the first."""

    def wrapped(self, tell: Tell) -> Tell:
        def tell_last(key: str | None) -> None:
            waiting = [watch for watch in self.lines.get(key or "", {}).values() if watch]
            self.tells.get(waiting[-1] if waiting else "", tell)(key)

        return tell_last


@breaks("CRD-7", where=tells)
class TellsAll(KnowsLines):
    """All who wait for a place are told, and all but one ask in vain."""

    def wrapped(self, tell: Tell) -> Tell:
        def tell_all(key: str | None) -> None:
            for each in list(self.tells.values()):
                each(key)

        return tell_all


@breaks("CRD-7", where=tells)
class KeepsOneReport(KnowsLines):
    """A report is a flag, which holds the first key only until the consumer asks again."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._is_raised = False

    def wrapped(self, tell: Tell) -> Tell:
        def tell_once(key: str | None) -> None:
            if not self._is_raised:
                self._is_raised = True
                tell(key)

        return tell_once

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        self._is_raised = False
        return super().take_places(store, places, ttl_s)


@breaks("CRD-7", where=tells)
class TellsTooEarly(KnowsLines):
    """The next one is told before the place is free, and asks in vain."""

    def wrapped(self, tell: Tell) -> Tell:
        return lambda key: None

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        for place in places:
            first = next(iter(self.lines.get(place.key, {}).values()), "")
            if first in self.tells and place.holder not in self.lines[place.key]:
                self.tells[first](place.key)
        super().leave_places(store, places)


@breaks("CRD-7", where=tells)
class TellsOneOfSeveral(KnowsLines):
    """However many places get free in one call, one key is told."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._told: set[str] = set()

    def wrapped(self, tell: Tell) -> Tell:
        def tell_first(key: str | None) -> None:
            if not self._told:
                self._told.add(key or "")
                tell(key)

        return tell_first

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        self._told.clear()
        super().leave_places(store, places)


@breaks("CRD-7", where=tells)
class TellsWhoAskedFirst(PassThrough):
    """A holder stays with the watch that asked for it first, though another consumer has its job now."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._first: dict[tuple[str, str], str] = {}

    def take_places(self, store: BrokenStore, places: Sequence[Place], ttl_s: float) -> list[bool]:
        named = [
            place._replace(watch=self._first.setdefault((place.key, place.holder), place.watch))
            for place in places
        ]
        return super().take_places(store, named, ttl_s)


@breaks("CRD-7", where=tells)
class ForgetsWhoLeavesTheLine(KnowsLines):
    """If one who waits leaves the line of a free place, the next in line isn't told."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._is_mute = False

    def wrapped(self, tell: Tell) -> Tell:
        return lambda key: None if self._is_mute else tell(key)

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        self._is_mute = all(place.holder in self.lines.get(place.key, {}) for place in places)
        super().leave_places(store, places)


@breaks("CRD-7", where=tells)
class LeavesInARequestOfItsOwn(PassThrough):
    """A call that leaves and takes is two requests: who is next is told of a place that is taken at once."""

    def exchange_places(
        self,
        store: BrokenStore,
        places: Sequence[Place],
        ttl_s: float,
        waits_s: float,
        leaving: Sequence[Place],
    ) -> list[bool]:
        store.inner.leave_places(leaving)
        return super().exchange_places(store, places, ttl_s, waits_s, ())


@breaks("CRD-7", where=tells)
class TellsNobodyWhileItTakes(KnowsLines):
    """Who leaves a place and takes another in one call has nobody told of the first."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._is_mute = False

    def wrapped(self, tell: Tell) -> Tell:
        return lambda key: None if self._is_mute else tell(key)

    def exchange_places(
        self,
        store: BrokenStore,
        places: Sequence[Place],
        ttl_s: float,
        waits_s: float,
        leaving: Sequence[Place],
    ) -> list[bool]:
        self._is_mute = True
        return super().exchange_places(store, places, ttl_s, waits_s, leaving)

    def leave_places(self, store: BrokenStore, places: Sequence[Place]) -> None:
        self._is_mute = False
        super().leave_places(store, places)
