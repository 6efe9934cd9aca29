"""What a job's file holds: the length of its body, the body, and a line for each failure and each death.

Lines are only ever added. A crash may leave half a line, or a line about a step that was then not taken; so
each starts with a line break of its own, and the last word on an attempt counts.
"""

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, NamedTuple

from mindtrace.jobs.ports import DeadLetter, Failure

from .label import Label

_MAX_HISTORY = 10


class Record(NamedTuple):
    """A file's content, taken apart."""

    body: bytes
    notes: list[dict[str, Any]]


def pack(body: bytes) -> bytes:
    """The content of a new job's file."""
    return b"%d\n%b" % (len(body), body)


def pack_note(note: dict[str, Any]) -> bytes:
    """What is added to a job's file when an attempt failed or the job died."""
    return b"\n" + json.dumps(note).encode()


def read(path: Path) -> Record:
    """Read a job's file.

    Raises:
        FileNotFoundError: it is elsewhere by now.
    """
    with path.open("rb") as file:
        body = file.read(int(file.readline()))
        return Record(body, [note for line in file if isinstance(note := _parse(line), dict)])


def _parse(line: bytes) -> object:
    try:
        return json.loads(line)
    except ValueError:
        return None


def dead_letter(label: Label, record: Record) -> DeadLetter:
    """What is known of a dead job."""
    # A job that was redriven began again at attempt 1: of its former life only what lies ahead is left,
    # and that is passed over.
    errors = {note["attempt"]: note["error"] for note in record.notes if "reason" not in note}
    history = [Failure(attempt, errors[attempt]) for attempt in sorted(errors) if attempt < label.attempt]
    death = next(note for note in reversed(record.notes) if "reason" in note)
    return DeadLetter(
        id=label.id,
        body=record.body,
        reason=death["reason"],
        error=death["error"],
        attempt=label.attempt,
        crashes=label.crashes,
        died_at=datetime.fromtimestamp(label.when / 1e9, UTC),
        history=tuple(history[-_MAX_HISTORY:]),
    )
