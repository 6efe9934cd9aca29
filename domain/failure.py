"""What is kept of a failed attempt, as the one text that a backend stores with its job.

It reads ``traceback RS origin RS error``, where RS is the character U+001E and the origin a JSON object. The
error stands last, since a backend that has too little room keeps the end of a text: the oldest frames go
first. A text without RS is an error alone.
"""

from datetime import UTC, datetime
from typing import NamedTuple

from pydantic_core import from_json, to_json

from .bounds import MAX_TRACEBACK_CHARS, truncate_error
from .printable import printable

_SEPARATOR = "\x1e"
_MAX_HOST_CHARS = 200


class FailureReport(NamedTuple):
    """Why an attempt failed, where and when."""

    error: str
    """The error's class and message."""
    failed_at: datetime | None = None
    """By the clock of the worker."""
    host: str | None = None
    pid: int | None = None
    traceback: str | None = None
    """Its most recent frames last; control characters are escaped."""
    expired_at: datetime | None = None
    """When the job expired, if that is why it is dead."""


def encode_failure(report: FailureReport) -> str:
    """Write ``report`` as text of at most ``MAX_FAILURE_CHARS`` characters that UTF-8 can encode."""
    moment = report.failed_at
    fields = {
        "at": None if moment is None else round(moment.timestamp(), 3),
        "host": None if report.host is None else truncate_error(report.host, _MAX_HOST_CHARS),
        "pid": report.pid,
    }
    if report.expired_at is not None:
        fields["expired_at"] = report.expired_at.timestamp()
    origin = to_json(fields).decode()
    error = truncate_error(report.error.replace(_SEPARATOR, r"\x1e"))
    return _SEPARATOR.join((_shown_traceback(report.traceback), origin, error))


def decode_failure(text: str) -> FailureReport:
    """Read what :func:`encode_failure` wrote, also if its beginning was cut off, and any other error."""
    *rest, error = text.rsplit(_SEPARATOR, 2)
    origin = _parsed(rest[-1]) if rest else {}
    host, pid = origin.get("host"), origin.get("pid")
    return FailureReport(
        error,
        failed_at=_moment(origin.get("at")),
        host=host if isinstance(host, str) else None,
        pid=pid if type(pid) is int else None,
        traceback=(rest[0] or None) if len(rest) == 2 else None,
        expired_at=_moment(origin.get("expired_at")),
    )


def _shown_traceback(text: str | None) -> str:
    if text is None:
        return ""
    return truncate_error("\n".join(map(printable, text.split("\n"))), MAX_TRACEBACK_CHARS)


def _parsed(origin: str) -> dict[str, object]:
    try:
        found = from_json(origin)
    except ValueError:
        return {}
    return found if isinstance(found, dict) else {}


def _moment(seconds: object) -> datetime | None:
    if type(seconds) is not float and type(seconds) is not int:
        return None
    try:
        return datetime.fromtimestamp(seconds, UTC)
    except (ValueError, OverflowError, OSError):
        return None
