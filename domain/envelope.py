"""The envelope: how a job is written into a broker, and read back.

One JSON object, compact, in UTF-8. What equals its default isn't written::

    {"v":1,"id":"4f…","schema":"my_jobs","created_at":1795529836.588716,"payload":{"x":1.5,"y":2.5}}

``attempt`` isn't part of it: it changes while the job lives, so the broker's side keeps it.
"""

from datetime import UTC, datetime
from typing import Any, NamedTuple

from pydantic import BaseModel, ValidationError
from pydantic_core import PydanticSerializationError, from_json, to_json

from .errors import InvalidInput, InvalidPayload, MalformedBody
from .job import NO_HEADERS, Job
from .json_guard import check_bounds, parse_object
from .limits import MAX_BODY_BYTES, check_name
from .schema import InModelT, JobSchema, describe

VERSION = 1

_REQUIRED = ("v", "id", "schema", "created_at", "payload")
_KNOWN = frozenset({*_REQUIRED, "priority", "not_before", "max_attempts", "headers"})

_N, _I = b"NI"
"""What NaN and Infinity begin with. Searching for one byte costs next to nothing, for a word it shows."""


def encode(job: Job[Any], schema: JobSchema[Any, Any], *, max_bytes: int = MAX_BODY_BYTES) -> bytes:
    """Write ``job`` as an envelope that :func:`decode` is sure to accept (PUB-6).

    Raises:
        InvalidPayload: the payload holds what JSON can't carry, such as NaN, or wouldn't validate again
            where it is read.
        BodyTooLarge: the envelope is longer than ``max_bytes``.
        MalformedBody: the payload nests deeper than 64 levels, or has a number of more than 200 digits.
    """
    head: dict[str, Any] = {
        "v": VERSION,
        "id": job.id,
        "schema": job.schema_name,
        "created_at": job.created_at.timestamp(),
    }
    if job.priority:
        head["priority"] = job.priority
    if job.not_before is not None:
        head["not_before"] = job.not_before.timestamp()
    if job.max_attempts is not None:
        head["max_attempts"] = job.max_attempts
    if job.headers:
        head["headers"] = dict(job.headers)
    payload = encode_model("payload", job.payload)
    # An instance may have been built past its validators, or changed since, or be written otherwise than
    # it is read: better to hear of it here than in a dead letter.
    decode_model("payload, as a consumer would read it", schema.input, payload)
    body = b'%b,"payload":%b}' % (to_json(head)[:-1], payload)
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
        text = serializer.to_json(model, by_alias=True)
        if b"null" in text or _N in text or _I in text:
            # pydantic writes NaN as null unless told otherwise, and a null may well be accepted later on. In
            # its Python form, NaN is still itself wherever it stands, even in a field that is typed Any.
            plain = serializer.to_python(model, by_alias=True)
            _refuse_non_finite(what, to_json(plain, bytes_mode="base64", serialize_unknown=True))
    except (PydanticSerializationError, UnicodeEncodeError) as error:
        raise InvalidPayload(f"{what}: can't be written as JSON: {error}") from error
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
    fields = _read_fields(body, max_bytes)
    if fields["schema"] != schema.name:
        raise MalformedBody(f"job of schema {fields['schema']!r:.140}, expected {schema.name!r}")
    payload = decode_model("payload", schema.input, to_json(fields["payload"]))
    not_before = fields.get("not_before")
    try:
        return Job(
            schema_name=schema.name,
            payload=payload,
            id=fields["id"],
            priority=fields.get("priority", 0),
            created_at=_moment("created_at", fields["created_at"]),
            not_before=None if not_before is None else _moment("not_before", not_before),
            attempt=attempt,
            max_attempts=fields.get("max_attempts"),
            headers=fields.get("headers", NO_HEADERS),
        )
    except InvalidInput as error:
        raise MalformedBody(f"envelope: {error}") from error


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


def _moment(what: str, seconds: object) -> datetime:
    if type(seconds) is float or type(seconds) is int:
        try:
            return datetime.fromtimestamp(seconds, UTC)
        except (ValueError, OverflowError, OSError):
            pass
    raise MalformedBody(f"{what}: must be seconds since 1970")


def _refuse_non_finite(what: str, text: bytes) -> None:
    """Raise if ``text`` has a bare NaN or Infinity; the same words inside a string are fine."""
    check_bounds(text, max_bytes=len(text))
    try:
        from_json(text, allow_inf_nan=False)
    except ValueError as error:
        raise InvalidPayload(f"{what}: NaN and infinity can't be written as JSON") from error
