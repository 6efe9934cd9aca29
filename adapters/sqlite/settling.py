"""Ending deliveries."""

import json
from collections.abc import Mapping
from math import ceil

from ...ports import Ack, Dead, Failure, Retry, Settlement
from ..shared.records import parse_history
from .delivering import Held
from .step import Step

MAX_HISTORY = 10
_MOST = 2**31
"""The highest attempt that is counted."""
REMEMBERED_ENDS = 10_000
"""Of how many ended jobs without a result the end is remembered, for those who ask late."""
_EXPIRED_RESULTS = 100
"""The most expired results that are dropped for each that is stored; more than one, so that they grow few."""


def settle(step: Step, batch: Mapping[str, tuple[Held, Settlement]]) -> dict[str, bool]:
    """End deliveries, given by receipt, as their settlements say; answer which were still leased (LSE-4)."""
    settled = {receipt: _end_lease(step, held) for receipt, (held, _) in batch.items()}
    done: list[Held] = []
    silent: list[Held] = []
    for receipt, (held, settlement) in batch.items():
        if not settled[receipt]:
            continue
        if isinstance(settlement, Ack):
            done.append(held)
            if settlement.result is None:
                silent.append(held)
            else:
                _keep_result(step, held, settlement.result, settlement.result_ttl_s)
        elif not _write_number(step, held):  # somebody removed the job's row
            settled[receipt] = False
        elif isinstance(settlement, Retry):
            _retry(step, held, settlement)
        elif isinstance(settlement, Dead):
            step.bury(held.seq, settlement.reason, settlement.error.encode("utf-8", "replace").decode())
        else:
            step.put([(held.rank, held.seq)])
    if done:
        step.has_ended = True
        step.db.executemany("DELETE FROM job WHERE seq = ?", [(held.seq,) for held in done])
        _remember(step, silent)
    return settled


def _end_lease(step: Step, held: Held) -> bool:
    if held.ends <= step.now:  # lost, even if nobody has taken it back yet
        return False
    ended = step.db.execute(
        "DELETE FROM lease WHERE queue = ? AND ends = ? AND seq = ? AND number = ?",
        (step.key, held.ends, held.seq, held.number),
    ).rowcount
    step.leased -= ended
    return ended == 1


def _write_number(step: Step, held: Held) -> bool:
    """Keep the number of the delivery with its job; tell whether that is there."""
    return step.db.execute("UPDATE job SET number = ? WHERE seq = ?", (held.number, held.seq)).rowcount == 1


def _remember(step: Step, done: list[Held]) -> None:
    """Remember of jobs without a result that they ended."""
    step.db.executemany(
        "INSERT OR REPLACE INTO ended (queue, slot, id) VALUES (?, ?, ?)",
        [(step.key, (step.ended + n) % REMEMBERED_ENDS, held.id) for n, held in enumerate(done)],
    )
    step.ended += len(done)


def _keep_result(step: Step, held: Held, result: bytes, ttl_s: float) -> None:
    step.db.execute(
        "DELETE FROM result WHERE seq IN"
        " (SELECT seq FROM result WHERE queue = ? AND expires <= ? ORDER BY expires LIMIT ?)",
        (step.key, step.now, _EXPIRED_RESULTS),
    )
    step.db.execute(
        "INSERT OR REPLACE INTO result (seq, queue, id, expires, body) VALUES (?, ?, ?, ?, ?)",
        (held.seq, step.key, held.id, step.now + ceil(ttl_s * 1_000_000), result),
    )


def _retry(step: Step, held: Held, retry: Retry) -> None:
    ((attempt, priority, history),) = step.db.execute(
        "SELECT CAST(attempt AS INTEGER), CAST(priority AS INTEGER), history FROM job WHERE seq = ?",
        (held.seq,),
    ).fetchall()
    failures = [*parse_history(history), Failure(attempt, retry.error)][-MAX_HISTORY:]
    step.db.execute(
        "UPDATE job SET attempt = ?, history = ? WHERE seq = ?",
        (
            min(attempt, _MOST) + 1,
            json.dumps([[failure.attempt, failure.error] for failure in failures]),
            held.seq,
        ),
    )
    if retry.delay_s > 0:
        step.hold_back([(step.now + ceil(retry.delay_s * 1_000_000), held.seq)])
    else:
        step.make_ready([(held.seq, priority)])
