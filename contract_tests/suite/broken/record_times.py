"""Faults of records that have a time."""

from collections.abc import Callable, Sequence
from math import ceil

from ...ports import ABSENT, Record
from .fault_registry import breaks
from .leases import skew_s
from .pass_through import BrokenStore, PassThrough
from .records import coordinates


class TimesOtherwise(PassThrough):
    """Keeps records for another time than it was given."""

    def time(self, ttl_s: float) -> float:
        """For how long a record is kept."""
        return ttl_s

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        return super().put(store, key, value, expected, None if ttl_s is None else self.time(ttl_s))


@breaks("CRD-3", where=coordinates)
class RoundsTimesDown(TimesOtherwise):
    """Times are whole seconds, and the rest is cut off."""

    def time(self, ttl_s: float) -> float:
        return float(int(ttl_s))


@breaks("CRD-3", where=coordinates)
class RoundsTimesUp(TimesOtherwise):
    """Times are whole seconds, one at least."""

    def time(self, ttl_s: float) -> float:
        return float(ceil(ttl_s))


@breaks("CRD-3", where=coordinates)
class LongTimesOverflow(TimesOtherwise):
    """Times are milliseconds in 32 bits: 30 days are more than those hold, and begin anew."""

    def time(self, ttl_s: float) -> float:
        return ttl_s % (2**31 / 1000)


@breaks("CRD-3", where=coordinates)
class TimesByTheWorkersClock(TimesOtherwise):
    """When a record ends is computed from the worker's calendar."""

    def time(self, ttl_s: float) -> float:
        return max(0.0, ttl_s + skew_s())


@breaks("CRD-3", where=coordinates)
class IsEarlyBySome(TimesOtherwise):
    """Records end a little early, as when a sweep takes all that end within its interval."""

    def time(self, ttl_s: float) -> float:
        return max(0.0, ttl_s - 0.05)


@breaks("CRD-3", where=coordinates)
class RefusesShortTimes(TimesOtherwise):
    """A time of less than a millisecond becomes 0, which the server refuses."""

    def time(self, ttl_s: float) -> float:
        if ttl_s < 0.001:
            raise ValueError("invalid expire time in 'set' command")
        return ttl_s


class KnowsTimes(PassThrough):
    """Knows of each record what time it was last given."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.times: dict[str, float | None] = {}

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        version = super().put(store, key, value, expected, ttl_s)
        if version is not None:
            self.times[key] = ttl_s
        return version


@breaks("CRD-3", where=coordinates)
class APutKeepsTheTime(PassThrough):
    """A put without a time leaves the one that an earlier put has set, as SET with KEEPTTL."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._ends: dict[str, float] = {}

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        if ttl_s is None and store.inner.get([key]) and key in self._ends:
            ttl_s = max(0.0, self._ends[key] - self.now())
        elif ttl_s is not None:
            self._ends[key] = self.now() + ttl_s
        return super().put(store, key, value, expected, ttl_s)


@breaks("CRD-3", where=coordinates)
class ReadingExtends(KnowsTimes):
    """Whoever reads a record begins its time anew, as a session's."""

    def get(self, store: BrokenStore, keys: Sequence[str]) -> dict[str, Record]:
        for key, record in store.inner.get(keys).items():
            if (ttl_s := self.times.get(key)) is not None:
                super().put(store, key, record.value, record.version, ttl_s)
        return super().get(store, keys)


@breaks("CRD-3", where=coordinates)
class ARefusedPutSetsTheTime(PassThrough):
    """A put is SETNX and then EXPIRE: where the first is refused, the second is sent all the same."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        version = super().put(store, key, value, expected, ttl_s)
        record = store.inner.get([key]).get(key)
        if version is None and record and ttl_s is not None:
            super().put(store, key, record.value, record.version, ttl_s)
        return version


class KeepsWhatEnded(PassThrough):
    """Knows the last record of each key, also after its end."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self.last: dict[str, Record] = {}

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        version = super().put(store, key, value, expected, ttl_s)
        if version is not None:
            self.last[key] = Record(value, version)
        return version

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        deleted = super().delete_record(store, key, expected)
        if deleted:
            self.last.pop(key, None)
        return deleted


@breaks("CRD-3", where=coordinates)
class ScansWhatEnded(KeepsWhatEnded):
    """Records that ended are filtered by a get, and not by a scan."""

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        known = {key: record for key, record in self.last.items() if key.startswith(prefix)}
        return dict(sorted((known | super().scan(store, prefix)).items()))


@breaks("CRD-1", where=coordinates)
class AScanEndsWithAPageThatEnded(KeepsWhatEnded):
    """A scan reads pages of 500 records, and ends with one of which none is there any more."""

    def scan(self, store: BrokenStore, prefix: str) -> dict[str, Record]:
        there, found = super().scan(store, prefix), dict[str, Record]()
        keys = sorted(key for key in self.last.keys() | there.keys() if key.startswith(prefix))
        for at in range(0, len(keys), 500):
            page = {key: there[key] for key in keys[at : at + 500] if key in there}
            if not page:
                break
            found |= page
        return found


@breaks("CRD-3", where=coordinates)
class WhatEndedIsInTheWay(KeepsWhatEnded):
    """A unique index counts records that ended, so that no new one can be inserted."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        if expected == ABSENT and key in self.last:
            return None
        return super().put(store, key, value, expected, ttl_s)


@breaks("CRD-3", where=coordinates)
class WhatEndedCanBeDeleted(KeepsWhatEnded):
    """A delete finds records that ended and weren't swept yet."""

    def delete_record(self, store: BrokenStore, key: str, expected: int | None) -> bool:
        was = self.last.get(key)
        deleted = super().delete_record(store, key, expected)
        return deleted or (was is not None and expected in (None, was.version))


@breaks("CRD-3", where=coordinates)
class WhatEndedCanBeExpected(KeepsWhatEnded):
    """A put that expects the version of a record that ended brings it to life again."""

    def put(
        self, store: BrokenStore, key: str, value: bytes, expected: int | None, ttl_s: float | None
    ) -> int | None:
        was = self.last.get(key)
        if was is not None and expected == was.version and not store.inner.get([key]):
            expected = ABSENT
        return super().put(store, key, value, expected, ttl_s)
