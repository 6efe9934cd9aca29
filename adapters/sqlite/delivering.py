"""Leasing jobs, and taking back what was leased too long."""

from typing import NamedTuple

from .step import Step

_SWEPT = 500
"""The most jobs that became due, and the most whose lease ran out, that one step moves."""


class Held(NamedTuple):
    """A leased job, as its holder knows it: all that is needed to find its lease again, and no other."""

    seq: int
    number: int
    ends: int
    rank: int
    id: str


class Taken(NamedTuple):
    """A job that was leased just now; as a delivery it lacks its receipt."""

    held: Held
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


def outlook(step: Step) -> Outlook:
    """Look what a receiver would find, without taking anything."""
    moments = [moment for moment in (step.first_due(), step.first_end()) if moment is not None]
    event = min(moments, default=None)
    is_ready = step.ready > 0 or (event is not None and event <= step.now)
    return Outlook(step.key, is_ready, None if event is None else (event - step.now) / 1_000_000)


def sweep(step: Step) -> None:
    """Make ready what is due, and what was leased too long (DLY-1, LSE-2)."""
    due = step.db.execute(
        "SELECT due, seq, priority FROM delay CROSS JOIN job USING (seq)"
        " WHERE delay.queue = ? AND due <= ? ORDER BY due, seq LIMIT ?",
        (step.key, step.now, _SWEPT),
    ).fetchall()
    if due:
        step.db.executemany(
            "DELETE FROM delay WHERE queue = ? AND due = ? AND seq = ?",
            [(step.key, moment, seq) for moment, seq, _ in due],
        )
        step.delayed -= len(due)
        step.make_ready([(seq, priority) for _, seq, priority in due])
    expired = step.db.execute(
        "SELECT ends, seq, number, rank FROM lease WHERE queue = ? AND ends <= ? ORDER BY ends LIMIT ?",
        (step.key, step.now, _SWEPT),
    ).fetchall()
    if expired:
        step.db.executemany(
            "DELETE FROM lease WHERE queue = ? AND ends = ? AND seq = ?",
            [(step.key, ends, seq) for ends, seq, _, _ in expired],
        )
        step.db.executemany(
            "UPDATE job SET number = ?, crashes = crashes + 1 WHERE seq = ?",
            [(number, seq) for _, seq, number, _ in expired],
        )
        step.leased -= len(expired)
        step.put([(rank, seq) for _, seq, _, rank in expired])


def take(step: Step, count: int, lease_s: float) -> list[Taken]:
    """Lease up to ``count`` jobs, those that stand first."""
    if count <= 0 or not step.ready:
        return []
    ends = step.now + round(lease_s * 1_000_000)
    # CROSS is the word by which SQLite keeps this order of the two, whatever it thinks of their sizes.
    rows = step.db.execute(
        "SELECT rank, seq, id, body, attempt, number + 1, crashes FROM ready CROSS JOIN job USING (seq)"
        " WHERE ready.queue = ? ORDER BY rank LIMIT ?",
        (step.key, count),
    ).fetchall()
    # Those that stand first are all up to the last of them.
    step.db.execute("DELETE FROM ready WHERE queue = ? AND rank <= ?", (step.key, rows[-1][0]))
    step.db.executemany(
        "INSERT INTO lease (queue, ends, seq, number, rank) VALUES (?, ?, ?, ?, ?)",
        [(step.key, ends, seq, number, rank) for rank, seq, _, _, _, number, _ in rows],
    )
    step.ready -= len(rows)
    step.leased += len(rows)
    return [
        Taken(Held(seq, number, ends, rank, id_), body, attempt, crashes)
        for rank, seq, id_, body, attempt, number, crashes in rows
    ]


def extend(step: Step, held: Held, lease_s: float) -> Held | None:
    """Move the end of a lease to a full ``lease_s`` from now, unless it is lost (LSE-3, LSE-4)."""
    if held.ends <= step.now:
        return None
    ends = step.now + round(lease_s * 1_000_000)
    moved = step.db.execute(
        "UPDATE lease SET ends = ? WHERE queue = ? AND ends = ? AND seq = ? AND number = ?",
        (ends, step.key, held.ends, held.seq, held.number),
    ).rowcount
    return held._replace(ends=ends) if moved else None
