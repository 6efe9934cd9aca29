"""Dead letters: listing them, and how each of them ends."""

import json
import sqlite3
from collections.abc import Iterable, Iterator, Sequence

from ...ports import DeadLetter
from ..shared.records import parse_history, parse_moment
from .damage import death_of, is_id, substitute_id
from .transaction import CHUNK, Transaction

KEPT = "coalesce(expires > ?, 1)"
"""What holds of a dead letter whose time isn't over, with the present moment."""

Death = tuple[int, int]
"""A dead job: the number of its death, and its seq."""


def dead_letters(tx: Transaction, limit: int, offset: int) -> list[DeadLetter]:
    """List dead letters, oldest first (DLQ-1)."""
    rows = tx.db.execute(
        "SELECT death, id, CAST(body AS BLOB), CAST(reason AS BLOB), CAST(error AS BLOB),"  # noqa: S608
        " CAST(attempt AS INTEGER), CAST(crashes AS INTEGER), died, history"
        f" FROM dead LEFT JOIN job USING (seq) WHERE dead.queue = ? AND {KEPT}"
        " ORDER BY death LIMIT ? OFFSET ?",
        (tx.key, tx.now, limit, offset),
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
        f"SELECT death, seq FROM dead WHERE queue = ? AND death <= ? AND {KEPT} ORDER BY death LIMIT ?",  # noqa: S608
        (tx.key, upto, tx.now, CHUNK),
    ).fetchall()


def named_dead(tx: Transaction, ids: Sequence[str]) -> list[Death]:
    """Those of ``ids`` that are dead."""
    by_id = (
        f"SELECT death, seq FROM job CROSS JOIN dead USING (seq) WHERE job.queue = ? AND id = ? AND {KEPT}"  # noqa: S608
    )
    by_death = f"SELECT death, seq FROM dead WHERE queue = ? AND death = ? AND {KEPT}"  # noqa: S608
    found: dict[Death, None] = {}
    for id_ in ids:
        rows = tx.db.execute(by_id, (tx.key, id_, tx.now)).fetchall()
        if not rows and (death := death_of(id_)) is not None:
            rows = tx.db.execute(by_death, (tx.key, death, tx.now)).fetchall()
        found |= dict.fromkeys(rows)
    return list(found)


def count_expired(tx: Transaction) -> int:
    """Count the dead letters whose time is over, and that are still to be removed."""
    query = "SELECT count(*) FROM dead WHERE queue = ? AND expires <= ?"
    return int(tx.db.execute(query, (tx.key, tx.now)).fetchone()[0]) if tx.dead else 0


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
    return drop_jobs(tx, [seq for _, seq in deaths])


def remove_expired(tx: Transaction) -> None:
    """Remove some of the dead letters whose time is over (DLQ-5)."""
    if tx.dead:
        query = "SELECT death, seq FROM dead WHERE queue = ? AND expires <= ? ORDER BY expires LIMIT ?"
        discard(tx, tx.db.execute(query, (tx.key, tx.now, CHUNK)).fetchall())


def free_ids(tx: Transaction, ids: Iterable[str]) -> bool:
    """Remove the dead letters of these ids whose time is over; tell whether there were any."""
    if not count_expired(tx):
        return False
    query = "SELECT death, seq FROM job CROSS JOIN dead USING (seq) WHERE job.queue = ? AND id = ?"
    found = [row for id_ in ids for row in tx.db.execute(f"{query} AND expires <= ?", (tx.key, id_, tx.now))]
    return discard(tx, list(dict.fromkeys(found))) > 0


def drop_jobs(tx: Transaction, seqs: Sequence[object]) -> int:
    """Drop jobs, and what is remembered of an earlier end under the id of one (RES-1)."""
    tx.db.execute(
        "DELETE FROM ended WHERE queue = ?"
        " AND id IN (SELECT id FROM job WHERE seq IN (SELECT value FROM json_each(?)))",
        (tx.key, json.dumps([seq for seq in seqs if isinstance(seq, int)])),
    )
    tx.db.executemany("DELETE FROM job WHERE seq = ?", [(seq,) for seq in seqs])
    return len(seqs)


def _remove_deaths(tx: Transaction, deaths: list[Death]) -> None:
    tx.db.executemany("DELETE FROM dead WHERE death = ?", [(death,) for death, _ in deaths])
    tx.dead -= len(deaths)
    if tx.dead and not tx.has_rows("dead"):
        tx.recount()
