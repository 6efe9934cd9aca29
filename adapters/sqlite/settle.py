"""Settling deliveries."""

import json
from collections.abc import Iterable, Iterator, Mapping
from math import ceil
from typing import NamedTuple

from ...domain.errors import BackendError, QueueNotFound
from ...ports import Ack, Cancel, Dead, Failure, Next, Retry, Settlement
from ..shared.records import MAX_HISTORY, REMEMBERED_ENDS, parse_history
from .cancel_requests import end_cancelled, find_cancel_requests, forget_cancel_requests
from .lease import LeasedJob, lease_again
from .publish import publish_next
from .transaction import Transaction

_MOST = 2**31
"""The highest attempt that is counted."""
_EXPIRED_RESULTS = 100
"""The most expired results that are dropped for each that is stored; more than one, so that they grow few."""


class SettledBatch(NamedTuple):
    """What became of a batch, by receipt."""

    settled: dict[str, bool]
    """Whether the delivery was still leased, so that this settled it (LSE-4)."""
    refused: set[str]
    """Which are still leased, as a next job of theirs can't be published (THEN-3)."""
    cancelled: set[str]
    """Which ended as cancelled instead, as that had been asked for (CAN-3)."""


def settle(tx: Transaction, batch: Mapping[str, tuple[LeasedJob, Settlement]]) -> SettledBatch:
    """End deliveries, given by receipt, as their settlements say."""
    settled = _end_leases(tx, batch)
    requests = find_cancel_requests(tx, (held.seq for held, _ in batch.values())) if batch else {}
    cancelled: dict[int, int] = {}
    done: list[LeasedJob] = []
    silent: list[LeasedJob] = []
    then: list[Next] = []
    refused: set[str] = set()
    for receipt, (held, settlement) in batch.items():
        if not settled[receipt]:
            continue
        if isinstance(settlement, Ack):
            if settlement.then and not _has_queues(tx, settlement.then):
                refused.add(receipt)
                continue
            then += settlement.then
            done.append(held)
            if settlement.result is None:
                silent.append(held)
            else:
                _keep_result(tx, held, settlement.result, settlement.result_ttl_s)
        elif isinstance(settlement, Cancel):
            cancelled[held.seq] = ceil(settlement.result_ttl_s * 1_000_000)
        elif held.seq in requests:
            cancelled[held.seq] = requests[held.seq]
        elif not _write_number(tx, held):  # somebody removed the job's row
            settled[receipt] = False
        elif isinstance(settlement, Retry):
            _retry(tx, held, settlement)
        elif isinstance(settlement, Dead):
            if settlement.then and not _has_queues(tx, settlement.then):
                refused.add(receipt)
                continue
            then += settlement.then
            error = settlement.error.encode("utf-8", "replace").decode()
            tx.make_dead(held.seq, settlement.reason, error, settlement.ttl_s)
        elif settlement.delay_s > 0:
            _delay(tx, held, settlement.delay_s)
        else:
            tx.put([(held.rank, held.seq)])
    for receipt in refused:
        lease_again(tx, batch[receipt][0])
    if done:
        tx.has_ended = True
        tx.db.executemany("DELETE FROM job WHERE seq = ?", [(held.seq,) for held in done])
        _remember(tx, silent)
    if then:
        publish_next(tx, then)
    end_cancelled(tx, list(cancelled.items()))
    if not requests:
        return SettledBatch(settled, refused, set())
    ended = {receipt: each for receipt, each in batch.items() if settled[receipt] and receipt not in refused}
    forget_cancel_requests(tx, requests.keys() & {held.seq for held, _ in ended.values()})
    overruled = {
        receipt
        for receipt, (held, settlement) in ended.items()
        if held.seq in cancelled and not isinstance(settlement, Cancel)
    }
    return SettledBatch(settled, refused, overruled)


def _has_queues(tx: Transaction, then: Iterable[Next]) -> bool:
    """Tell whether the queues of next jobs are declared, and can be read."""
    try:
        for step in then:
            tx.of(step.queue)
    except (QueueNotFound, BackendError):
        return False
    return True


def _end_leases(tx: Transaction, batch: Mapping[str, tuple[LeasedJob, Settlement]]) -> dict[str, bool]:
    """End the leases of a batch; tell by receipt which of them stood until now."""
    settled: dict[str, bool] = {}

    def standing() -> Iterator[tuple[int, int, int, int]]:
        # One statement for all costs half of one for each. SQLite is asked for the next lease once it has
        # carried out the one before.
        for receipt, (held, _) in batch.items():
            if held.ends <= tx.now:  # lost, even if nobody has taken it back yet
                settled[receipt] = False
                continue
            before = tx.db.total_changes
            yield tx.key, held.ends, held.seq, held.number
            settled[receipt] = tx.db.total_changes != before  # it starts anew after 2**31

    tx.db.executemany("DELETE FROM lease WHERE queue = ? AND ends = ? AND seq = ? AND number = ?", standing())
    tx.leased -= sum(settled.values())
    return settled


def _write_number(tx: Transaction, held: LeasedJob) -> bool:
    """Keep the number of the delivery with its job; tell whether that is there."""
    return tx.db.execute("UPDATE job SET number = ? WHERE seq = ?", (held.number, held.seq)).rowcount == 1


def _remember(tx: Transaction, done: list[LeasedJob]) -> None:
    """Remember of jobs without a result that they ended."""
    tx.db.executemany(
        "INSERT OR REPLACE INTO ended (queue, slot, id) VALUES (?, ?, ?)",
        [(tx.key, (tx.ended + n) % REMEMBERED_ENDS, held.id) for n, held in enumerate(done)],
    )
    tx.ended += len(done)


def _keep_result(tx: Transaction, held: LeasedJob, result: bytes, ttl_s: float) -> None:
    tx.db.execute(
        "DELETE FROM result WHERE seq IN"
        " (SELECT seq FROM result WHERE queue = ? AND expires <= ? ORDER BY expires LIMIT ?)",
        (tx.key, tx.now, _EXPIRED_RESULTS),
    )
    tx.db.execute(
        "INSERT OR REPLACE INTO result (seq, queue, id, expires, body) VALUES (?, ?, ?, ?, ?)",
        (held.seq, tx.key, held.id, tx.now + ceil(ttl_s * 1_000_000), result),
    )


def _retry(tx: Transaction, held: LeasedJob, retry: Retry) -> None:
    ((attempt, priority, history),) = tx.db.execute(
        "SELECT CAST(attempt AS INTEGER), CAST(priority AS INTEGER), history FROM job WHERE seq = ?",
        (held.seq,),
    ).fetchall()
    failures = [*parse_history(history), Failure(attempt, retry.error)][-MAX_HISTORY:]
    tx.db.execute(
        "UPDATE job SET attempt = ?, history = ? WHERE seq = ?",
        (
            min(attempt, _MOST) + 1,
            json.dumps([[failure.attempt, failure.error] for failure in failures]),
            held.seq,
        ),
    )
    if retry.delay_s > 0:
        _delay(tx, held, retry.delay_s)
    else:
        tx.make_ready([(held.seq, priority)])


def _delay(tx: Transaction, held: LeasedJob, delay_s: float) -> None:
    tx.delay([(tx.now + ceil(delay_s * 1_000_000), held.seq)])
