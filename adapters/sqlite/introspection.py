"""Introspection: which queues a file has, and how far their jobs have come."""

import json
import os
import sqlite3
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from functools import partial
from pathlib import Path
from urllib.parse import quote

from ...domain.job_progress import Progress
from ...domain.queue import Queue
from ..shared.records import parse_progress, parse_queue
from .errors import translated
from .forks import looks
from .lease import LeasedJob
from .schema import version_of
from .session import FileSettings, check_suitable
from .transaction import Transaction


@contextmanager
def open_read_only(settings: FileSettings) -> Iterator[sqlite3.Connection]:
    """Look at a file that is there as it is: it isn't made, nor brought up to date, as a session would.

    Raises:
        BackendError: it can't be read; the kind of error and its message say why.
    """
    check_suitable(settings.path)
    try:
        uri = f"file:{quote(str(settings.path))}?mode=rw"  # may be read-only, and is made in no mode but rwc
        with (
            looks.under_way,
            closing(
                sqlite3.connect(uri, uri=True, timeout=settings.retry_timeout_s, isolation_level=None)
            ) as db,
        ):
            db.text_factory = partial(str, encoding="utf-8", errors="backslashreplace")
            db.execute("BEGIN")  # so that all is seen as of one moment
            yield db
    except sqlite3.Error as error:
        raise translated(error, settings.path) from error


def is_missing(path: Path) -> bool:
    """Tell whether the file is yet to be made, in a folder that is there."""
    return os.access(path.parent, os.X_OK) and path.parent.is_dir() and not path.exists()


def list_queues(settings: FileSettings, namespace: str) -> list[Queue]:
    """List the queues of ``namespace``; none if there is no file yet.

    Raises:
        BackendError: as of :func:`open_read_only`.
    """
    if is_missing(settings.path):
        return []
    with open_read_only(settings) as db:
        found = find_queues(db, settings, namespace)
    return [queue for _, name, kind in found if (queue := parse_queue(name, kind)) is not None]


def find_queues(db: sqlite3.Connection, settings: FileSettings, namespace: str) -> list[tuple[int, str, str]]:
    """The key, name and kind of each queue of ``namespace``, by name.

    Raises:
        BrokerUnsuitable: the file is another application's, or a newer release's.
    """
    if version_of(db, str(settings.path)) == 0:
        return []
    return db.execute(
        "SELECT key, name, kind FROM queue WHERE namespace = ? ORDER BY name", (namespace,)
    ).fetchall()


def write_progress(tx: Transaction, held: LeasedJob, progress: Progress) -> None:
    """Keep how far a job has come, for as long as it is leased; one whose lease is lost changes nothing."""
    tx.db.execute(
        "UPDATE lease SET progress = ? WHERE queue = ? AND ends = ? AND seq = ? AND number = ?",
        (json.dumps([progress.done, progress.total]), tx.key, held.ends, held.seq, held.number),
    )


def read_progress(tx: Transaction, ids: Sequence[str] | None) -> dict[str, Progress]:
    """Say how far the jobs in hand have come, as far as they reported."""
    rows = tx.db.execute(
        "SELECT id, progress FROM lease CROSS JOIN job USING (seq)"
        " WHERE lease.queue = ? AND ends > ? AND progress IS NOT NULL",
        (tx.key, tx.now),
    )
    reported = {
        id_.decode(errors="backslashreplace"): progress
        for id_, text in rows
        if (progress := parse_progress(text))
    }
    return reported if ids is None else {id_: reported[id_] for id_ in ids if id_ in reported}
