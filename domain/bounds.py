"""The bounds of every value that is sent to a broker, and the checks that enforce them."""

import re
from collections.abc import Iterable, Sequence
from datetime import timedelta
from inspect import iscoroutine

from .errors import InvalidInput, InvalidName, InvalidSchema

MAX_BODY_BYTES = 1024 * 1024
MAX_DEPTH = 64
"""How deep arrays and objects may nest in an envelope."""
MAX_DIGITS = 200
"""The longest run of digits in a number."""
MAX_PRIORITY = 9
MAX_HEADERS = 32
MAX_HEADER_CHARS = 1024
MAX_ERROR_CHARS = 2048
"""The error of an attempt is cut to this length."""
MAX_TRACEBACK_CHARS = 8192
"""The traceback of a dead job is cut to this length; its most recent frames stay."""
MAX_FAILURE_CHARS = MAX_TRACEBACK_CHARS + MAX_ERROR_CHARS + 512
"""The longest text that a failed attempt stores with its job: traceback, time, host, process and error."""
MAX_DELAY_S = 366 * 86_400.0
"""The longest delay of a publish or a retry: one year."""
MAX_ATTEMPTS = 1_000_000
MAX_LISTED = 2**31 - 1
"""A limit of what is listed that leaves nothing out."""

NAME = "[A-Za-z0-9._-]{1,128}"
"""What names a queue, a schema or a job, as a regular expression."""

_NAME = re.compile(NAME)


def check_name(what: str, value: object) -> str:
    """Return ``value`` if it may name a queue, a schema or a job.

    Raises:
        InvalidName: it is not 1 to 128 characters of ``A-Z a-z 0-9 . _ -``.
    """
    if isinstance(value, str):
        plain = value.isascii() and value.isalnum() and len(value) <= 128  # what most ids are, and cheaper
        if plain or _NAME.fullmatch(value):
            return value
    rule = "use 1 to 128 characters of A-Z a-z 0-9 . _ -"
    raise InvalidName(f"{what} {_shown(value)}: {rule}{_name_hint(value)}")


def check_job_ids(ids: Sequence[str] | None) -> list[str] | None:
    """Return ``ids`` as a list if each may name a job; None, which stands for all jobs, is returned as it is.

    A lone string is refused, which would pass for as many ids of one letter each.

    Raises:
        InvalidInput: it is no list of ids, or one of them is none.
    """
    if ids is None:
        return None
    if isinstance(ids, str) or not isinstance(ids, Iterable):
        raise InvalidInput(f"job ids {ids!r:.140}: pass a list of ids")
    return [check_name("job id", id_) for id_ in ids]


def check_int(what: str, value: object, low: int, high: int, error: type[InvalidInput] = InvalidInput) -> int:
    """Return ``value`` if it is an integer (and no bool) from ``low`` to ``high``.

    Raises:
        InvalidInput: it isn't; of the type ``error``.
    """
    if type(value) is int and low <= value <= high:
        return value
    raise error(f"{what} {_shown(value)}: must be an integer from {low} to {high}")


def check_seconds(
    what: str, value: object, error: type[InvalidInput] = InvalidInput, *, lowest: str = "from 0 to"
) -> float:
    """Return ``value`` as a float if it is a number of seconds from 0 to 366 days.

    Args:
        what: What it is.
        value: The number.
        error: The type of the error.
        lowest: How the message begins to say what is allowed; the caller refuses 0 where that isn't.

    Raises:
        InvalidInput: it isn't; of the type ``error``.
    """
    if (type(value) is float or type(value) is int) and 0 <= value <= MAX_DELAY_S:
        return float(value)
    remedy = "; use its total_seconds()" if isinstance(value, timedelta) else ""
    raise error(
        f"{what} {_shown(value)}: must be a number of seconds, "
        f"{lowest} {MAX_DELAY_S:,.0f} ({MAX_DELAY_S / 86_400:.0f} days){remedy}"
    )


def check_expiry(
    seconds: object, error: type[InvalidInput] = InvalidInput, *, what: str = "expires_s"
) -> float:
    """Return ``expires_s`` as a float if it is a number of seconds, more than 0 and up to 366 days.

    Args:
        seconds: The number.
        error: The type of the error.
        what: What it is.

    Raises:
        InvalidInput: it isn't; of the type ``error``.
    """
    checked = check_seconds(what, seconds, error, lowest="more than 0 and up to")
    if checked == 0:
        raise error(f"{what} 0: must be more than 0 seconds, or the job would never run")
    return checked


def check_dead_ttl(what: str, seconds: object) -> float:
    """Return a ``dead_ttl_s`` as a float if it is a number of seconds, more than 0 and up to 366 days.

    Raises:
        InvalidSchema: it isn't.
    """
    checked = check_seconds(what, seconds, InvalidSchema, lowest="more than 0 and up to")
    if checked == 0:
        raise InvalidSchema(f"{what} 0: must be more than 0 seconds, or no dead letter would be seen")
    return checked


def check_time_limit(what: str, value: object, error: type[InvalidInput] = InvalidInput) -> float:
    """Return ``value`` as a float if it may limit the time of a handler: more than 0 seconds, up to 366 days.

    Raises:
        InvalidInput: it may not; of the type ``error``.
    """
    if value == 0 and type(value) is not bool:
        raise error(f"{what} {_shown(value)}: must be more than 0 seconds; for no limit leave it out")
    return check_seconds(what, value, error, lowest="more than 0 and up to")


def truncate_error(text: str, longest: int = MAX_ERROR_CHARS) -> str:
    """Cut ``text`` to the length that may be stored with a job, and keep its end, which names the cause.

    Characters that UTF-8 can't encode, as in the name of a file that isn't UTF-8, are escaped.

    Args:
        text: The error.
        longest: How many characters to keep; at least 2.
    """
    text = text.encode(errors="backslashreplace").decode()
    if len(text) <= longest:
        return text
    return "…" + text[1 - longest :]


def _name_hint(value: object) -> str:
    """Say what to pass in place of a schema or a class, which are often given where a name is due."""
    for what, schema in (("its schema's name", getattr(value, "schema", None)), ("its name", value)):
        name = getattr(schema, "name", None)
        if isinstance(name, str) and hasattr(schema, "input_schema"):
            return f"; pass {what}, {name!r:.140}"
    if isinstance(value, type):
        return "; pass a name, not a class"
    if hasattr(value, "schema_name"):
        return "; pass the job's id"
    if iscoroutine(value):
        return "; await the call that returns it"
    if isinstance(getattr(value, "id", None), str):  # the handle of a job, for example
        return "; pass its id"
    is_text = isinstance(value, str) or value is None
    return "" if is_text or not _NAME.fullmatch(str(value)) else "; convert it with str(…)"


def _shown(value: object) -> str:
    text = repr(value)
    return text if len(text) <= 80 else text[:77] + "..."
