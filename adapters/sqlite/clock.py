"""What time it is for a file: one clock for all processes of the machine, moved by no change of date (LSE-5).

The kernel counts since the machine was started, and every process reads the same count. The file adds a base
to it, set by the calendar when it is made and when the machine was started anew: how long that was off, only
the calendar can tell. But the file's time never goes back.
"""

import sqlite3
import time
from functools import cache
from pathlib import Path

_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
_CLOCK = getattr(time, "CLOCK_BOOTTIME", time.CLOCK_MONOTONIC)  # the former goes on while the machine sleeps


_LATEST_US = 1 << 60
"""What is later is no moment, but damage: some 36,000 years."""


class FileClock:
    """The time of one file, in microseconds since 1970."""

    def __init__(self, base_us: int) -> None:
        self._base_us = base_us

    def now(self) -> int:
        """What time it is."""
        return self._base_us + since_boot_us()


def since_boot_us() -> int:
    """Microseconds since the machine was started."""
    return time.clock_gettime_ns(_CLOCK) // 1000


@cache
def boot_id() -> str:
    """What tells this start of the machine from any other; empty where the system doesn't say."""
    try:
        return _BOOT_ID.read_text("ascii").strip()
    except OSError:
        return ""


def read_clock(db: sqlite3.Connection) -> FileClock | None:
    """Return the file's clock, or None where it must be set first: the machine was started since."""
    row = db.execute(
        "SELECT base FROM file WHERE boot = ? AND typeof(base) = 'integer' AND base <= ?",
        (boot_id(), _LATEST_US),
    ).fetchone()
    if row is None:
        return None
    clock = FileClock(row[0])
    if clock.now() < _last_moment(db):  # where nothing names this start, a count that began anew tells of it
        return None
    return clock


def set_clock(db: sqlite3.Connection) -> FileClock:
    """Set the file's clock by the calendar, in the transaction that is under way, but never back."""
    clock = read_clock(db)
    if clock is not None:  # another process was faster
        return clock
    # The last change was made before this start of the machine, so at least its count has passed since.
    base_us = max(time.time_ns() // 1000 - since_boot_us(), _last_moment(db))
    if db.execute("UPDATE file SET boot = ?, base = ?", (boot_id(), base_us)).rowcount == 0:
        db.execute("INSERT INTO file (boot, base, ticket) VALUES (?, ?, 0)", (boot_id(), base_us))
    return FileClock(base_us)


def _last_moment(db: sqlite3.Connection) -> int:
    """The last time at which anything was changed."""
    query = "SELECT coalesce(max(moment), 0) FROM queue WHERE moment BETWEEN 0 AND ?"
    ((moment,),) = db.execute(query, (_LATEST_US,)).fetchall()
    return int(moment)
