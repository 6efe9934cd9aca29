"""The envelope: how a job is written into a broker, and read back.

One JSON object, compact, in UTF-8. What equals its default isn't written::

    {"v":1,"id":"4f…","schema":"my_jobs","created_at":1795529836.588716,"payload":{"x":1.5,"y":2.5}}

``attempt`` isn't part of it: it changes while the job lives, so the broker's side keeps it.
"""

import re
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from datetime import UTC, datetime
from itertools import count
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from .bounds import MAX_ATTEMPTS, MAX_BODY_BYTES, MAX_DELAY_S, MAX_DEPTH, MAX_DIGITS, NAME, check_name
from .errors import InvalidInput, InvalidPayload, MalformedBody
from .foreign_scalars import plain_scalar
from .job import LATEST, NO_HEADERS, Job, job_of_checked
from .json_guard import check_bounds, parse_object
from .schema import InModelT, JobSchema, describe

VERSION = 1

_REQUIRED = ("v", "id", "schema", "created_at", "payload")
_KNOWN = frozenset(
    {*_REQUIRED, "priority", "not_before", "expires_at", "max_attempts", "timeout_s", "headers"}
)

_BRACE = ord("}")
_N, _I = b"NI"
"""What NaN and Infinity begin with. Searching for one byte costs next to nothing, for a word it shows."""


_MOMENT = r"((?:0|[1-9][0-9]{0,11})(?:\.[0-9]{1,9})?)"
_HEAD = re.compile(
    rf'\{{"v":{VERSION},"id":"({NAME})","schema":"({NAME})","created_at":{_MOMENT}'
    rf'(?:,"priority":([0-9]))?(?:,"not_before":{_MOMENT})?(?:,"expires_at":{_MOMENT})?(?:,"max_attempts":([1-9][0-9]{{0,6}}))?'
    rf'(?:,"timeout_s":{_MOMENT})?'
    ',"payload":'.encode()
)
"""What :func:`encode` writes before the payload, where there are no headers."""
_PAYLOAD = b',"payload":'
_ALWAYS_IN_BOUNDS = min(2 * MAX_DEPTH - 2, MAX_DIGITS)
"""A payload of so many bytes has no room for a nesting that is too deep, or a number that is too long."""
_END_OF_TIME = LATEST.timestamp()
_COLLECTIONS = (list, tuple, set, frozenset, deque)


def encode(job: Job[Any], schema: JobSchema[Any, Any], *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Write ``job`` as an envelope that :func:`decode` is sure to accept (PUB-6).

    Raises:
        InvalidPayload: the payload holds what JSON can't carry, such as NaN, or wouldn't validate again
            where it is read.
        BodyTooLarge: the envelope is longer than ``max_bytes``.
        MalformedBody: the payload nests deeper than 64 levels, or has a number of more than 200 digits.
    """
    # A name needs no escapes, and a float is written as JSON has it; neither by what a subclass makes of it.
    head = b'{"v":%d,"id":"%b","schema":"%b","created_at":%b' % (
        VERSION,
        job.id.encode(),
        job.schema_name.encode(),
        _seconds(job.created_at),
    )
    if job.priority:
        head += b',"priority":%d' % job.priority
    if job.not_before is not None:
        head += b',"not_before":%b' % _seconds(job.not_before)
    if job.expires_at is not None:
        head += b',"expires_at":%b' % _seconds(job.expires_at)
    if job.max_attempts is not None:
        head += b',"max_attempts":%d' % job.max_attempts
    if job.timeout_s is not None:
        head += b',"timeout_s":%b' % repr(job.timeout_s).encode()
    if job.headers is not NO_HEADERS:
        head += b',"headers":%b' % to_json(dict(job.headers))
    payload = encode_model("payload", job.payload)
    # An instance may have been built past its validators, or changed since, or be written otherwise than
    # it is read: better to hear of it here than in a dead letter.
    read = decode_model("payload, as a consumer would read it", schema.input, payload)
    if schema.has_untyped_input:
        check_bytes_kept("payload", job.payload, read)
    body = b'%b,"payload":%b}' % (head, payload)
    if len(payload) > _ALWAYS_IN_BOUNDS or len(body) > max_bytes:
        check_bounds(body, max_bytes=max_bytes)
    return body


def encode_model(what: str, model: BaseModel) -> bytes:
    """Write a payload or a result as JSON; ``what`` opens the error's message.

    Raises:
        InvalidPayload: it holds what JSON can't carry, such as NaN.
        MalformedBody: it nests deeper than 64 levels, or has a number of more than 200 digits.
    """
    serializer = type(model).__pydantic_serializer__
    try:
        try:
            text = serializer.to_json(model, by_alias=True)
        except PydanticSerializationError:  # a scalar of NumPy, perhaps
            text = serializer.to_json(model, by_alias=True, fallback=_plain_value)
        if b"null" in text or _N in text or _I in text:
            # pydantic writes NaN as null unless told otherwise, and a null may well be accepted later on. In
            # its Python form, NaN is still itself wherever it stands, even in a field that is typed Any.
            plain = serializer.to_python(model, by_alias=True)
            _refuse_non_finite(what, to_json(plain, bytes_mode="base64", fallback=_plain_or_empty))
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise InvalidPayload(f"{what}: can't be written as JSON: {_reason(error)}") from error
    return text


def decode_model(what: str, model: type[InModelT], text: bytes) -> InModelT:
    """Read what :func:`encode_model` wrote; ``what`` opens the error's message.

    Raises:
        InvalidPayload: it doesn't fit ``model``.
    """
    try:
        return model.__pydantic_validator__.validate_json(text)  # type: ignore[no-any-return]
    except ValidationError as error:
        raise InvalidPayload(f"{what}: {describe(error)}") from error


def check_bytes_kept(what: str, model: BaseModel, read: BaseModel) -> None:
    """Compare a model with what would be read of it, where it has fields without a type.

    Raises:
        InvalidPayload: there are bytes in such a field, and a string, which JSON has for them, would be read.
    """
    plain = model.model_dump()
    one, other = (to_json(plain, bytes_mode=mode, fallback=_plain_or_empty) for mode in ("base64", "hex"))
    if one == other:  # there are no bytes, not even in fields that have a type
        return
    lost = _lost_bytes(plain, read.model_dump(), "")
    if lost is not None:
        raise InvalidPayload(
            f"{what}: {lost.lstrip('.')} is bytes in a field without a type, and would be read as a string: "
            "declare the field as bytes"
        )


class Envelope(NamedTuple):
    """An envelope that was read but not yet held against a schema."""

    id: str
    schema_name: str
    payload: dict[str, Any]


def open_envelope(body: bytes, *, max_bytes: int = MAX_BODY_BYTES) -> Envelope:
    """Read ``body`` as far as one can without its schema: for logs, listings and dead letters.

    Raises:
        BodyTooLarge: it is longer than ``max_bytes``.
        MalformedBody: it isn't an envelope of this version within the bounds of SEC-2.
    """
    fields = _read_fields(body, max_bytes)
    try:
        return Envelope(
            check_name("job id", fields["id"]),
            check_name("schema name", fields["schema"]),
            fields["payload"],
        )
    except InvalidInput as error:
        raise MalformedBody(f"envelope: {error}") from error


def expiry_in(body: bytes) -> float | None:
    """Return when a job expires, in seconds since 1970; None if it doesn't, or if the body is no job."""
    if b'"expires_at":' not in body:
        return None
    head = _HEAD.match(body)
    if head is not None:
        return None if head[6] is None else float(head[6])
    try:  # it has headers, or is written otherwise
        moment = _read_fields(body, len(body)).get("expires_at")
    except InvalidInput:
        return None
    return float(moment) if type(moment) is float or type(moment) is int else None


def waits_since(body: bytes) -> float | None:
    """Return since when a job could run, in seconds since 1970; None if the body is no job.

    That is its publish, or the end of the delay that it was published with.
    """
    head = _HEAD.match(body)
    if head is not None:
        return float(head[5] or head[3])
    try:  # it has headers, or is written otherwise
        fields = _read_fields(body, len(body))
    except InvalidInput:
        return None
    moment = fields.get("not_before", fields["created_at"])
    return float(moment) if type(moment) is float or type(moment) is int else None


def decode(
    body: bytes, schema: JobSchema[InModelT, Any], *, attempt: int = 1, max_bytes: int = MAX_BODY_BYTES
) -> Job[InModelT]:
    """Read ``body`` as a job of ``schema``, validated (RCV-4).

    Args:
        body: What a broker delivered.
        schema: The one schema that it may be of (SEC-1).
        attempt: Which attempt this is; the broker's side keeps it.
        max_bytes: The largest body that is looked at.

    Raises:
        BodyTooLarge: the body is longer than ``max_bytes``.
        MalformedBody: it isn't an envelope, is of another schema, or one of its fields is out of range.
        InvalidPayload: its payload doesn't fit the schema's input model.
    """
    job = _decode_at_once(body, schema, attempt, max_bytes)
    if job is not None:
        return job
    fields = _read_fields(body, max_bytes)
    if fields["schema"] != schema.name:
        raise MalformedBody(f"job of schema {fields['schema']!r:.140}, expected {schema.name!r}")
    payload = decode_model("payload", schema.input, to_json(fields["payload"]))
    not_before, expires_at = fields.get("not_before"), fields.get("expires_at")
    try:
        return Job(
            schema_name=schema.name,
            payload=payload,
            id=fields["id"],
            priority=fields.get("priority", 0),
            created_at=_moment("created_at", fields["created_at"]),
            not_before=None if not_before is None else _moment("not_before", not_before),
            expires_at=None if expires_at is None else _moment("expires_at", expires_at),
            attempt=attempt,
            max_attempts=fields.get("max_attempts"),
            timeout_s=fields.get("timeout_s"),
            headers=fields.get("headers", NO_HEADERS),
        )
    except InvalidInput as error:
        raise MalformedBody(f"envelope: {error}") from error


def read_payloads(
    bodies: Iterable[bytes],
    schema: JobSchema[InModelT, Any],
    *,
    max_bytes: int,
    check_error: Callable[[BaseException], None],
) -> Iterator[InModelT | None]:
    """Read the payload of each body, in less time than :func:`decode`; None for one that is no job.

    It may read a payload of a body that :func:`decode` refuses.

    Args:
        bodies: What a broker delivered.
        schema: The one schema that they may be of.
        max_bytes: The largest body that is looked at.
        check_error: Gets what made a body no job: anything, as a validator of the user's model raises it.
    """
    validate: Callable[[bytes], InModelT] = schema.input.__pydantic_validator__.validate_json
    for body in bodies:
        # No string of JSON has these bytes. If they stand deeper, or anything follows the payload, what is
        # validated here is no JSON.
        text = body.partition(_PAYLOAD)[2][:-1] if len(body) <= max_bytes else b""
        payload: InModelT | None
        try:
            try:
                payload = validate(text)
            except ValidationError:  # it may be in another order
                payload = decode(body, schema, max_bytes=max_bytes).payload
        except BaseException as error:
            check_error(error)
            payload = None
        yield payload


def _decode_at_once(
    body: bytes, schema: JobSchema[InModelT, Any], attempt: int, max_bytes: int
) -> Job[InModelT] | None:
    """Decode a body that :func:`encode` would write the same again, as most are, without its parts (ADR 24).

    Returns:
        None where it wouldn't, or where the job has headers: that says nothing of the body.

    Raises:
        BodyTooLarge, MalformedBody: as of :func:`decode`.
    """
    head = _HEAD.match(body)
    if head is None or body[-1] != _BRACE:
        return None
    id_, name, created_at, priority, not_before, expires_at, max_attempts, timeout_s = head.groups()
    text = body[head.end() : -1]
    if len(text) > _ALWAYS_IN_BOUNDS or len(body) > max_bytes:
        check_bounds(body, max_bytes=max_bytes)
    created_s = float(created_at)
    try:
        payload: InModelT = schema.input.__pydantic_validator__.validate_json(text)
        again = type(payload).__pydantic_serializer__.to_json(payload, by_alias=True, warnings=False)
    except (ValueError, RecursionError, AttributeError):  # all of pydantic's, and of what is no model
        return None
    # What is written the same again hides no key twice, no infinity, and no NaN but by its name.
    if (
        text != again
        or text[:1] != b"{"
        or name.decode() != schema.name
        or not 1 <= attempt <= MAX_ATTEMPTS
        or created_s >= _END_OF_TIME
        or (not_before is not None and float(not_before) >= _END_OF_TIME)
        or (expires_at is not None and float(expires_at) >= _END_OF_TIME)
        or (max_attempts is not None and int(max_attempts) > MAX_ATTEMPTS)
        or (timeout_s is not None and not 0 < float(timeout_s) <= MAX_DELAY_S)
        or (_N in text and b"NaN" in text)
        or (_I in text and b"Infinity" in text)
    ):
        return None
    return job_of_checked(
        schema.name,
        payload,
        id_.decode(),
        0 if priority is None else int(priority),
        datetime.fromtimestamp(created_s, UTC),
        None if not_before is None else datetime.fromtimestamp(float(not_before), UTC),
        None if expires_at is None else datetime.fromtimestamp(float(expires_at), UTC),
        attempt,
        None if max_attempts is None else int(max_attempts),
        None if timeout_s is None else float(timeout_s),
    )


def _read_fields(body: bytes, max_bytes: int) -> dict[str, Any]:
    fields = parse_object(body, max_bytes=max_bytes)
    if fields.get("v") != VERSION:
        raise MalformedBody(f"envelope version {fields.get('v')!r:.40}: this release reads version {VERSION}")
    for name in _REQUIRED:
        if name not in fields:
            raise MalformedBody(f"envelope without {name!r}")
    for name in fields:
        if name not in _KNOWN:
            raise MalformedBody(f"envelope with an unknown field {name!r:.140}")
    if type(fields["payload"]) is not dict:
        raise MalformedBody("the payload isn't a JSON object")
    return fields


def _seconds(moment: datetime) -> bytes:
    return repr(float(moment.timestamp())).encode()


def _moment(what: str, seconds: object) -> datetime:
    if type(seconds) is float or type(seconds) is int:
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            pass
    raise MalformedBody(f"{what}: must be seconds since 1970")


def _plain_value(value: object) -> object:
    """Return the number that is written for an object that pydantic doesn't know.

    Raises:
        PydanticSerializationError: JSON has nothing for it.
    """
    plain = plain_scalar(value)
    if plain is value:
        raise PydanticSerializationError(
            f"{type(value).__name__} has no form in JSON; save it and publish its path, or use plain values"
        )
    return plain


def _plain_or_empty(value: object) -> object:
    """Return that number, or what is neither a number nor bytes."""
    plain = plain_scalar(value)
    return "" if plain is value else plain


def _reason(error: Exception) -> str:
    """Say what pydantic says, without its prefixes."""
    text = str(error).removeprefix("Error serializing to JSON: ").removeprefix("PydanticSerializationError: ")
    advice = "; declare a field for bytes as bytes" if text.startswith("invalid utf-8 sequence") else ""
    return f"{text}{advice}"


def _lost_bytes(value: object, read: object, path: str) -> str | None:
    """Return where there are bytes in ``value`` that aren't in ``read``."""
    if isinstance(value, bytes | bytearray):
        return None if isinstance(read, bytes) else path
    pairs: Iterable[tuple[object, object, object]] = ()
    if isinstance(value, dict) and isinstance(read, dict):
        keys = zip(value, read, value, strict=False)
        pairs = (*keys, *((item, read.get(key), key) for key, item in value.items()))
    elif isinstance(value, _COLLECTIONS) and isinstance(read, _COLLECTIONS):
        pairs = zip(value, read, count(), strict=False)
    found = (_lost_bytes(item, other, f"{path}.{name}") for item, other, name in pairs)
    return next((path for path in found if path is not None), None)


def _refuse_non_finite(what: str, text: bytes) -> None:
    """Raise if ``text`` has a bare NaN or Infinity; the same words inside a string are fine."""
    check_bounds(text, max_bytes=len(text))
    try:
        from_json(text, allow_inf_nan=False, cache_strings="keys")
    except ValueError as error:
        raise InvalidPayload(
            f"{what}: NaN and infinity can't be written as JSON; send None or a text in their place"
        ) from error
