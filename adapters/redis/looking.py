"""Looking at a server from outside the scripts: which queues there are, and how far their jobs have come."""

import json
from collections.abc import Sequence

from ...domain.errors import InvalidInput
from ...domain.queue import Queue, QueueKind
from ...domain.reporting import Progress
from ..shared.records import parse_progress
from .chunks import in_chunks
from .keys import QueueKeys
from .link import Link, OutOfReach
from .records import shown
from .refusals import naming_queue
from .scripts import REPORT

_SCANNED = 1000
"""How many keys the server looks at in one step, between which it serves others."""
_KEEP_MS = 86_400_000
"""How long progress is kept after anyone told any."""


def list_queues(link: Link, namespace: str) -> list[Queue]:
    """List the queues of ``namespace``; passes over keys that no release of ours wrote.

    Raises:
        BackendError: as of :func:`find_queues`.
    """
    found = (parse_queue(name, kind) for name, kind in find_queues(link, namespace))
    return [queue for queue in found if queue is not None]


def find_queues(link: Link, namespace: str) -> list[tuple[bytes, bytes]]:
    """Find the queues of ``namespace`` by their keys, each with its name and kind, by name.

    As slow as the server has keys, but it serves others meanwhile.

    Raises:
        BackendUnavailable: the server can't be reached.
        AccessDenied: the user may not SCAN.
    """
    start, end = f"mtj:{{{namespace}/".encode(), b"}:meta"
    pattern = start + b"*" + end  # a namespace has no character that a pattern would take for its own
    keys: set[bytes] = set()
    try:
        cursor: bytes | int = 0
        while True:
            cursor, found = link.command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED, "TYPE", "hash")
            keys.update(found)
            if int(cursor) == 0:
                break
        kinds = {key: link.command("HGET", key, "kind") for key in keys}
    except OutOfReach as out:
        raise link.unavailable(out) from out.error
    return [(key[len(start) : -len(end)], kinds[key]) for key in sorted(keys) if kinds[key]]


def parse_queue(name: bytes, kind: bytes) -> Queue | None:
    """Return a queue as it was found, or None where its name or kind is none that a queue can have."""
    try:
        return Queue(shown(name), QueueKind.parse(shown(kind)))
    except InvalidInput:
        return None


def write_progress(link: Link, keys: QueueKeys, job_id: str, progress: Progress) -> None:
    """Keep how far a job has come."""
    with naming_queue(keys.queue, link):
        link.run(REPORT, keys.for_report(), [job_id, json.dumps([progress.done, progress.total]), _KEEP_MS])


def read_progress(link: Link, keys: QueueKeys, ids: Sequence[str] | None) -> dict[str, Progress]:
    """Return how far the jobs in flight have come, and forget what is told of others."""
    found: dict[str, Progress] = {}
    with naming_queue(keys.queue, link):
        for chunk in in_chunks(_told(link, keys, ids).items()):
            leases = link.command("ZMSCORE", keys.run, *(id_ for id_, _ in chunk))
            if ended := [id_ for (id_, _), lease in zip(chunk, leases, strict=True) if lease is None]:
                link.command("HDEL", keys.progress, *ended)
            for id_, text in chunk:
                progress = None if id_ in ended else parse_progress(text)
                if progress is not None:
                    found[shown(id_)] = progress
    return found


def _told(link: Link, keys: QueueKeys, ids: Sequence[str] | None) -> dict[bytes, bytes]:
    """What was told of jobs, by id."""
    if ids is None:
        told: dict[bytes, bytes] = link.command("HGETALL", keys.progress)
        return told
    found: dict[bytes, bytes] = {}
    for chunk in in_chunks(ids):
        texts = link.command("HMGET", keys.progress, *chunk)
        found |= {id_.encode(): text for id_, text in zip(chunk, texts, strict=True) if text is not None}
    return found
