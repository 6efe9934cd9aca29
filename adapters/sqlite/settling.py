"""Ending deliveries."""

import json
from math import ceil

from ...ports import Ack, Dead, Retry, Settlement
from .delivering import Held
from .step import Step

MAX_HISTORY = 10
REMEMBERED_ENDS = 10_000
"""Of how many ended jobs without a result the end is remembered, for those who ask late."""
_EXPIRED_RESULTS = 100
"""The most expired results that are dropped for each that is stored; more than one, so that they grow few."""


def settle(step: Step, held: Held, settlement: Settlement) -> bool:
    """End a delivery as ``settlement`` says; answer whether it was still leased (LSE-4)."""
    if held.ends <= step.now:  # lost, even if nobody has taken it back yet
        return False
    ended = step.db.execute(
        "DELETE FROM lease WHERE queue = ? AND ends = ? AND seq = ? AND number = ?",
        (step.key, held.ends, held.seq, held.number),
    ).rowcount
    if not ended:
        return False
    step.leased -= 1
    if isinstance(settlement, Ack):
        _finish(step, held, settlement)
    elif isinstance(settlement, Retry):
        _retry(step, held, settlement)
    elif isinstance(settlement, Dead):
        _bury(step, held, settlement)
    else:
        step.db.execute("UPDATE job SET number = ? WHERE seq = ?", (held.number, held.seq))
        step.put([(held.rank, held.seq)])
    return True


def _finish(step: Step, held: Held, ack: Ack) -> None:
    step.has_ended = True
    step.db.execute("DELETE FROM job WHERE seq = ?", (held.seq,))
    if ack.result is None:
        step.db.execute(
            "INSERT OR REPLACE INTO ended (queue, slot, id) VALUES (?, ?, ?)",
            (step.key, step.ended % REMEMBERED_ENDS, held.id),
        )
        step.ended += 1
        return
    step.db.execute(
        "DELETE FROM result WHERE seq IN"
        " (SELECT seq FROM result WHERE queue = ? AND expires <= ? ORDER BY expires LIMIT ?)",
        (step.key, step.now, _EXPIRED_RESULTS),
    )
    step.db.execute(
        "INSERT OR REPLACE INTO result (seq, queue, id, expires, body) VALUES (?, ?, ?, ?, ?)",
        (held.seq, step.key, held.id, step.now + ceil(ack.result_ttl_s * 1_000_000), ack.result),
    )


def _retry(step: Step, held: Held, retry: Retry) -> None:
    ((attempt, priority, history),) = step.db.execute(
        "SELECT attempt, priority, history FROM job WHERE seq = ?", (held.seq,)
    ).fetchall()
    failures = [*json.loads(history or "[]"), [attempt, retry.error]][-MAX_HISTORY:]
    step.db.execute(
        "UPDATE job SET attempt = ?, number = ?, history = ? WHERE seq = ?",
        (attempt + 1, held.number, json.dumps(failures), held.seq),
    )
    if retry.delay_s > 0:
        step.hold_back([(step.now + ceil(retry.delay_s * 1_000_000), held.seq)])
    else:
        step.make_ready([(held.seq, priority)])


def _bury(step: Step, held: Held, dead: Dead) -> None:
    error = dead.error.encode("utf-8", "replace").decode()
    step.db.execute("UPDATE job SET number = ? WHERE seq = ?", (held.number, held.seq))
    step.db.execute(
        "INSERT INTO dead (queue, seq, reason, error, died) VALUES (?, ?, ?, ?, ?)",
        (step.key, held.seq, dead.reason, error, step.now),
    )
    step.dead += 1
    step.has_ended = True
