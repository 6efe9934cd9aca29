"""Leasing jobs, and taking back what was leased too long."""

from math import inf
from typing import NamedTuple

from .cancel_requests import end_cancelled, find_cancel_requests, forget_cancel_requests
from .damage import find_damaged, repair, set_aside
from .dead_letters import remove_expired
from .transaction import Transaction

_SWEPT = 500
"""The most due jobs, and the most expired leases, that one transaction moves."""


_Row = tuple[int, int, bytes, bytes, int, int, int]
"""Of a job that stands in the queue: rank, seq, id, body, attempt, number, crashes."""


class LeasedJob(NamedTuple):
    """A leased job, as its holder knows it: all that is needed to find its lease again, and no other."""

    seq: int
    number: int
    ends: int
    rank: int
    id: str


class Taken(NamedTuple):
    """A job that was leased just now; as a delivery it lacks its receipt."""

    held: LeasedJob
    body: bytes
    attempt: int
    crashes: int


class Outlook(NamedTuple):
    """What there is for a receiver now, and what it may wait for."""

    queue: int
    """The queue's key."""
    is_ready: bool
    next_event_s: float | None
    """Seconds until a job is due or a lease ends."""
    is_damaged: bool
    """Whether counts and rows don't agree, or a moment can't be read: :func:`repair` is to be called."""


def outlook(tx: Transaction) -> Outlook:
    """Look what a receiver would find, without taking anything."""
    due, ends = tx.first_due(), tx.first_end()
    event = min((moment for moment in (due, ends) if moment is not None), default=None)
    is_ready = tx.ready > 0 or (event is not None and event <= tx.now)
    is_damaged = (
        (due is not None) != (tx.delayed > 0)
        or (ends is not None) != (tx.leased > 0)
        or inf in (due, ends)
        or (tx.ready <= 0 and tx.has_rows("ready"))
    )
    return Outlook(tx.key, is_ready, None if event is None else (event - tx.now) / 1_000_000, is_damaged)


def sweep(tx: Transaction) -> None:
    """Make ready what is due, and what was leased too long (DLY-1, LSE-2).

    Dead letters whose time is over are removed (DLQ-5).
    """
    remove_expired(tx)
    due = tx.db.execute(
        "SELECT due, seq, CAST(coalesce(priority, 0) AS INTEGER) FROM delay LEFT JOIN job USING (seq)"
        " WHERE delay.queue = ? AND due <= ? ORDER BY due, seq LIMIT ?",
        (tx.key, tx.now, _SWEPT),
    ).fetchall()
    if due:
        tx.delayed -= tx.db.executemany(
            "DELETE FROM delay WHERE queue = ? AND due = ? AND seq = ?",
            [(tx.key, moment, seq) for moment, seq, _ in due],
        ).rowcount
        tx.make_ready([(seq, priority) for _, seq, priority in due if isinstance(seq, int)])
    expired = tx.db.execute(
        "SELECT ends, seq, number, rank FROM lease WHERE queue = ? AND ends <= ? ORDER BY ends LIMIT ?",
        (tx.key, tx.now, _SWEPT),
    ).fetchall()
    if expired:
        tx.leased -= tx.db.executemany(
            "DELETE FROM lease WHERE queue = ? AND ends = ? AND seq = ?",
            [(tx.key, ends, seq) for ends, seq, _, _ in expired],
        ).rowcount
        if requests := find_cancel_requests(tx, (row[1] for row in expired)):
            forget_cancel_requests(tx, requests)
            end_cancelled(tx, list(requests.items()))
        back = [row for row in expired if row[1] not in requests]
        tx.db.executemany(
            "UPDATE job SET number = ?, crashes = CAST(crashes AS INTEGER) + 1 WHERE seq = ?",
            [(number, seq) for _, seq, number, _ in back],
        )
        tx.put([(rank, seq) for _, seq, _, rank in back if isinstance(seq, int)])
    if not all(isinstance(row[1], int) for row in (*due, *expired)):
        repair(tx)


def take(tx: Transaction, count: int, lease_s: float) -> list[Taken]:
    """Lease up to ``count`` jobs, those that stand first."""
    if count <= 0 or not tx.ready:
        return []
    ends = tx.now + round(lease_s * 1_000_000)
    # LEFT keeps this order of the two, whatever SQLite thinks of their sizes, and shows what has no job.
    rows = tx.db.execute(
        "SELECT rank, seq, id, CAST(body AS BLOB), CAST(attempt AS INTEGER),"
        " CAST(number AS INTEGER) + 1, CAST(crashes AS INTEGER) FROM ready LEFT JOIN job USING (seq)"
        " WHERE ready.queue = ? ORDER BY rank LIMIT ?",
        (tx.key, count),
    ).fetchall()
    is_miscounted = len(rows) < min(count, tx.ready) or len(rows) > tx.ready
    taken = []
    if rows:
        # Those that stand first are all up to the last of them.
        tx.db.execute("DELETE FROM ready WHERE queue = ? AND rank <= ?", (tx.key, rows[-1][0]))
        tx.ready -= len(rows)
        taken = _lease(tx, rows, ends)
    if is_miscounted:
        repair(tx)
    return taken


def _lease(tx: Transaction, rows: list[_Row], ends: int) -> list[Taken]:
    """Lease jobs that stand in the queue no more, but for those that can't be delivered."""
    _, seqs, ids, bodies, attempts, _, _ = zip(*rows, strict=True)
    if odd := find_damaged(seqs, ids, bodies, attempts):
        for place, damage in odd.items():
            if damage:
                set_aside(tx, rows[place][1], rows[place][2], damage)
        rows = [row for place, row in enumerate(rows) if place not in odd]
    tx.db.executemany(
        "INSERT INTO lease (queue, ends, seq, number, rank) VALUES (?, ?, ?, ?, ?)",
        [(tx.key, ends, seq, number, rank) for rank, seq, _, _, _, number, _ in rows],
    )
    tx.leased += len(rows)
    return [
        Taken(LeasedJob(seq, number, ends, rank, id_.decode()), body, attempt, crashes)
        for rank, seq, id_, body, attempt, number, crashes in rows
    ]


def lease_again(tx: Transaction, held: LeasedJob) -> None:
    """Give a lease back, as it was, that was ended in this transaction."""
    tx.db.execute(
        "INSERT INTO lease (queue, ends, seq, number, rank) VALUES (?, ?, ?, ?, ?)",
        (tx.key, held.ends, held.seq, held.number, held.rank),
    )
    tx.leased += 1


def extend(tx: Transaction, held: LeasedJob, lease_s: float) -> LeasedJob | None:
    """Move the end of a lease to a full ``lease_s`` from now, unless it is lost (LSE-3, LSE-4)."""
    if held.ends <= tx.now:
        return None
    ends = tx.now + round(lease_s * 1_000_000)
    moved = tx.db.execute(
        "UPDATE lease SET ends = ? WHERE queue = ? AND ends = ? AND seq = ? AND number = ?",
        (ends, tx.key, held.ends, held.seq, held.number),
    ).rowcount
    return held._replace(ends=ends) if moved else None
