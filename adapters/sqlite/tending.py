"""Looking at a queue, and tending it: all that is neither publishing nor consuming."""

import json
import sqlite3
from collections.abc import Iterator, Sequence

from ...domain.errors import QueueConflict
from ...domain.queue import Queue
from ...ports import DeadLetter, JobResult, QueueCounts, ResultStatus
from ..shared.records import parse_history, parse_moment
from .damage import death_of, is_id, repair, stand_in
from .delivering import sweep
from .step import Step

CHUNK = 1000
"""The most jobs that one step drops, so that nobody waits for long behind it."""

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
        raise QueueConflict(
            f"queue {queue.name!r} exists as {kind.decode(errors='backslashreplace')}, not {queue.kind}: "
            "declare it as it is, or delete it first"
        )


def counts(step: Step) -> QueueCounts:
    """Count the jobs by state: what is due counts as ready, and so does what was leased too long (CNT-1)."""
    ((due,),) = step.db.execute(
        "SELECT count(*) FROM delay WHERE queue = ? AND due <= ?", (step.key, step.now)
    ).fetchall()
    ((expired,),) = step.db.execute(
        "SELECT count(*) FROM lease WHERE queue = ? AND ends <= ?", (step.key, step.now)
    ).fetchall()
    return QueueCounts(step.ready + due + expired, step.delayed - due, step.leased - expired, step.dead)


def purge(step: Step) -> int:
    """Drop jobs that wait, up to a number, and say how many; called until none is left (ADM-2)."""
    sweep(step)  # what was leased too long waits, too
    ready = step.db.execute(
        "SELECT rank, seq FROM ready WHERE queue = ? ORDER BY rank LIMIT ?", (step.key, CHUNK)
    ).fetchall()
    if ready:
        step.db.execute("DELETE FROM ready WHERE queue = ? AND rank <= ?", (step.key, ready[-1][0]))
        step.ready -= len(ready)
        return _drop(step, [seq for _, seq in ready])
    delayed = _first_delayed(step)
    if not all(isinstance(part, int | float) for row in delayed for part in row):
        repair(step)
        delayed = _first_delayed(step)
    step.delayed -= step.db.executemany(
        "DELETE FROM delay WHERE queue = ? AND due = ? AND seq = ?", [(step.key, *row) for row in delayed]
    ).rowcount
    if not delayed and (step.ready or step.delayed):
        step.recount()
    return _drop(step, [seq for _, seq in delayed])


def _first_delayed(step: Step) -> list[tuple[object, object]]:
    return step.db.execute(
        "SELECT due, seq FROM delay WHERE queue = ? ORDER BY due, seq LIMIT ?", (step.key, CHUNK)
    ).fetchall()


def _drop(step: Step, seqs: Sequence[object]) -> int:
    """Drop jobs, and what is remembered of an earlier end under the id of one (RES-1)."""
    step.db.execute(
        "DELETE FROM ended WHERE queue = ?"
        " AND id IN (SELECT id FROM job WHERE seq IN (SELECT value FROM json_each(?)))",
        (step.key, json.dumps([seq for seq in seqs if isinstance(seq, int)])),
    )
    step.db.executemany("DELETE FROM job WHERE seq = ?", [(seq,) for seq in seqs])
    return len(seqs)


# -- deleting -------------------------------------------------------------------------------------


def orphan(step: Step) -> int:
    """Take a queue's name away: it is gone, and its rows can be dropped little by little (ADM-3).

    Returns:
        Its key.
    """
    step.db.execute("UPDATE queue SET namespace = NULL WHERE key = ?", (step.key,))
    return step.key


def drop_orphans(db: sqlite3.Connection) -> int:
    """Drop rows of queues that were deleted, up to a number, and say how many; called until none is left.

    Whoever deletes a queue does so, and whoever comes next where that one was killed meanwhile.
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


def dead_letters(step: Step, limit: int, offset: int) -> list[DeadLetter]:
    """List dead letters, oldest first (DLQ-1)."""
    rows = step.db.execute(
        "SELECT death, id, CAST(body AS BLOB), CAST(reason AS BLOB), CAST(error AS BLOB),"
        " CAST(attempt AS INTEGER), CAST(crashes AS INTEGER), died, history"
        " FROM dead LEFT JOIN job USING (seq) WHERE dead.queue = ? ORDER BY death LIMIT ? OFFSET ?",
        (step.key, limit, offset),
    )
    return list(_letters(rows))


def _letters(rows: sqlite3.Cursor) -> Iterator[DeadLetter]:
    for death, id_, body, reason, error, attempt, crashes, died, history in rows:
        yield DeadLetter(
            id=id_.decode() if id_ is not None and is_id(id_) else stand_in(death),
            body=body or b"",
            reason=reason.decode(errors="backslashreplace"),
            error=error.decode(errors="backslashreplace"),
            attempt=attempt or 0,
            crashes=crashes or 0,
            died_at=parse_moment(died / 1_000_000 if isinstance(died, int) else None),
            history=parse_history(history),
        )


def last_death(step: Step) -> int:
    """The number of the last death so far, for :func:`oldest_dead` to end there."""
    ((death,),) = step.db.execute(
        "SELECT coalesce(max(death), 0) FROM dead WHERE queue = ?", (step.key,)
    ).fetchall()
    return int(death)


def oldest_dead(step: Step, upto: int) -> list[Death]:
    """The jobs that died first, up to a death and a number."""
    return step.db.execute(
        "SELECT death, seq FROM dead WHERE queue = ? AND death <= ? ORDER BY death LIMIT ?",
        (step.key, upto, CHUNK),
    ).fetchall()


def named_dead(step: Step, ids: Sequence[str]) -> list[Death]:
    """Those of ``ids`` that are dead."""
    by_id = "SELECT death, seq FROM job CROSS JOIN dead USING (seq) WHERE job.queue = ? AND id = ?"
    by_death = "SELECT death, seq FROM dead WHERE queue = ? AND death = ?"
    found: dict[Death, None] = {}
    for id_ in ids:
        rows = step.db.execute(by_id, (step.key, id_)).fetchall()
        if not rows and (death := death_of(id_)) is not None:
            rows = step.db.execute(by_death, (step.key, death)).fetchall()
        found |= dict.fromkeys(rows)
    return list(found)


def redrive(step: Step, deaths: list[Death]) -> int:
    """Let dead jobs arrive anew, as if nothing had happened to them (DLQ-2)."""
    _unbury(step, deaths)
    jobs: list[tuple[int, int]] = []
    for _, seq in deaths:
        rows = step.db.execute(
            "UPDATE job SET attempt = 1, crashes = 0, history = NULL WHERE seq = ?"
            " RETURNING CAST(priority AS INTEGER)",
            (seq,),
        ).fetchall()
        jobs += [(seq, priority) for (priority,) in rows]  # none where the job's row is gone
    step.make_ready(jobs)
    return len(deaths)


def discard(step: Step, deaths: list[Death]) -> int:
    """Drop dead jobs (DLQ-3)."""
    _unbury(step, deaths)
    _drop(step, [seq for _, seq in deaths])
    return len(deaths)


def _unbury(step: Step, deaths: list[Death]) -> None:
    step.db.executemany("DELETE FROM dead WHERE death = ?", [(death,) for death, _ in deaths])
    step.dead -= len(deaths)
    if step.dead and not step.has_rows("dead"):
        step.recount()


# -- results --------------------------------------------------------------------------------------


def result(step: Step, job_id: str) -> tuple[int, JobResult | None]:
    """The queue's key, and how a job ended (RES-1)."""
    asked = (step.key, job_id)
    live = step.db.execute(
        "SELECT CAST(error AS BLOB) FROM job LEFT JOIN dead USING (seq) WHERE job.queue = ? AND id = ?", asked
    ).fetchone()
    if live:
        error = None if live[0] is None else live[0].decode(errors="backslashreplace")
        return step.key, None if error is None else JobResult(ResultStatus.FAILED, error=error)
    kept = step.db.execute(
        "SELECT expires > ?, CAST(body AS BLOB) FROM result WHERE queue = ? AND id = ?", (step.now, *asked)
    ).fetchone()
    if kept:
        return step.key, JobResult(ResultStatus.DONE, kept[1]) if kept[0] else None
    ended = step.db.execute("SELECT 1 FROM ended WHERE queue = ? AND id = ? LIMIT 1", asked).fetchone()
    return step.key, _DONE if ended else None
