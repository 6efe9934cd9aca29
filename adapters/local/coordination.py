"""The coordination store in memory: small records that the clients of one namespace share."""

import itertools
import threading
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from math import ceil, inf
from typing import NamedTuple, Protocol, TypeVar

from ...ports import (
    ABSENT,
    CoordinationStore,
    Guard,
    KeyCount,
    Place,
    PlaceCount,
    PlaceWatch,
    Record,
    Reservation,
)
from ..shared.error_messages import client_closed
from ..shared.place_counts import place_count
from ..shared.turns import whole_microseconds
from .clock import Clock

ValueT = TypeVar("ValueT")


class Kept(NamedTuple):
    """A record, and until when it is kept."""

    record: Record
    until: float


class _Line:
    """The places of one key: who has one and who waits for one, each until when."""

    def __init__(self) -> None:
        self._holders: dict[str, float] = {}
        self._waiting: dict[str, float] = {}
        self._watches: dict[str, str] = {}
        """Who is told for each who waits."""

    def take(self, place: Place, has_until: float, waits_until: float) -> bool:
        """Take a place; :meth:`drop_those_that_are_over` comes first."""
        _, limit, holder, watch = place
        if holder not in self._holders:
            free = limit - len(self._holders)
            if self._waiting or free <= 0:  # else it is the first in line, and needn't go there
                self._waiting[holder] = waits_until
                self._watches[holder] = watch
                if holder not in itertools.islice(self._waiting, max(0, free)):
                    return False
                del self._waiting[holder], self._watches[holder]
        self._holders[holder] = has_until
        return True

    def leave(self, holder: str) -> None:
        self._holders.pop(holder, None)
        self._waiting.pop(holder, None)
        self._watches.pop(holder, None)

    def next_watches(self, limit: int) -> Iterator[str]:
        """Return who is told for each who may take a place now."""
        free = limit - len(self._holders)
        return (self._watches[holder] for holder in itertools.islice(self._waiting, max(0, free)))

    def count(self, now: float) -> tuple[int, int]:
        """Return how many have a place now, and how many wait."""
        held = sum(until > now for until in self._holders.values())
        return held, sum(until > now for until in self._waiting.values())

    def is_over(self, now: float) -> bool:
        self.drop_those_that_are_over(now)
        return not self._holders and not self._waiting

    def drop_those_that_are_over(self, now: float) -> None:
        """Forget who has or wants a place until a moment that has come."""
        for those in (self._holders, self._waiting):
            for holder in [holder for holder, until in those.items() if until <= now]:
                self.leave(holder)


class Coordination:
    """The records, places and rates of one namespace, under one lock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, Kept] = {}
        self._versions = itertools.count(ABSENT + 1)
        self._lines: dict[str, _Line] = {}
        self._watches: dict[str, Callable[[str | None], None]] = {}
        self._watch_numbers = itertools.count(1)
        self._told: deque[tuple[str, str]] = deque()
        """The watches that are to be told, each with the key."""
        self._is_telling = False
        """Whether a thread calls them."""
        self._next_turn: dict[str, int] = {}
        """By key, when the next turn is, in whole microseconds, so that turns add up exactly."""

    # -- records ----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        with self._lock:
            return self._find_all(keys)

    def scan(self, prefix: str) -> dict[str, Record]:
        with self._lock:
            return self._find_all(sorted(key for key in self._kept if key.startswith(prefix)))

    def put(self, key: str, value: bytes, expected: int | None, ttl_s: float | None) -> int | None:
        with self._lock:
            if expected is not None and expected != self._version(key):
                return None
            return self._write(key, value, ttl_s)

    def put_with(self, guard: Guard, act: Callable[[dict[str, Kept], str, Kept], ValueT]) -> ValueT | None:
        """Have ``act`` write the guard's record with what it does, if that has the expected version (CRD-4).

        Args:
            guard: The record.
            act: Gets the records, the key and the record to write.
        """
        with self._lock:
            if guard.expected != self._version(guard.key):
                return None
            return act(self._kept, guard.key, self._make(guard.value, guard.ttl_s))

    def delete(self, key: str, expected: int | None) -> bool:
        with self._lock:
            version = self._version(key)
            if version == ABSENT or (expected is not None and expected != version):
                return False
            del self._kept[key]
            return True

    def _find_all(self, keys: Iterable[str]) -> dict[str, Record]:
        found = ((key, self._find(key)) for key in keys)
        return {key: record for key, record in found if record is not None}

    def _find(self, key: str) -> Record | None:
        """Return a record unless its time is over; then it is deleted (CRD-3)."""
        kept = self._kept.get(key)
        if kept is None:
            return None
        if kept.until <= self.clock.now():
            del self._kept[key]
            return None
        return kept.record

    def _version(self, key: str) -> int:
        record = self._find(key)
        return ABSENT if record is None else record.version

    def _write(self, key: str, value: bytes, ttl_s: float | None) -> int:
        kept = self._kept[key] = self._make(value, ttl_s)
        return kept.record.version

    def _make(self, value: bytes, ttl_s: float | None) -> Kept:
        """Make a record that is written now."""
        for other in _first_two(self._kept):
            self._find(other)
        record = Record(bytes(value), next(self._versions))
        return Kept(record, inf if ttl_s is None else self.clock.now() + ttl_s)

    # -- places and rates -------------------------------------------------------------------------

    def take_places(
        self, places: Sequence[Place], ttl_s: float, waits_s: float, leaving: Sequence[Place]
    ) -> list[bool]:
        with self._lock:
            now = self.clock.now()
            self._drop_empty_lines(now)
            left = self._leave(leaving)
            for key in {place.key for place in places}:
                self._lines.setdefault(key, _Line()).drop_those_that_are_over(now)
            has = [self._lines[place.key].take(place, now + ttl_s, now + waits_s) for place in places]
            for key, place in left.items():
                self._lines[key].drop_those_that_are_over(now)
                self._told += _to_tell(self._lines[key], key, place)
        self._tell()
        return has

    def _leave(self, places: Sequence[Place]) -> dict[str, Place]:
        """Leave places, and return one for each key that has a line."""
        left: dict[str, Place] = {}
        for place in places:
            if (line := self._lines.get(place.key)) is not None:
                line.leave(place.holder)
                left[place.key] = place
        return left

    def count_places(self, prefix: str, busiest: int) -> PlaceCount:
        counts = [self._count(key) for key in list(self._lines) if key.startswith(prefix)]
        return place_count(counts, busiest)

    def _count(self, key: str) -> KeyCount:
        with self._lock:
            line = self._lines.get(key)
            return KeyCount(key, *((0, 0) if line is None else line.count(self.clock.now())))

    def watch(self, tell: Callable[[str | None], None]) -> str:
        """Begin to tell, and return the name of the watch."""
        with self._lock:
            name = str(next(self._watch_numbers))
            self._watches[name] = tell
            return name

    def stop_watching(self, name: str) -> None:
        with self._lock:
            self._watches.pop(name, None)

    def _tell(self) -> None:
        """Call the watches that have reports.

        A call may leave further places. The thread that calls already reports these, too.
        """
        while self._told:
            is_mine = False
            try:  # first: an interrupt must not leave this to a thread that is gone
                with self._lock:
                    is_mine, self._is_telling = not self._is_telling, True
                if not is_mine:
                    return
                self._tell_all()
            finally:
                if is_mine:
                    self._is_telling = False

    def _tell_all(self) -> None:
        while self._told:
            name, key = self._told.popleft()
            if (tell := self._watches.get(name)) is not None:
                tell(key)

    def reserve(self, key: str, count: int, interval_s: float, burst: int, max_wait_s: float) -> Reservation:
        with self._lock:
            now, interval = ceil(self.clock.now() * 1_000_000), whole_microseconds(interval_s)
            self._drop_past_turns(now)
            earlier = (burst - 1) * interval
            first = max(self._next_turn.get(key, now), now) - earlier - now
            waits = _waits_within(max_wait_s * 1_000_000, first, interval, count)
            wait = first + len(waits) * interval
            if waits:
                self._next_turn[key] = now + earlier + wait
            waits_s = [max(0, each) / 1_000_000 for each in waits]
            return Reservation(waits_s, 0.0 if len(waits) == count else wait / 1_000_000)

    def _drop_empty_lines(self, now: float) -> None:
        for key in _first_two(self._lines):
            if self._lines[key].is_over(now):
                del self._lines[key]

    def _drop_past_turns(self, now: int) -> None:
        for key in _first_two(self._next_turn):
            if self._next_turn[key] <= now:
                del self._next_turn[key]


def _to_tell(line: "_Line", key: str, left: Place) -> list[tuple[str, str]]:
    """Return who is to be told that a place of ``key`` is free: a watch and the key, for each of the next."""
    return [(watch, key) for watch in line.next_watches(left.limit) if watch != left.watch]


def _waits_within(longest: float, first: int, interval: int, count: int) -> list[int]:
    """Return how long the next turns are away, ``count`` at most, none of them more than ``longest``."""
    waits = (first + each * interval for each in range(count))
    return list(itertools.takewhile(lambda wait: wait <= longest, waits))


class _Namespace(Protocol):
    """A :class:`Namespace`, which lives as long as somebody refers to it."""

    coordination: Coordination


class LocalCoordinationStore(CoordinationStore):
    """What is kept in a namespace, for one client of it."""

    def __init__(self, namespace: _Namespace) -> None:
        super().__init__()
        self._namespace: _Namespace | None = namespace

    def now(self) -> float:
        return self._open().clock.now()

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        return self._open().get(keys)

    def scan(self, prefix: str) -> dict[str, Record]:
        return self._open().scan(prefix)

    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        return self._open().put(key, value, expected, ttl_s)

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        return self._open().delete(key, expected)

    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        return self._open().take_places(places, ttl_s, ttl_s if waits_s is None else waits_s, leaving)

    def leave_places(self, places: Sequence[Place]) -> None:
        self._open().take_places((), 0.0, 0.0, places)

    def count_places(self, prefixes: Sequence[str], *, busiest: int = 10) -> list[PlaceCount]:
        kept = self._open()
        return [kept.count_places(prefix, busiest) for prefix in prefixes]

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        kept = self._open()
        name = kept.watch(tell)
        return PlaceWatch(name, lambda: kept.stop_watching(name))

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        return self._open().reserve(key, count, interval_s, burst, max_wait_s)

    def close(self) -> None:
        self._namespace = None

    def _open(self) -> Coordination:
        namespace = self._namespace
        if namespace is None:
            raise client_closed("LocalCoordinationStore")
        return namespace.coordination


def _first_two(kept: dict[str, ValueT]) -> list[str]:
    """Move the first two keys to the end, and return them.

    So each write looks at two that were looked at least recently, and none that is over stays for good.
    """
    keys = list(itertools.islice(kept, 2))
    for key in keys:
        value = kept[key]
        del kept[key]
        kept[key] = value  # no call parts these two, at which a signal handler might raise
    return keys
