"""What administrators do with queues in Redis; each request keeps the server busy for a short time."""

from collections.abc import Sequence
from typing import Literal

from ...domain.dead_reasons import DeadReason
from ...domain.job_progress import Progress
from ...domain.queue import Queue
from ...ports import CancelOutcome, DeadLetter
from ..shared.chunks import in_chunks
from ..shared.records import parse_history, parse_json, parse_moment, parse_progress, parse_queue
from .requests import CHUNK_BYTES, CHUNK_JOBS, RemoteQueue, operation
from .scripts import CANCEL, COUNTS, DEAD_LETTERS, REDRIVE_OR_DISCARD
from .transport import RetryingConnection, as_text

_SCANNED = 1000
"""How many keys the server looks at in one step, between which it serves others."""
_OUTCOMES = {
    "c": CancelOutcome.CANCELLED,
    "r": CancelOutcome.REQUESTED,
    "t": CancelOutcome.TOO_LATE,
    "u": CancelOutcome.UNKNOWN,
}


def list_queues(redis: RetryingConnection, namespace: str) -> list[Queue]:
    """List the queues of ``namespace``; passes over keys that no release of ours wrote.

    Raises:
        BackendError: as of :func:`find_queues`.
    """
    found = (parse_queue(as_text(name), as_text(kind)) for name, kind in find_queues(redis, namespace))
    return [queue for queue in found if queue is not None]


def find_queues(redis: RetryingConnection, namespace: str) -> list[tuple[bytes, bytes]]:
    """Find the queues of ``namespace`` by their keys, each with its name and kind, by name.

    As slow as the server has keys, but it serves others meanwhile.

    Raises:
        BackendUnavailable: the server can't be reached.
        AccessDenied: the user may not SCAN.
    """
    start, end = f"mtj:{{{namespace}/".encode(), b"}:meta"
    pattern = start + b"*" + end  # a namespace has no character that a pattern would take for its own
    keys: set[bytes] = set()
    count = str(_SCANNED)
    with redis.outages():
        cursor = "0"
        while True:
            position, found = redis.command("SCAN", cursor, "MATCH", pattern, "COUNT", count, "TYPE", "hash")
            keys.update(found)
            cursor = str(position)  # the driver makes a number of it
            if cursor == "0":
                break
        kinds = {key: redis.command("HGET", key, "kind") for key in keys}
    return [(key[len(start) : -len(end)], kinds[key]) for key in sorted(keys) if kinds[key]]


def read_progress(queue: RemoteQueue, ids: Sequence[str] | None) -> dict[str, Progress]:
    """Return how far the jobs in flight have come, and forget what is kept of others.

    What was told of an earlier delivery of a job is none of the present one: it has another token.
    """
    found: dict[str, Progress] = {}
    with queue.errors:
        for chunk in in_chunks(_kept_progress(queue, ids).items(), CHUNK_JOBS):
            found |= _present_progress(queue, chunk)
    return found


def _present_progress(queue: RemoteQueue, kept: Sequence[tuple[bytes, bytes]]) -> dict[str, Progress]:
    command, keys = queue.redis.command, queue.keys
    found: dict[str, Progress] = {}
    ids = [id_ for id_, _ in kept]
    leases = command("ZMSCORE", keys.run, *ids)
    if ended := [id_ for id_, lease in zip(ids, leases, strict=True) if lease is None]:
        command("HDEL", keys.progress, *ended)
    records = command("HMGET", keys.state, *ids)
    for (id_, told), record in zip(kept, records, strict=True):
        text, _, token = told.rpartition(b"|")
        is_present = id_ not in ended and record is not None and record.endswith(token)
        progress = parse_progress(text) if is_present else None
        if progress is not None:
            found[as_text(id_)] = progress
    return found


def _kept_progress(queue: RemoteQueue, ids: Sequence[str] | None) -> dict[bytes, bytes]:
    command, key = queue.redis.command, queue.keys.progress
    if ids is None:
        kept: dict[bytes, bytes] = command("HGETALL", key)
        return kept
    found: dict[bytes, bytes] = {}
    for chunk in in_chunks(ids, CHUNK_JOBS):
        texts = command("HMGET", key, *chunk)
        found |= {id_.encode(): text for id_, text in zip(chunk, texts, strict=True) if text is not None}
    return found


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


def list_dead_letters(queue: RemoteQueue, *, limit: int, offset: int) -> list[DeadLetter]:
    """List dead letters, oldest first, page by page: each begins after the death that ended the last."""
    found, last = list[DeadLetter](), b""
    while True:
        size = min(CHUNK_JOBS, limit - len(found))
        last, *columns = queue.run(DEAD_LETTERS, [str(offset), str(size), str(CHUNK_BYTES), last])
        found += [_read_dead_letter(*row) for row in zip(*columns, strict=True)]
        if not last or len(found) >= limit:
            return found


def redrive_or_discard(
    queue: RemoteQueue, how: Literal["redrive", "discard"], ids: Sequence[str] | None
) -> int:
    """Redrive or discard dead letters, of the given ids or all, and return how many they were."""
    count = 0
    with operation(queue, REDRIVE_OR_DISCARD) as run:
        if ids is not None:
            if not ids:
                queue.run(COUNTS)  # raises QueueNotFound
            for chunk in in_chunks(dict.fromkeys(ids), CHUNK_JOBS):
                taken, _, _ = run([how, "", str(CHUNK_JOBS), *chunk]).split()
                count += int(taken)
            return count
        up_to = ""  # then the last death of when it began: those that come meanwhile stay
        while True:
            taken, looked_at, last = run([how, up_to, str(CHUNK_JOBS), "*"]).split()
            up_to = last.decode()
            count += int(taken)
            if int(looked_at) < CHUNK_JOBS:
                return count


def read_error(letter: bytes | None) -> str:
    """Return the last error of a dead job."""
    return _read_death(letter)[1]


def _read_dead_letter(
    id_: bytes, body: bytes | None, info: bytes, letter: bytes | None, history: bytes | None
) -> DeadLetter:
    """Read a dead letter, as ``dead_letters.lua`` returns it."""
    attempt, _, crashes = map(int, info.split(b":"))
    reason, error, died_ms = _read_death(letter)
    return DeadLetter(
        id=as_text(id_),
        body=body or b"",
        reason=reason,
        error=error,
        attempt=attempt,
        crashes=crashes,
        died_at=parse_moment(died_ms / 1000),
        history=parse_history(history),
    )


def _read_death(letter: bytes | None) -> tuple[str, str, float]:
    """Reason, error and moment (ms) of a death."""
    match parse_json(letter):
        case [str(reason), str(error), int() | float() as died_ms]:
            return reason, error, died_ms
        case _:
            return DeadReason.MALFORMED, "its dead letter is damaged: how it died isn't known", 0
