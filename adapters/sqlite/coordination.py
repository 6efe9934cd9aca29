"""The coordination store in a file: small records that the clients of one namespace share."""

import itertools
import sqlite3
from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from math import ceil
from typing import TypeVar

from ...domain.errors import UnsupportedCapability
from ...ports import (
    ABSENT,
    CoordinationStore,
    KeyCount,
    Place,
    PlaceCount,
    PlaceWatch,
    Record,
    Reservation,
)
from ..shared.place_counts import place_count
from ..shared.turns import whole_microseconds
from .clock import FileClock
from .introspection import is_missing
from .place_reports import PlaceReports, report
from .session import FileSettings, Session
from .transaction import NEVER_US

AnswerT = TypeVar("AnswerT")

_DROPPED = 100
"""The most records, and the most rates, that one write drops because they are over: more than it adds."""
_LAST_CHARACTER = "\U0010ffff"
"""Follows every character that a key may have."""


class Coordination:
    """The records, places and rates of one namespace, in the transaction that is under way.

    Args:
        db: The file.
        namespace: Whose they are.
        now: What time it is, in microseconds by the file's clock.
    """

    def __init__(self, db: sqlite3.Connection, namespace: str, now: int) -> None:
        self._db = db
        self._namespace = namespace
        self._now = now

    # -- records ----------------------------------------------------------------------------------

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        found = {key: self._find(key) for key in keys}
        return {key: record for key, record in found.items() if record is not None}

    def scan(self, prefix: str) -> dict[str, Record]:
        rows = self._db.execute(
            "SELECT key, CAST(value AS BLOB), version FROM record WHERE namespace = ?"
            " AND key BETWEEN ? AND ? AND (ends IS NULL OR ends > ?) ORDER BY key",
            (self._namespace, prefix, prefix + _LAST_CHARACTER, self._now),
        )
        return {key.decode(errors="backslashreplace"): Record(value, version) for key, value, version in rows}

    def put(self, key: str, value: bytes, expected: int | None, ttl_s: float | None) -> int | None:
        self._drop_what_is_over("record")
        if expected is not None and expected != self._version(key):
            return None
        ends = None if ttl_s is None else self._now + _microseconds(ttl_s)
        return self._db.execute(
            "INSERT OR REPLACE INTO record (namespace, key, value, ends) VALUES (?, ?, ?, ?)",
            (self._namespace, key, bytes(value), ends),
        ).lastrowid

    def delete(self, key: str, expected: int | None) -> bool:
        self._drop_what_is_over("record")
        version = self._version(key)
        if version == ABSENT or (expected is not None and expected != version):
            return False
        self._db.execute("DELETE FROM record WHERE version = ?", (version,))
        return True

    def _find(self, key: str) -> Record | None:
        row = self._db.execute(
            "SELECT CAST(value AS BLOB), version FROM record"
            " WHERE namespace = ? AND key = ? AND (ends IS NULL OR ends > ?)",
            (self._namespace, key, self._now),
        ).fetchone()
        return None if row is None else Record(*row)

    def _version(self, key: str) -> int:
        record = self._find(key)
        return ABSENT if record is None else record.version

    # -- places -----------------------------------------------------------------------------------

    def take_places(self, places: Sequence[Place], ttl_s: float, waits_s: float) -> list[bool]:
        # What lasts for years, or is no number, is damage: it would keep its place for good.
        self._db.execute("DELETE FROM place WHERE ends <= ? OR ends >= ?", (self._now, self._now + NEVER_US))
        has_until, waits_until = self._now + _microseconds(ttl_s), self._now + _microseconds(waits_s)
        present: dict[str, int] = {}
        return [self._take_place(place, has_until, waits_until, present) for place in places]

    def leave_places(self, places: Sequence[Place]) -> None:
        self._db.executemany(
            "DELETE FROM place WHERE namespace = ? AND key = ? AND holder = ?",
            [(self._namespace, place.key, place.holder) for place in places],
        )

    def count_places(self, prefix: str, busiest: int) -> PlaceCount:
        """Count those of keys that begin with ``prefix``; what can't be right isn't there, as in a take."""
        rows = self._db.execute(
            "SELECT CAST(key AS BLOB), sum(is_taken = 1), sum(is_taken <> 1) FROM place WHERE namespace = ?"
            " AND key BETWEEN ? AND ? AND ends > ? AND ends < ? GROUP BY key",
            (self._namespace, prefix, prefix + _LAST_CHARACTER, self._now, self._now + NEVER_US),
        )
        named = ((bytes(key).decode(errors="backslashreplace"), held, waits) for key, held, waits in rows)
        return place_count(itertools.starmap(KeyCount, named), busiest)

    def next_in_line(self, left: Sequence[Place]) -> list[tuple[str, str]]:
        """Return the watches of those who may take one of the places that were left, each with the key."""
        by_key = {place.key: place for place in left}
        return [(watch, key) for key, place in by_key.items() for watch in self._next_watches(place)]

    def _next_watches(self, place: Place) -> list[str]:
        """Return the watches of those who may take a place now, but that of ``place``."""
        free = place.limit - self._count(place.key, "is_taken = 1 AND ends > ?", self._now)
        rows = self._db.execute(
            "SELECT CAST(watch AS BLOB) FROM place WHERE namespace = ? AND key = ? AND is_taken = 0"
            " AND ends > ? ORDER BY number LIMIT ?",
            (self._namespace, place.key, self._now, max(0, free)),
        )
        watches = [bytes(watch).decode(errors="replace") for (watch,) in rows]
        return [watch for watch in watches if watch not in ("", place.watch)]

    def _take_place(self, place: Place, has_until: int, waits_until: int, present: dict[str, int]) -> bool:
        """Wait in line, and take a place if fewer than ``limit`` have one or wait in front.

        Args:
            place: The place.
            has_until: Until when it is kept.
            waits_until: Until when its holder waits if it gets none.
            present: How many have places or wait, by key, as far as that was counted in this call.
        """
        key, limit, holder, watch = place
        found = self._db.execute(
            "UPDATE place SET ends = iif(is_taken = 1, ?, ?), watch = ?"
            " WHERE namespace = ? AND key = ? AND holder = ? RETURNING number, is_taken = 1",
            (has_until, waits_until, watch, self._namespace, key, holder),
        ).fetchall()
        if found:
            ((number, is_taken),) = found
            return bool(is_taken) or self._advance(place, number, has_until)
        if key not in present:
            present[key] = self._count(key, "TRUE")
        takes = present[key] < limit
        present[key] += 1
        self._db.execute(
            "INSERT INTO place (namespace, key, holder, is_taken, ends, watch) VALUES (?, ?, ?, ?, ?, ?)",
            (self._namespace, key, holder, takes, has_until if takes else waits_until, watch),
        )
        return takes

    def _advance(self, place: Place, number: int, has_until: int) -> bool:
        """Take a place for one who waits, if it is its turn."""
        key, limit = place.key, place.limit
        if self._count(key, "(is_taken = 1 OR number < ?)", number) >= limit:
            return False
        self._db.execute("UPDATE place SET is_taken = 1, ends = ? WHERE number = ?", (has_until, number))
        return True

    def _count(self, key: str, condition: str, *values: int) -> int:
        ((count,),) = self._db.execute(
            f"SELECT count(*) FROM place WHERE namespace = ? AND key = ? AND {condition}",  # noqa: S608
            (self._namespace, key, *values),
        ).fetchall()
        return int(count)

    # -- rates ------------------------------------------------------------------------------------

    def reserve(self, key: str, count: int, interval_s: float, burst: int, max_wait_s: float) -> Reservation:
        interval = whole_microseconds(interval_s)  # so that turns add up exactly
        wait = self._next_turn(key) - self._now - (burst - 1) * interval
        waits_s = list[float]()
        while len(waits_s) < count and wait <= max_wait_s * 1_000_000:
            waits_s.append(max(0, wait) / 1_000_000)
            wait += interval
        if waits_s:
            self._keep_next_turn(key, self._now + wait + (burst - 1) * interval)
        return Reservation(waits_s, 0.0 if len(waits_s) == count else wait / 1_000_000)

    def _next_turn(self, key: str) -> int:
        """When the turn comes after those that were reserved; now, if that is over or can't be right."""
        row = self._db.execute(
            "SELECT CAST(ends AS INTEGER) FROM turn WHERE namespace = ? AND key = ?", (self._namespace, key)
        ).fetchone()
        is_ahead = row is not None and self._now < row[0] < self._now + NEVER_US
        return int(row[0]) if is_ahead else self._now

    def _keep_next_turn(self, key: str, moment: int) -> None:
        self._drop_what_is_over("turn")
        self._db.execute(
            "INSERT OR REPLACE INTO turn (namespace, key, ends) VALUES (?, ?, ?)",
            (self._namespace, key, moment),
        )

    def _drop_what_is_over(self, table: str) -> None:
        """Drop some rows, of all namespaces, the oldest first: nobody may ever write to theirs again."""
        over = self._db.execute(
            f"SELECT rowid FROM {table} WHERE ends <= ? ORDER BY ends LIMIT ?",  # noqa: S608
            (self._now, _DROPPED),
        ).fetchall()
        if over:
            self._db.executemany(f"DELETE FROM {table} WHERE rowid = ?", over)  # noqa: S608


class SQLiteCoordinationStore(CoordinationStore):
    """What a file keeps for a namespace, on a connection of its own: a long publish holds up no reader.

    Each call is one transaction. Errors are those of :class:`SQLiteClient`.
    """

    def __init__(self, settings: FileSettings, namespace: str) -> None:
        super().__init__()
        self._session = Session(settings, "SQLiteCoordinationStore")
        # Places needn't wait for the disk: a crash that loses them ends all who had one (ADR 142).
        self._unsynced = Session(replace(settings, synchronous="NORMAL"), "SQLiteCoordinationStore")
        self._path = settings.path
        self._folder = settings.wakeups
        self._reports = PlaceReports(settings.wakeups)
        self._namespace = namespace

    def now(self) -> float:
        return self._session.read(lambda _db, clock: clock.now() / 1_000_000)

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        return self._look(lambda kept: kept.get(keys))

    def scan(self, prefix: str) -> dict[str, Record]:
        return self._look(lambda kept: kept.scan(prefix))

    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        return self._session.write(self._in_namespace(lambda kept: kept.put(key, value, expected, ttl_s)))

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        return self._session.write(self._in_namespace(lambda kept: kept.delete(key, expected)))

    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        def change(kept: Coordination) -> tuple[list[bool], list[tuple[str, str]]]:
            kept.leave_places(leaving)
            has = kept.take_places(places, ttl_s, ttl_s if waits_s is None else waits_s)
            return has, kept.next_in_line(leaving)

        has, watches = self._unsynced.write(self._in_namespace(change))
        report(self._folder, watches)
        return has

    def leave_places(self, places: Sequence[Place]) -> None:
        self.take_places((), ttl_s=0.0, leaving=places)

    def count_places(self, prefixes: Sequence[str], *, busiest: int = 10) -> list[PlaceCount]:
        if is_missing(self._path):  # there are none, and this makes no file
            return [place_count([], busiest) for _ in prefixes]
        return self._session.read(
            self._in_namespace(lambda kept: [kept.count_places(prefix, busiest) for prefix in prefixes])
        )

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        self._session.read(lambda db, clock: None)  # makes the file, whose mode the FIFO gets
        try:
            return self._reports.watch(tell)
        except OSError as error:
            raise UnsupportedCapability(f"nobody can be told when places get free: {error}") from error

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        return self._session.write(
            self._in_namespace(lambda kept: kept.reserve(key, count, interval_s, burst, max_wait_s))
        )

    def reserve_each(
        self, counts: Mapping[str, int], *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> dict[str, Reservation]:
        def reserve(kept: Coordination) -> dict[str, Reservation]:
            return {
                key: kept.reserve(key, count, interval_s, burst, max_wait_s) for key, count in counts.items()
            }

        return self._session.write(self._in_namespace(reserve))

    def close(self) -> None:
        self._reports.close()
        self._session.close()
        self._unsynced.close()

    def _look(self, work: Callable[[Coordination], dict[str, Record]]) -> dict[str, Record]:
        """Read records; there are none if there is no file yet, and this makes none."""
        return {} if is_missing(self._path) else self._session.read(self._in_namespace(work))

    def _in_namespace(
        self, work: Callable[[Coordination], AnswerT]
    ) -> Callable[[sqlite3.Connection, FileClock], AnswerT]:
        return lambda db, clock: work(Coordination(db, self._namespace, clock.now()))


def _microseconds(seconds: float) -> int:
    return ceil(seconds * 1_000_000)
