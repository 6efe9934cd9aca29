"""Cancelling jobs, in requests that keep the server busy for a short time each."""

from collections.abc import Sequence

from ...ports import CancelOutcome
from ..shared.chunks import in_chunks
from .requests import CHUNK_JOBS, RemoteQueue, operation
from .scripts import CANCEL, COUNTS

_OUTCOMES = {
    "c": CancelOutcome.CANCELLED,
    "r": CancelOutcome.REQUESTED,
    "t": CancelOutcome.TOO_LATE,
    "u": CancelOutcome.UNKNOWN,
}


def cancel(queue: RemoteQueue, ids: Sequence[str], ttl_s: float) -> list[CancelOutcome]:
    """Cancel jobs, and say what became of each, in order (CAN-1, CAN-2)."""
    if not ids:
        queue.run(COUNTS)  # raises QueueNotFound
        return []
    outcomes: dict[str, CancelOutcome] = {}
    ttl_ms = str(max(1, round(ttl_s * 1000)))
    with operation(queue, CANCEL) as run:
        for chunk in in_chunks(dict.fromkeys(ids), CHUNK_JOBS):
            answer: bytes = run([ttl_ms, *chunk])
            outcomes |= {id_: _OUTCOMES[letter] for id_, letter in zip(chunk, answer.decode(), strict=True)}
    return [outcomes[id_] for id_ in ids]
