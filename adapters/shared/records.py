"""Reading what adapters keep beside a job's body: what is damaged is left out, and costs nothing else."""

import json
from datetime import UTC, datetime
from typing import Any

from ...domain.errors import InvalidInput
from ...domain.job_progress import Progress
from ...domain.queue import Queue, QueueKind
from ...ports import Failure

MAX_HISTORY = 10
"""How many failed attempts are kept with a job, the last ones."""
REMEMBERED_ENDS = 10_000
"""For how many jobs of a queue that ended without a result the end is remembered, the last ones."""
_UNKNOWN = datetime(1970, 1, 1, tzinfo=UTC)


def parse_queue(name: str, kind: str) -> Queue | None:
    """Return a queue as it was found, or None if no queue can have this name or kind."""
    try:
        return Queue(name, QueueKind.parse(kind))
    except InvalidInput:
        return None


def parse_history(text: str | bytes | None) -> tuple[Failure, ...]:
    """Return the failed attempts in ``text``, JSON as ``[[attempt, error], …]``, without damaged ones."""
    found = parse_json(text)
    failures = found if isinstance(found, list) else []
    return tuple(
        Failure(failure[0], failure[1])
        for failure in failures
        if isinstance(failure, list) and [type(part) for part in failure] == [int, str]
    )


def parse_progress(text: str | bytes | None) -> Progress | None:
    """Return the progress in ``text``, JSON as ``[done, total]``, or None where it is damaged."""
    found = parse_json(text)
    if not isinstance(found, list) or len(found) != 2:
        return None
    try:
        return Progress(*found)
    except InvalidInput:
        return None


def parse_json(text: str | bytes | None) -> Any:
    """Return what ``text`` holds as JSON, or None where it is none."""
    try:
        return json.loads(text or "null")
    except (ValueError, TypeError, RecursionError):
        return None


def parse_moment(seconds: object) -> datetime:
    """Return the moment so many seconds after 1970; 1970 itself where that is no moment."""
    try:
        return datetime.fromtimestamp(seconds, UTC)  # type: ignore[arg-type]
    except (ValueError, TypeError, OverflowError, OSError):
        return _UNKNOWN
