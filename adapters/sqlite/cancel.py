"""Cancelling jobs: those that wait are gone at once, those in flight are asked to end."""

from collections.abc import Collection, Sequence
from math import ceil

from ...ports import CancelOutcome
from ...ports.cancelling import outcome_of_ended
from .admin import result
from .cancel_requests import as_json, end_cancelled
from .lease import sweep
from .transaction import Transaction

_AMONG = "seq IN (SELECT value FROM json_each(?))"


def cancel(tx: Transaction, ids: Sequence[str], ttl_s: float) -> list[CancelOutcome]:
    """Cancel at most a thousand jobs, and say what became of each, in order (CAN-1, CAN-2)."""
    sweep(tx)
    ttl = ceil(ttl_s * 1_000_000)
    live: dict[str, int] = {}
    outcomes: dict[str, CancelOutcome] = {}
    priorities: dict[int, int] = {}
    for id_ in dict.fromkeys(ids):
        row = tx.db.execute(
            "SELECT job.seq, CAST(priority AS INTEGER), dead.seq IS NOT NULL"
            " FROM job LEFT JOIN dead USING (seq) WHERE job.queue = ? AND id = ?",
            (tx.key, id_),
        ).fetchone()
        if row is None or row[2]:
            outcomes[id_] = outcome_of_ended(result(tx, id_)[1])
        else:
            live[id_], priorities[row[0]] = row[0], row[1]
    leased = _leased(tx, live.values())
    waiting = [(seq, priorities[seq]) for seq in live.values() if seq not in leased]
    _ask(tx, leased, ttl)
    _remove(tx, waiting)
    end_cancelled(tx, [(seq, ttl) for seq, _ in waiting])
    for id_, seq in live.items():
        outcomes[id_] = CancelOutcome.REQUESTED if seq in leased else CancelOutcome.CANCELLED
    return [outcomes[id_] for id_ in ids]


def _leased(tx: Transaction, seqs: Collection[int]) -> set[int]:
    """Return which of these jobs are in flight."""
    if not tx.leased:
        return set()
    query = f"SELECT seq FROM lease WHERE queue = ? AND ends > ? AND {_AMONG}"  # noqa: S608
    return {seq for (seq,) in tx.db.execute(query, (tx.key, tx.now, as_json(seqs)))}


def _ask(tx: Transaction, leased: set[int], ttl: int) -> None:
    """Ask that jobs in flight are cancelled, unless that was asked before."""
    if not leased:
        return
    # Those that an earlier release has settled since they were asked stay behind.
    tx.db.execute(
        "DELETE FROM cancel WHERE queue = ? AND NOT EXISTS (SELECT 1 FROM job WHERE job.seq = cancel.seq)",
        (tx.key,),
    )
    tx.db.executemany(
        "INSERT OR IGNORE INTO cancel (seq, queue, ttl) VALUES (?, ?, ?)",
        [(seq, tx.key, ttl) for seq in leased],
    )


def _remove(tx: Transaction, waiting: Sequence[tuple[int, int]]) -> None:
    """Take jobs, given by seq and priority, out of where they wait.

    Most stand in their first place, where they are found at once. All others take one look through the queue.
    """
    if not waiting:
        return
    seqs = as_json(seq for seq, _ in waiting)
    left = len(waiting)
    gone = tx.db.executemany(
        "DELETE FROM ready WHERE queue = ? AND rank = ? AND seq = ?",
        [(tx.key, tx.rank(seq, priority), seq) for seq, priority in waiting],
    ).rowcount
    tx.ready -= gone
    left -= gone
    for table in ("delay", "ready", "lease") if left else ():
        gone = tx.db.execute(f"DELETE FROM {table} WHERE queue = ? AND {_AMONG}", (tx.key, seqs)).rowcount  # noqa: S608
        if table == "delay":
            tx.delayed -= gone
        elif table == "ready":
            tx.ready -= gone
        else:  # a lease that has ended, and that nobody took back yet
            tx.leased -= gone
