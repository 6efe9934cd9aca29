"""Which queues there are, and how far their jobs have come."""

from collections.abc import Sequence

from ...domain.job_progress import Progress
from ...domain.queue import Queue
from ..shared.chunks import in_chunks
from ..shared.records import parse_progress, parse_queue
from .requests import CHUNK_JOBS, RemoteQueue
from .transport import RetryingConnection, as_text

_SCANNED = 1000
"""How many keys the server looks at in one step, between which it serves others."""


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
    command, keys = queue.redis.command, queue.keys
    found: dict[str, Progress] = {}
    with queue.errors:
        for chunk in in_chunks(_kept_progress(queue, ids).items(), CHUNK_JOBS):
            chunk_ids = [id_ for id_, _ in chunk]
            leases = command("ZMSCORE", keys.run, *chunk_ids)
            if ended := [id_ for id_, lease in zip(chunk_ids, leases, strict=True) if lease is None]:
                command("HDEL", keys.progress, *ended)
            records = command("HMGET", keys.state, *chunk_ids)
            for (id_, told), record in zip(chunk, records, strict=True):
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
