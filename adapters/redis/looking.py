"""Looking at a server from outside the scripts: which queues there are, and how far their jobs have come."""

import json
from collections.abc import Sequence

from ...domain.queue import Queue
from ...domain.reporting import Progress
from .keys import QueueKeys
from .link import Link, OutOfReach
from .refusals import naming_queue

_SCANNED = 1000
"""How many keys the server looks at in one step, between which it serves others."""
_KEEP_MS = 86_400_000
"""How long progress is kept after anyone told any; what is left of jobs that ended goes with it."""


def list_queues(link: Link, namespace: str) -> list[Queue]:
    """Find the queues of ``namespace`` by their keys: as slow as the server has keys, but it serves others.

    Raises:
        BackendUnavailable: the server can't be reached.
        AccessDenied: the user may not SCAN.
    """
    start, end = f"mtj:{{{namespace}/", "}:meta"
    pattern = f"{start}*{end}"  # a namespace has no character that a pattern would take for its own
    names: set[str] = set()
    try:
        cursor: bytes | int = 0
        while True:
            cursor, found = link.command("SCAN", cursor, "MATCH", pattern, "COUNT", _SCANNED, "TYPE", "hash")
            names.update(key.decode()[len(start) : -len(end)] for key in found)
            if int(cursor) == 0:
                break
        kinds = {name: link.command("HGET", QueueKeys(namespace, name).meta, "kind") for name in names}
    except OutOfReach as out:
        raise link.unavailable(out) from out.error
    return [Queue(name, kinds[name].decode()) for name in sorted(names) if kinds[name]]


def write_progress(link: Link, keys: QueueKeys, job_id: str, progress: Progress) -> None:
    """Keep how far a job has come."""
    with naming_queue(keys.queue, link):
        link.command("HSET", keys.progress, job_id, json.dumps([progress.done, progress.total]))
        link.command("PEXPIRE", keys.progress, _KEEP_MS)


def read_progress(link: Link, keys: QueueKeys, ids: Sequence[str] | None) -> dict[str, Progress]:
    """Return how far the jobs in flight have come, and forget what jobs that ended had told."""
    with naming_queue(keys.queue, link):
        told = _told(link, keys, ids)
        if not told:
            return {}
        leases = link.command("ZMSCORE", keys.run, *told)
        ended = [id_ for id_, lease in zip(told, leases, strict=True) if lease is None]
        if ended:
            link.command("HDEL", keys.progress, *ended)
    return {id_: Progress(*json.loads(text)) for id_, text in told.items() if id_ not in ended}


def _told(link: Link, keys: QueueKeys, ids: Sequence[str] | None) -> dict[str, bytes]:
    if ids is None:
        told = link.command("HGETALL", keys.progress)
        return {id_.decode(): text for id_, text in told.items()}
    if not ids:
        return {}
    answers = link.command("HMGET", keys.progress, *ids)
    return {id_: text for id_, text in zip(ids, answers, strict=True) if text is not None}
