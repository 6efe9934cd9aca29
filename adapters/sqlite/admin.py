"""Administration of a queue: declaring, counting, purging, deleting, results."""

import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from ...domain.queue import Queue
from ...ports import JobResult, JobStatus, QueueCounts, ResultStatus
from ..shared.error_messages import kind_conflict
from .cancel_requests import CANCELLED
from .damage import repair
from .dead_letters import KEPT, count_expired, drop_jobs
from .lease import sweep
from .transaction import CHUNK, Transaction

_DONE = JobResult(ResultStatus.DONE)
_KEYS = {
    "ready": "queue, rank",
    "delay": "queue, due, seq",
    "lease": "queue, ends, seq",
    "dead": "death",
    "job": "seq",
    "result": "seq",
    "ended": "queue, slot",
    "cancel": "seq",
}
"""Every table that holds rows of a queue, and what tells its rows apart."""


def declare(db: sqlite3.Connection, namespace: str, queue: Queue) -> None:
    """Create a queue, or find it as it is (ADM-1).

    Raises:
        QueueConflict: it exists with another kind.
    """
    db.execute(
        "INSERT OR IGNORE INTO queue (namespace, name, kind) VALUES (?, ?, ?)",
        (namespace, queue.name, queue.kind),
    )
    ((kind,),) = db.execute(
        "SELECT kind FROM queue WHERE namespace = ? AND name = ?", (namespace, queue.name)
    ).fetchall()
    if kind != queue.kind.encode():
        raise kind_conflict(queue, kind.decode(errors="backslashreplace"))


def counts(tx: Transaction) -> QueueCounts:
    """Count the jobs by state: what is due counts as ready, and so does what was leased too long (CNT-1)."""
    ((due,),) = tx.db.execute(
        "SELECT count(*) FROM delay WHERE queue = ? AND due <= ?", (tx.key, tx.now)
    ).fetchall()
    ((expired,),) = tx.db.execute(
        "SELECT count(*) FROM lease WHERE queue = ? AND ends <= ?", (tx.key, tx.now)
    ).fetchall()
    return QueueCounts(
        tx.ready + due + expired, tx.delayed - due, tx.leased - expired, tx.dead - count_expired(tx)
    )


_FIRST = (
    "SELECT body FROM ready JOIN job USING (seq) WHERE ready.queue = ? ORDER BY rank LIMIT 1",
    "SELECT body FROM delay JOIN job USING (seq) WHERE delay.queue = ? AND due <= ? ORDER BY due LIMIT 1",
    "SELECT body FROM lease JOIN job USING (seq) WHERE lease.queue = ? AND ends <= ? ORDER BY ends LIMIT 1",
)
"""Where the first ready job is: what came to its time is swept with the next receive."""


def first_ready(tx: Transaction) -> bytes | None:
    """Return the body of the first ready job; None if none is ready (CNT-2)."""
    for statement in _FIRST:
        parameters = (tx.key, tx.now)[: statement.count("?")]
        for (body,) in tx.db.execute(statement, parameters).fetchall():
            return bytes(body)
    return None


def purge(tx: Transaction) -> int:
    """Drop some of the jobs that wait, and say how many; called until none is left (ADM-2)."""
    sweep(tx)  # what was leased too long waits, too
    ready = tx.db.execute(
        "SELECT rank, seq FROM ready WHERE queue = ? ORDER BY rank LIMIT ?", (tx.key, CHUNK)
    ).fetchall()
    if ready:
        tx.db.execute("DELETE FROM ready WHERE queue = ? AND rank <= ?", (tx.key, ready[-1][0]))
        tx.ready -= len(ready)
        return drop_jobs(tx, [seq for _, seq in ready])
    delayed = _first_delayed(tx)
    if not all(isinstance(part, int | float) for row in delayed for part in row):
        repair(tx)
        delayed = _first_delayed(tx)
    tx.delayed -= tx.db.executemany(
        "DELETE FROM delay WHERE queue = ? AND due = ? AND seq = ?", [(tx.key, *row) for row in delayed]
    ).rowcount
    if not delayed and (tx.ready or tx.delayed):
        tx.recount()
    return drop_jobs(tx, [seq for _, seq in delayed])


def _first_delayed(tx: Transaction) -> list[tuple[object, object]]:
    return tx.db.execute(
        "SELECT due, seq FROM delay WHERE queue = ? ORDER BY due, seq LIMIT ?", (tx.key, CHUNK)
    ).fetchall()


# -- deleting -------------------------------------------------------------------------------------


def mark_deleted(tx: Transaction) -> int:
    """Take a queue's name away, so that it is gone; :func:`drop_deleted` drops its rows (ADM-3).

    Returns:
        Its key.
    """
    tx.db.execute("UPDATE queue SET namespace = NULL WHERE key = ?", (tx.key,))
    return tx.key


def drop_deleted(db: sqlite3.Connection) -> int:
    """Drop some rows of deleted queues, and say how many; called until none is left.

    The process that deletes a queue calls this, and every ``declare``, should that process have been killed.
    """
    row = db.execute("SELECT key FROM queue WHERE namespace IS NULL LIMIT 1").fetchone()
    if row is None:
        return 0
    for table, key in _KEYS.items():
        some = f"SELECT {key} FROM {table} WHERE queue = ? LIMIT ?"  # noqa: S608
        if dropped := db.execute(f"DELETE FROM {table} WHERE ({key}) IN ({some})", (row[0], CHUNK)).rowcount:  # noqa: S608
            return dropped
    return db.execute("DELETE FROM queue WHERE key = ?", row).rowcount


# -- results --------------------------------------------------------------------------------------


def result(tx: Transaction, job_id: str) -> tuple[int, JobResult | None]:
    """The queue's key, and how a job ended (RES-1)."""
    asked = (tx.key, job_id)
    live = tx.db.execute(
        f"SELECT CASE WHEN {KEPT} THEN CAST(error AS BLOB) END"  # noqa: S608
        " FROM job LEFT JOIN dead USING (seq) WHERE job.queue = ? AND id = ?",
        (tx.now, *asked),
    ).fetchone()
    if live:
        error = None if live[0] is None else live[0].decode(errors="backslashreplace")
        return tx.key, None if error is None else JobResult(ResultStatus.FAILED, error=error)
    kept = tx.db.execute(
        f"SELECT expires > ?, {_BODY} FROM result WHERE queue = ? AND id = ?",  # noqa: S608
        (tx.now, *asked),
    ).fetchone()
    if kept:
        return tx.key, _result_of(kept[1]) if kept[0] else None
    ended = tx.db.execute("SELECT 1 FROM ended WHERE queue = ? AND id = ? LIMIT 1", asked).fetchone()
    return tx.key, _DONE if ended else None


def status(tx: Transaction, job_id: str) -> JobStatus:
    """Where a job is (RES-1)."""
    live = tx.db.execute(
        f"SELECT dead.seq IS NOT NULL, {KEPT}, EXISTS (SELECT 1 FROM lease"  # noqa: S608
        " WHERE queue = job.queue AND ends > ? AND seq = job.seq)"
        " FROM job LEFT JOIN dead USING (seq) WHERE job.queue = ? AND id = ?",
        (tx.now, tx.now, tx.key, job_id),
    ).fetchone()
    if live:
        is_dead, is_kept, is_leased = live
        if not is_kept:
            return JobStatus.UNKNOWN
        return JobStatus.FAILED if is_dead else JobStatus.RUNNING if is_leased else JobStatus.WAITING
    found = result(tx, job_id)[1]
    return JobStatus.UNKNOWN if found is None else JobStatus(found.status)


def results(tx: Transaction, ids: Sequence[str]) -> dict[str, JobResult]:
    """How those of at most :data:`CHUNK` jobs ended that have, by id (RES-1).

    Most haven't, mostly: so each query returns only those that may have.
    """
    dead = {
        id_: JobResult(ResultStatus.FAILED, error=(error or b"").decode(errors="backslashreplace"))
        for id_, error in _rows_of(tx, _DEAD, ids, tx.now)
    }
    kept = dict(_rows_of(tx, _KEPT, ids, tx.now))
    ended = {id_: _DONE for id_, _ in _rows_of(tx, _ENDED, ids) if id_ not in kept}
    done = ended | {id_: _result_of(body) for id_, body in kept.items() if body is not None}
    live = dict(_rows_of(tx, _LIVE, list(done)))
    return {id_: result for id_, result in done.items() if id_ not in live} | dead


def _result_of(body: bytes | int) -> JobResult:
    return JobResult(ResultStatus.CANCELLED) if isinstance(body, int) else JobResult(ResultStatus.DONE, body)


_BODY = f"CASE body WHEN {CANCELLED} THEN body ELSE CAST(body AS BLOB) END"
_DEAD = f"SELECT id, CAST(error AS BLOB) FROM job JOIN dead USING (seq) WHERE {KEPT} AND job.queue = ?"  # noqa: S608
_KEPT = f"SELECT id, CASE WHEN expires > ? THEN {_BODY} END FROM result WHERE queue = ?"  # noqa: S608
_ENDED = "SELECT id, NULL FROM ended WHERE queue = ?"
_LIVE = "SELECT id, NULL FROM job WHERE queue = ?"


def _rows_of(tx: Transaction, query: str, ids: Sequence[str], *more: int) -> Iterator[tuple[str, Any]]:
    if not ids:
        return
    places = ", ".join("?" * len(ids))
    for id_, found in tx.db.execute(f"{query} AND id IN ({places})", (*more, tx.key, *ids)):
        yield id_.decode(errors="backslashreplace"), found
