"""Jobs that were asked to be cancelled, and how they end."""

import json
from collections.abc import Iterable, Sequence

from .transaction import Transaction

CANCELLED = -1
"""In place of the result of a job that was cancelled. The others are texts or bytes."""


def find_cancel_requests(tx: Transaction, seqs: Iterable[object]) -> dict[int, int]:
    """Return which of these jobs were asked to be cancelled, and for how long to remember that (µs)."""
    if tx.db.execute("SELECT 1 FROM cancel WHERE queue = ? LIMIT 1", (tx.key,)).fetchone() is None:
        return {}
    wanted = as_json(seqs)
    return dict(
        tx.db.execute("SELECT seq, ttl FROM cancel WHERE seq IN (SELECT value FROM json_each(?))", (wanted,))
    )


def forget_cancel_requests(tx: Transaction, seqs: Iterable[int]) -> None:
    """Forget that jobs were asked to be cancelled, as they have ended."""
    tx.db.executemany("DELETE FROM cancel WHERE seq = ?", [(seq,) for seq in seqs])


def end_cancelled(tx: Transaction, jobs: Sequence[tuple[int, int]]) -> None:
    """End jobs that stand nowhere any more, given by seq and for how long to remember that (µs)."""
    if not jobs:
        return
    tx.db.execute(
        "DELETE FROM ended WHERE queue = ?"
        " AND id IN (SELECT id FROM job WHERE seq IN (SELECT value FROM json_each(?)))",
        (tx.key, as_json(seq for seq, _ in jobs)),
    )
    tx.db.executemany(
        "INSERT OR REPLACE INTO result (seq, queue, id, expires, body)"
        " SELECT seq, queue, id, ?, ? FROM job WHERE seq = ?",
        [(tx.now + ttl, CANCELLED, seq) for seq, ttl in jobs],
    )
    tx.db.executemany("DELETE FROM job WHERE seq = ?", [(seq,) for seq, _ in jobs])
    tx.has_ended = True


def as_json(seqs: Iterable[object]) -> str:
    """Write numbers of jobs as a parameter; what is no number isn't among them."""
    return json.dumps([seq for seq in seqs if isinstance(seq, int)])
