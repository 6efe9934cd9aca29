"""Looking at a queue, and tending it: all that is neither publishing nor consuming."""

import json
import sqlite3
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime

from ...domain.errors import QueueConflict
from ...domain.queue import Queue
from ...ports import DeadLetter, Failure, JobResult, QueueCounts, ResultStatus
from .delivering import sweep
from .step import Step

CHUNK = 1000
"""The most jobs that one step drops, so that nobody waits for long behind it."""

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
    if kind != queue.kind:
        raise QueueConflict(
            f"queue {queue.name!r} exists as {kind}, not {queue.kind}: "
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
    delayed = step.db.execute(
        "SELECT due, seq FROM delay WHERE queue = ? ORDER BY due, seq LIMIT ?", (step.key, CHUNK)
    ).fetchall()
    step.db.executemany(
        "DELETE FROM delay WHERE queue = ? AND due = ? AND seq = ?", [(step.key, *row) for row in delayed]
    )
    step.delayed -= len(delayed)
    return _drop(step, [seq for _, seq in delayed])


def _drop(step: Step, seqs: list[int]) -> int:
    """Drop jobs, and what is remembered of an earlier end under the id of one (RES-1)."""
    step.db.execute(
        "DELETE FROM ended WHERE queue = ?"
        " AND id IN (SELECT id FROM job WHERE seq IN (SELECT value FROM json_each(?)))",
        (step.key, json.dumps(seqs)),
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
        "SELECT id, body, reason, error, attempt, crashes, died, history FROM dead CROSS JOIN job USING (seq)"
        " WHERE dead.queue = ? ORDER BY death LIMIT ? OFFSET ?",
        (step.key, limit, offset),
    )
    return list(_letters(rows))


def _letters(rows: sqlite3.Cursor) -> Iterator[DeadLetter]:
    for id_, body, reason, error, attempt, crashes, died, history in rows:
        failures = tuple(Failure(*failure) for failure in json.loads(history or "[]"))
        died_at = datetime.fromtimestamp(died / 1_000_000, UTC)
        yield DeadLetter(id_, body, reason, error, attempt, crashes, died_at, failures)


def last_death(step: Step) -> int:
    """The number of the last death so far, for :func:`oldest_dead` to end there."""
    ((death,),) = step.db.execute(
        "SELECT coalesce(max(death), 0) FROM dead WHERE queue = ?", (step.key,)
    ).fetchall()
    return int(death)


def oldest_dead(step: Step, upto: int) -> list[int]:
    """The seqs of the jobs that died first, up to a death and a number."""
    rows = step.db.execute(
        "SELECT seq FROM dead WHERE queue = ? AND death <= ? ORDER BY death LIMIT ?", (step.key, upto, CHUNK)
    )
    return [seq for (seq,) in rows.fetchall()]


def named_dead(step: Step, ids: Sequence[str]) -> list[int]:
    """The seqs of those of ``ids`` that are dead."""
    query = "SELECT seq FROM job CROSS JOIN dead USING (seq) WHERE job.queue = ? AND id = ?"
    rows = [step.db.execute(query, (step.key, id_)).fetchone() for id_ in ids]
    return [row[0] for row in rows if row]


def redrive(step: Step, seqs: list[int]) -> int:
    """Let dead jobs arrive anew, as if nothing had happened to them (DLQ-2)."""
    _unbury(step, seqs)
    jobs = []
    for seq in seqs:
        ((priority,),) = step.db.execute(
            "UPDATE job SET attempt = 1, crashes = 0, history = NULL WHERE seq = ? RETURNING priority", (seq,)
        ).fetchall()
        jobs.append((seq, priority))
    step.make_ready(jobs)
    return len(seqs)


def discard(step: Step, seqs: list[int]) -> int:
    """Drop dead jobs (DLQ-3)."""
    _unbury(step, seqs)
    return _drop(step, seqs)


def _unbury(step: Step, seqs: list[int]) -> None:
    step.db.executemany("DELETE FROM dead WHERE seq = ?", [(seq,) for seq in seqs])
    step.dead -= len(seqs)


# -- results --------------------------------------------------------------------------------------


def result(step: Step, job_id: str) -> tuple[int, JobResult | None]:
    """The queue's key, and how a job ended (RES-1)."""
    asked = (step.key, job_id)
    live = step.db.execute(
        "SELECT error FROM job LEFT JOIN dead USING (seq) WHERE job.queue = ? AND id = ?", asked
    ).fetchone()
    if live:
        return step.key, None if live[0] is None else JobResult(ResultStatus.FAILED, error=live[0])
    kept = step.db.execute("SELECT expires, body FROM result WHERE queue = ? AND id = ?", asked).fetchone()
    if kept:
        return step.key, JobResult(ResultStatus.DONE, kept[1]) if kept[0] > step.now else None
    ended = step.db.execute("SELECT 1 FROM ended WHERE queue = ? AND id = ? LIMIT 1", asked).fetchone()
    return step.key, _DONE if ended else None
