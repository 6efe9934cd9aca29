"""What can be seen of a file, its disk and those who share it; nothing is made or changed by looking."""

import os
import shutil
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from ...domain.errors import AccessDenied, BackendError, BackendUnavailable, BrokerUnsuitable
from ...domain.wording import quantity
from ...ports import Durability, Finding
from ...ports.findings import doubtful, good, wrong
from ..shared.records import parse_queue
from .clock import read_clock
from .errors import FileDamaged, damaged, is_busy, translated
from .filesystem import filesystem_of
from .introspection import find_queues, is_missing, open_read_only
from .schema import MIGRATIONS, missing_tables, version_of
from .session import LOG_LIMIT, FileSettings, check_suitable

_CHECK_S = 5.0
"""How long a file's structure is checked at most: readers and writers go on, but the log can't begin anew."""
_STEPS = 10_000
"""After how many of its steps SQLite asks whether to go on."""
_COUNTED = """
    SELECT (SELECT count(*) FROM job WHERE queue = key),
        (SELECT count(*) FROM ready WHERE queue = key), (SELECT count(*) FROM delay WHERE queue = key),
        (SELECT count(*) FROM lease WHERE queue = key), (SELECT count(*) FROM dead WHERE queue = key),
        ready, delayed, leased, dead
    FROM queue WHERE key = ?"""
_SKEW_S = 5.0
_OVER_S = 60.0
"""How long ago a lease has ended that somebody should have taken back."""
_ROOM = 16 * LOG_LIMIT
"""Less room than this is soon gone."""


def diagnose(settings: FileSettings, namespace: str, declared: Durability) -> list[Finding]:
    """Look at a file, whether it is there or can be made; the first finding says whether it can be used.

    Args:
        settings: The file.
        namespace: Whose queues to look at.
        declared: What the client says that its jobs survive.
    """
    path = settings.path
    try:
        check_suitable(path)
        if is_missing(path):
            findings = [_makeable(path)]
        else:
            with open_read_only(settings) as db:
                version = version_of(db, str(path))
                findings = [good("reachable", f"{path} can be read"), _tables(db, version)]
                if version:
                    findings += _contents(db, settings, namespace)
                db.execute("COMMIT")
                findings.append(_writable(db, settings))
    except BackendError as error:
        return [_unusable(error, path)]
    return [*findings, *_disk(path, declared), good("version", f"SQLite {sqlite3.sqlite_version}")]


def _unusable(error: BackendError, path: Path) -> Finding:
    what = str(error)
    if isinstance(error, AccessDenied):
        return wrong("access", what, "let this user write the file and its folder")
    if isinstance(error, FileDamaged):
        return wrong("damage", what, "save what can be read, as the message says; go on with the new file")
    if isinstance(error, BackendUnavailable):
        remedy = "repair the disk, or end the process that hangs, as the message says"
        return wrong("reachable", what, remedy if path.exists() else "create the folder, or correct the path")
    remedy = "do what the message says" if isinstance(error, BrokerUnsuitable) else "look at the disk"
    return wrong("file", what, remedy)


def _makeable(path: Path) -> Finding:
    if os.access(path.parent, os.W_OK | os.X_OK):
        return good("reachable", f"{path} isn't there yet: its first use makes it")
    return wrong("access", f"{path} isn't there, and can't be made", f"let this user write {path.parent}")


# -- what the file holds --------------------------------------------------------------------------


def _tables(db: sqlite3.Connection, version: int) -> Finding:
    if version == 0:
        return good("tables", "none yet: the first use makes them")
    found = f"version {version}"
    if version < len(MIGRATIONS):
        return good("tables", f"{found}; the next use brings them up to version {len(MIGRATIONS)}")
    if missing := missing_tables(db):
        found += f"; the next use adds {', '.join(missing)}"
    return good("tables", found)


def _contents(db: sqlite3.Connection, settings: FileSettings, namespace: str) -> Iterator[Finding]:
    yield _structure(db, settings.path)
    yield from _journal(db, settings.path)
    clock = read_clock(db)
    if clock is None:
        yield good("clock", "the machine was started since: the next use sets the file's clock")
        now = 0
    else:
        now = clock.now()
        yield _clock(now / 1_000_000 - time.time())
    queues = find_queues(db, settings, namespace)
    for key, name, kind in queues:
        queue = parse_queue(name, kind)
        if queue is None:
            yield wrong(
                "queues",
                f"{name!r} of kind {kind!r} can't be a queue of ours",
                "look which program wrote to the file",
            )
            continue
        yield from _leases(db, key, queue.name, now)
        yield from _records(db, key, queue.name)
    yield good("queues", f"{len(queues)} in namespace {namespace!r}")


def _structure(db: sqlite3.Connection, path: Path) -> Finding:
    rows = _bounded(db, "PRAGMA quick_check(1)")
    if rows is None:
        return good("damage", f"none found in {_CHECK_S:g} s, which wasn't enough for all of the file")
    ((found,),) = rows
    if found != "ok":
        raise damaged(path, " ".join(found.split()))
    return good("damage", "none found")


def _bounded(db: sqlite3.Connection, query: str, *values: object) -> list[Any] | None:
    """Return what a query finds, or None where it takes longer than a check may."""
    give_up = time.monotonic() + _CHECK_S
    db.set_progress_handler(lambda: time.monotonic() > give_up, _STEPS)
    try:
        return db.execute(query, values).fetchall()
    except sqlite3.OperationalError as error:
        if error.sqlite_errorcode != sqlite3.SQLITE_INTERRUPT:
            raise
        return None
    finally:
        db.set_progress_handler(None, 0)


def _records(db: sqlite3.Connection, key: int, name: str) -> Iterator[Finding]:
    """Tell where the rows and the counts of a queue don't agree."""
    for jobs, *numbers in _bounded(db, _COUNTED, key) or ():
        found, counted = numbers[:4], numbers[4:]
        if found != counted:
            yield doubtful(
                "records",
                f"queue {name!r} counts {counted} jobs (ready, delayed, in flight, dead); {found} are there",
                "start a worker for this queue: it counts anew",
            )
        if jobs > sum(found):
            yield wrong(
                "records",
                f"queue {name!r}: {quantity(jobs - sum(found), 'job')} in no state, never run",
                "look for them in the table job, and publish them again",
            )
        if jobs < sum(found):
            yield doubtful(
                "records",
                f"queue {name!r}: {quantity(sum(found) - jobs, 'entry', 'entries')} without a job",
                "workers drop them, and log each; discard drops those that are dead",
            )


def _journal(db: sqlite3.Connection, path: Path) -> Iterator[Finding]:
    ((mode,),) = db.execute("PRAGMA journal_mode").fetchall()
    if mode != "wal":
        yield doubtful(
            "journal",
            f"journal mode {mode}: readers and writers keep each other waiting",
            "stop all that use the file: the next use sets it to wal",
        )
        return
    log = Path(f"{path}-wal")
    size = log.stat().st_size if log.exists() else 0
    if size > LOG_LIMIT:
        yield doubtful(
            "journal",
            f"the log has {_mib(size)}, as when a process has been reading in one transaction for long",
            f"end that process (fuser '{path}' lists those that have the file open); the log then shrinks",
        )
    else:
        yield good("journal", f"wal, with {_mib(size)} in its log")


def _clock(ahead_s: float) -> Finding:
    if abs(ahead_s) > _SKEW_S:
        return doubtful(
            "clock",
            f"the calendar was set by {-ahead_s:+,.0f} s since the file's clock was: a job with not_before "
            "is late or early by as much",
            "run NTP; the next start of the machine sets the file's clock anew",
        )
    return good("clock", "agrees with the calendar")


def _leases(db: sqlite3.Connection, key: int, name: str, now: int) -> Iterator[Finding]:
    ((count, first),) = db.execute(
        "SELECT count(*), min(ends) FROM lease WHERE queue = ? AND ends <= ?",
        (key, now - round(_OVER_S * 1_000_000)),
    ).fetchall()
    if count:
        yield doubtful(
            "leases",
            f"queue {name!r}: {quantity(count, 'job')} still with workers whose lease ended up to "
            f"{(now - first) / 1_000_000:,.0f} s ago, and nobody has come for them",
            "start a worker for this queue: they run again, at once",
        )


# -- what is around it ----------------------------------------------------------------------------


def _writable(db: sqlite3.Connection, settings: FileSettings) -> Finding:
    """Begin to write, and write nothing."""
    try:
        db.execute("BEGIN IMMEDIATE")
    except sqlite3.Error as error:
        remedy = "let this user write the file and its folder"
        if is_busy(error):
            remedy = (
                f"end the process that hangs; fuser '{settings.path}' lists those that have the file open"
            )
        return wrong("writable", str(translated(error, settings.path)), remedy)
    db.execute("ROLLBACK")
    return good("writable", "the file can be written, and nobody holds it up")


def _disk(path: Path, declared: Durability) -> Iterator[Finding]:
    kind = filesystem_of(path)
    if kind in ("tmpfs", "ramfs"):
        yield doubtful(
            "durability",
            f"the file is in memory ({kind}): when the machine is off, every job is lost",
            "put it on a disk",
        )
    elif declared is Durability.SNAPSHOT:
        yield doubtful(
            "durability",
            "durability is 'snapshot': a power cut may take what came since SQLite's last checkpoint",
            "durability='fsync', the default, where that matters",
        )
    else:
        yield good("durability", "each commit is on the disk before it is confirmed")
    free = shutil.disk_usage(path.parent).free
    if free < _ROOM:
        report = wrong if free < LOG_LIMIT else doubtful
        yield report("disk", f"{_mib(free)} are free", "free some space: without, no job is taken or settled")
    else:
        yield good("disk", f"{_mib(free)} are free")


def _mib(size: int) -> str:
    return f"{size / 1024**2:,.0f} MiB"
