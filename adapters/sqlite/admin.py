"""Administration of a queue: declaring, counting, purging, deleting, dead letters, results."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from typing import Any

from ...domain.queue import Queue
from ...ports import DeadLetter, JobResult, JobStatus, QueueCounts, ResultStatus
from ..shared.error_messages import kind_conflict
from ..shared.records import parse_history, parse_moment
from .cancel_requests import CANCELLED
from .damage import death_of, is_id, repair, substitute_id
from .lease import sweep
from .transaction import Transaction

CHUNK = 1000
"""The most jobs that one transaction drops, so that nobody waits for long behind it."""

Death = tuple[int, int]
"""A dead job: the number of its death, and its seq."""

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
    return QueueCounts(tx.ready + due + expired, tx.delayed - due, tx.leased - expired, tx.dead)


def purge(tx: Transaction) -> int:
    """Drop some of the jobs that wait, and say how many; called until none is left (ADM-2)."""
    sweep(tx)  # what was leased too long waits, too
    ready = tx.db.execute(
        "SELECT rank, seq FROM ready WHERE queue = ? ORDER BY rank LIMIT ?", (tx.key, CHUNK)
    ).fetchall()
    if ready:
        tx.db.execute("DELETE FROM ready WHERE queue = ? AND rank <= ?", (tx.key, ready[-1][0]))
        tx.ready -= len(ready)
        return _drop(tx, [seq for _, seq in ready])
    delayed = _first_delayed(tx)
    if not all(isinstance(part, int | float) for row in delayed for part in row):
        repair(tx)
        delayed = _first_delayed(tx)
    tx.delayed -= tx.db.executemany(
        "DELETE FROM delay WHERE queue = ? AND due = ? AND seq = ?", [(tx.key, *row) for row in delayed]
    ).rowcount
    if not delayed and (tx.ready or tx.delayed):
        tx.recount()
    return _drop(tx, [seq for _, seq in delayed])


def _first_delayed(tx: Transaction) -> list[tuple[object, object]]:
    return tx.db.execute(
        "SELECT due, seq FROM delay WHERE queue = ? ORDER BY due, seq LIMIT ?", (tx.key, CHUNK)
    ).fetchall()


def _drop(tx: Transaction, seqs: Sequence[object]) -> int:
    """Drop jobs, and what is remembered of an earlier end under the id of one (RES-1)."""
    tx.db.execute(
        "DELETE FROM ended WHERE queue = ?"
        " AND id IN (SELECT id FROM job WHERE seq IN (SELECT value FROM json_each(?)))",
        (tx.key, json.dumps([seq for seq in seqs if isinstance(seq, int)])),
    )
    tx.db.executemany("DELETE FROM job WHERE seq = ?", [(seq,) for seq in seqs])
    return len(seqs)


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


# -- dead letters ---------------------------------------------------------------------------------


def dead_letters(tx: Transaction, limit: int, offset: int) -> list[DeadLetter]:
    """List dead letters, oldest first (DLQ-1)."""
    rows = tx.db.execute(
        "SELECT death, id, CAST(body AS BLOB), CAST(reason AS BLOB), CAST(error AS BLOB),"
        " CAST(attempt AS INTEGER), CAST(crashes AS INTEGER), died, history"
        " FROM dead LEFT JOIN job USING (seq) WHERE dead.queue = ? ORDER BY death LIMIT ? OFFSET ?",
        (tx.key, limit, offset),
    )
    return list(_letters(rows))


def _letters(rows: sqlite3.Cursor) -> Iterator[DeadLetter]:
    for death, id_, body, reason, error, attempt, crashes, died, history in rows:
        yield DeadLetter(
            id=id_.decode() if id_ is not None and is_id(id_) else substitute_id(death),
            body=body or b"",
            reason=reason.decode(errors="backslashreplace"),
            error=error.decode(errors="backslashreplace"),
            attempt=attempt or 0,
            crashes=crashes or 0,
            died_at=parse_moment(died / 1_000_000 if isinstance(died, int) else None),
            history=parse_history(history),
        )


def last_death(tx: Transaction) -> int:
    """The number of the last death so far, for :func:`oldest_dead` to end there."""
    ((death,),) = tx.db.execute(
        "SELECT coalesce(max(death), 0) FROM dead WHERE queue = ?", (tx.key,)
    ).fetchall()
    return int(death)


def oldest_dead(tx: Transaction, upto: int) -> list[Death]:
    """The jobs that died first, up to a death and a number."""
    return tx.db.execute(
        "SELECT death, seq FROM dead WHERE queue = ? AND death <= ? ORDER BY death LIMIT ?",
        (tx.key, upto, CHUNK),
    ).fetchall()


def named_dead(tx: Transaction, ids: Sequence[str]) -> list[Death]:
    """Those of ``ids`` that are dead."""
    by_id = "SELECT death, seq FROM job CROSS JOIN dead USING (seq) WHERE job.queue = ? AND id = ?"
    by_death = "SELECT death, seq FROM dead WHERE queue = ? AND death = ?"
    found: dict[Death, None] = {}
    for id_ in ids:
        rows = tx.db.execute(by_id, (tx.key, id_)).fetchall()
        if not rows and (death := death_of(id_)) is not None:
            rows = tx.db.execute(by_death, (tx.key, death)).fetchall()
        found |= dict.fromkeys(rows)
    return list(found)


def redrive(tx: Transaction, deaths: list[Death]) -> int:
    """Let dead jobs arrive anew, as if nothing had happened to them (DLQ-2)."""
    _remove_deaths(tx, deaths)
    jobs: list[tuple[int, int]] = []
    for _, seq in deaths:
        rows = tx.db.execute(
            "UPDATE job SET attempt = 1, crashes = 0, history = NULL WHERE seq = ?"
            " RETURNING CAST(priority AS INTEGER)",
            (seq,),
        ).fetchall()
        jobs += [(seq, priority) for (priority,) in rows]  # none where the job's row is gone
    tx.make_ready(jobs)
    return len(deaths)


def discard(tx: Transaction, deaths: list[Death]) -> int:
    """Drop dead jobs (DLQ-3)."""
    _remove_deaths(tx, deaths)
    _drop(tx, [seq for _, seq in deaths])
    return len(deaths)


def _remove_deaths(tx: Transaction, deaths: list[Death]) -> None:
    tx.db.executemany("DELETE FROM dead WHERE death = ?", [(death,) for death, _ in deaths])
    tx.dead -= len(deaths)
    if tx.dead and not tx.has_rows("dead"):
        tx.recount()


# -- results --------------------------------------------------------------------------------------


def result(tx: Transaction, job_id: str) -> tuple[int, JobResult | None]:
    """The queue's key, and how a job ended (RES-1)."""
    asked = (tx.key, job_id)
    live = tx.db.execute(
        "SELECT CAST(error AS BLOB) FROM job LEFT JOIN dead USING (seq) WHERE job.queue = ? AND id = ?", asked
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
        "SELECT dead.seq IS NOT NULL, EXISTS (SELECT 1 FROM lease WHERE queue = job.queue AND ends > ?"
        " AND seq = job.seq) FROM job LEFT JOIN dead USING (seq) WHERE job.queue = ? AND id = ?",
        (tx.now, tx.key, job_id),
    ).fetchone()
    if live:
        is_dead, is_leased = live
        return JobStatus.FAILED if is_dead else JobStatus.RUNNING if is_leased else JobStatus.WAITING
    found = result(tx, job_id)[1]
    return JobStatus.UNKNOWN if found is None else JobStatus(found.status)


def results(tx: Transaction, ids: Sequence[str]) -> dict[str, JobResult]:
    """How those of at most :data:`CHUNK` jobs ended that have, by id (RES-1).

    Most haven't, mostly: so each query returns only those that may have.
    """
    dead = {
        id_: JobResult(ResultStatus.FAILED, error=(error or b"").decode(errors="backslashreplace"))
        for id_, error in _rows_of(tx, _DEAD, ids)
    }
    kept = dict(_rows_of(tx, _KEPT, ids, tx.now))
    ended = {id_: _DONE for id_, _ in _rows_of(tx, _ENDED, ids) if id_ not in kept}
    done = ended | {id_: _result_of(body) for id_, body in kept.items() if body is not None}
    live = dict(_rows_of(tx, _LIVE, list(done)))
    return {id_: result for id_, result in done.items() if id_ not in live} | dead


def _result_of(body: bytes | int) -> JobResult:
    return JobResult(ResultStatus.CANCELLED) if isinstance(body, int) else JobResult(ResultStatus.DONE, body)


_BODY = f"CASE body WHEN {CANCELLED} THEN body ELSE CAST(body AS BLOB) END"
_DEAD = "SELECT id, CAST(error AS BLOB) FROM job JOIN dead USING (seq) WHERE job.queue = ?"
_KEPT = f"SELECT id, CASE WHEN expires > ? THEN {_BODY} END FROM result WHERE queue = ?"  # noqa: S608
_ENDED = "SELECT id, NULL FROM ended WHERE queue = ?"
_LIVE = "SELECT id, NULL FROM job WHERE queue = ?"


def _rows_of(tx: Transaction, query: str, ids: Sequence[str], *more: int) -> Iterator[tuple[str, Any]]:
    if not ids:
        return
    places = ", ".join("?" * len(ids))
    for id_, found in tx.db.execute(f"{query} AND id IN ({places})", (*more, tx.key, *ids)):
        yield id_.decode(errors="backslashreplace"), found
