"""The coordination store in memory: small records that the clients of one namespace share."""

import itertools
import threading
from collections.abc import Callable, Sequence
from math import ceil, inf
from typing import TYPE_CHECKING, NamedTuple, TypeVar

from ...ports import ABSENT, CoordinationStore, Guard, Place, Record, Reservation
from ..shared.error_messages import client_closed
from ..shared.turns import whole_microseconds
from .clock import Clock

if TYPE_CHECKING:
    from .namespace import Namespace

ValueT = TypeVar("ValueT")


class _Kept(NamedTuple):
    """A record, and until when it is kept."""

    record: Record
    until: float


class _Line:
    """The places of one key: who has one and who waits for one, each until when."""

    def __init__(self) -> None:
        self._holders: dict[str, float] = {}
        self._waiting: dict[str, float] = {}

    def take(self, holder: str, limit: int, now: float, ttl_s: float) -> bool:
        """Take a place; :meth:`drop_those_that_are_over` comes first."""
        if holder not in self._holders:
            free = limit - len(self._holders)
            if self._waiting or free <= 0:  # else it is the first in line, and needn't go there
                self._waiting[holder] = now + ttl_s
                if holder not in itertools.islice(self._waiting, max(0, free)):
                    return False
                del self._waiting[holder]
        self._holders[holder] = now + ttl_s
        return True

    def leave(self, holder: str) -> None:
        self._holders.pop(holder, None)
        self._waiting.pop(holder, None)

    def is_over(self, now: float) -> bool:
        self.drop_those_that_are_over(now)
        return not self._holders and not self._waiting

    def drop_those_that_are_over(self, now: float) -> None:
        """Forget who has or wants a place until a moment that has come."""
        for those in (self._holders, self._waiting):
            for holder in [holder for holder, until in those.items() if until <= now]:
                del those[holder]


class Coordination:
    """The records, places and rates of one namespace, under one lock."""

    def __init__(self, clock: Clock) -> None:
        self.clock = clock
        self._lock = threading.Lock()
        self._kept: dict[str, _Kept] = {}
        self._versions = itertools.count(ABSENT + 1)
        self._lines: dict[str, _Line] = {}
        self._next_turn: dict[str, int] = {}
        """By key, when the next turn is, in whole microseconds, so that turns add up exactly."""

    # -- records ----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        with self._lock:
            found = ((key, self._find(key)) for key in keys)
            return {key: record for key, record in found if record is not None}

    def scan(self, prefix: str) -> dict[str, Record]:
        with self._lock:
            keys = sorted(key for key in self._kept if key.startswith(prefix))
            found = ((key, self._find(key)) for key in keys)
            return {key: record for key, record in found if record is not None}

    def put(self, key: str, value: bytes, expected: int | None, ttl_s: float | None) -> int | None:
        with self._lock:
            if expected is not None and expected != self._version(key):
                return None
            return self._write(key, value, ttl_s)

    def put_with(self, guard: Guard, act: Callable[[], ValueT]) -> ValueT | None:
        """Act, and write the guard's record, if that has the expected version (CRD-4)."""
        with self._lock:
            if guard.expected != self._version(guard.key):
                return None
            value = act()
            self._write(guard.key, guard.value, guard.ttl_s)
            return value

    def delete(self, key: str, expected: int | None) -> bool:
        with self._lock:
            version = self._version(key)
            if version == ABSENT or (expected is not None and expected != version):
                return False
            del self._kept[key]
            return True

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
        for other in _first_two(self._kept):
            self._find(other)
        record = Record(bytes(value), next(self._versions))
        self._kept.pop(key, None)
        self._kept[key] = _Kept(record, inf if ttl_s is None else self.clock.now() + ttl_s)
        return record.version

    # -- places and rates -------------------------------------------------------------------------

    def take_places(self, places: Sequence[Place], ttl_s: float) -> list[bool]:
        with self._lock:
            now = self.clock.now()
            for key in _first_two(self._lines):
                if self._lines[key].is_over(now):
                    del self._lines[key]
            for key in {place.key for place in places}:
                self._lines.setdefault(key, _Line()).drop_those_that_are_over(now)
            return [self._lines[key].take(holder, limit, now, ttl_s) for key, limit, holder in places]

    def leave_places(self, places: Sequence[Place]) -> None:
        with self._lock:
            for key, _, holder in places:
                if (line := self._lines.get(key)) is not None:
                    line.leave(holder)

    def reserve(self, key: str, count: int, interval_s: float, burst: int, max_wait_s: float) -> Reservation:
        with self._lock:
            now, interval = ceil(self.clock.now() * 1_000_000), whole_microseconds(interval_s)
            for other in _first_two(self._next_turn):
                if self._next_turn[other] <= now:
                    del self._next_turn[other]
            earlier = (burst - 1) * interval
            wait = max(self._next_turn.get(key, now), now) - earlier - now
            waits_s: list[float] = []
            while len(waits_s) < count and wait <= max_wait_s * 1_000_000:
                waits_s.append(max(0, wait) / 1_000_000)
                wait += interval
            if waits_s:
                self._next_turn[key] = now + earlier + wait
            return Reservation(waits_s, 0.0 if len(waits_s) == count else wait / 1_000_000)


class LocalCoordinationStore(CoordinationStore):
    """What is kept in a namespace, for one client of it."""

    def __init__(self, namespace: "Namespace") -> None:
        super().__init__()
        self._namespace: Namespace | None = namespace

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

    def take_places(self, places: Sequence[Place], *, ttl_s: float) -> list[bool]:
        return self._open().take_places(places, ttl_s)

    def leave_places(self, places: Sequence[Place]) -> None:
        self._open().leave_places(places)

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
        kept[key] = kept.pop(key)
    return keys
