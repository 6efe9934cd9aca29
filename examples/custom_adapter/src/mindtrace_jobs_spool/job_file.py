"""The content of a job's file: the length of its body, the body, and a line for each failure and each death.

Lines are only ever added. A crash may leave half a line, or a line about a step that was then not taken; so
each starts with a line break of its own, and the last word on an attempt counts.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mindtrace.jobs.ports import DeadLetter, Failure

from .file_name import FileName

_MAX_HISTORY = 10


class JobFile(NamedTuple):
    """The content of a file."""

    body: bytes
    notes: list[dict[str, Any]]


def pack(body: bytes) -> bytes:
    """The content of a new job's file."""
    return b"%d\n%b" % (len(body), body)


def pack_note(note: dict[str, Any]) -> bytes:
    """What is added to a job's file when an attempt failed or the job died."""
    return b"\n" + json.dumps(note).encode()


def read(path: Path) -> JobFile:
    """Read a job's file.

    Raises:
        FileNotFoundError: it is elsewhere by now.
    """
    with path.open("rb") as file:
        body = file.read(int(file.readline()))
        return JobFile(body, [note for line in file if isinstance(note := _parse(line), dict)])


def _parse(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def dead_letter(name: FileName, content: JobFile) -> DeadLetter:
    """Return the dead letter that a file describes."""
    # A job that was redriven began again at attempt 1: of its former life only what lies ahead is left,
    # and that is passed over.
    errors = {note["attempt"]: note["error"] for note in content.notes if "reason" not in note}
    history = [Failure(attempt, errors[attempt]) for attempt in sorted(errors) if attempt < name.attempt]
    death = next(note for note in reversed(content.notes) if "reason" in note)
    return DeadLetter(
        id=name.id,
        body=content.body,
        reason=death["reason"],
        error=death["error"],
        attempt=name.attempt,
        crashes=name.crashes,
        died_at=datetime.fromtimestamp(name.when / 1e9, UTC),
        history=tuple(history[-_MAX_HISTORY:]),
    )
