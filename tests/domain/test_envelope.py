"""The envelope: what is written is read back the same, and what couldn't be read is never written."""

import json
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from decimal import Decimal
from enum import Enum, StrEnum
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import BaseModel, ConfigDict, create_model, field_serializer, field_validator

from mindtrace.jobs import Job, JobInput, JobSchema, job_from_schema
from mindtrace.jobs.domain.envelope import (
    decode,
    decode_model,
    encode,
    encode_model,
    open_envelope,
    waits_since,
)
from mindtrace.jobs.domain.errors import BodyTooLarge, InvalidJob, InvalidPayload, MalformedBody


class Point(JobInput):
    x: float = 0.0
    y: float = 0.0


class Free(BaseModel):
    value: Any = None


POINTS = JobSchema("points", Point)
FREE = JobSchema("free", Free)


class Colour(StrEnum):
    RED = "red"
    BLUE = "blue"


moments = st.datetimes(datetime(1970, 1, 1), datetime(2200, 1, 1), timezones=st.just(UTC))
"""Those that a float holds to the microsecond."""

FIELDS: dict[Any, st.SearchStrategy[Any]] = {
    int: st.integers(-(2**80), 2**80),
    float: st.floats(allow_nan=False, allow_infinity=False),
    bool: st.booleans(),
    str: st.text(),
    bytes: st.binary(),
    timedelta: st.timedeltas(timedelta(-1000), timedelta(1000)),
    Path: st.text("abc/. é", min_size=1).map(Path),
    dict[UUID, bytes | None]: st.dictionaries(st.uuids(), st.none() | st.binary(), max_size=3),
    set[bytes]: st.sets(st.binary(), max_size=3),
    Colour: st.sampled_from(Colour),
    UUID: st.uuids(),
    datetime: moments,
    Decimal: st.decimals(allow_nan=False, allow_infinity=False, min_value=-(10**9), max_value=10**9),
    int | None: st.none() | st.integers(),
    list[str]: st.lists(st.text(), max_size=5),
    dict[str, list[float]]: st.dictionaries(
        st.text(), st.lists(st.floats(allow_nan=False, allow_infinity=False), max_size=3), max_size=3
    ),
    tuple[int, str]: st.tuples(st.integers(), st.text()),
    Point: st.builds(Point, x=st.floats(allow_nan=False, allow_infinity=False)),
}

names = st.text("abcXYZ019._-", min_size=1, max_size=128)
headers = st.dictionaries(st.text(max_size=40), st.text(max_size=80), max_size=32)


@st.composite
def jobs(draw: st.DrawFn) -> tuple[Job[Any], JobSchema[Any, Any]]:
    """A job of a random model: its fields' types are drawn, then their values."""
    types = draw(st.lists(st.sampled_from(list(FIELDS)), max_size=6))
    model = create_model(
        "Random", __base__=JobInput, **{f"field_{n}": (type_, ...) for n, type_ in enumerate(types)}
    )
    payload = model(**{f"field_{n}": draw(FIELDS[type_]) for n, type_ in enumerate(types)})
    schema = JobSchema(draw(names), model)
    job = job_from_schema(
        schema,
        payload,
        id=draw(names),
        priority=draw(st.integers(0, 9)),
        not_before=draw(st.none() | moments),
        max_attempts=draw(st.none() | st.integers(1, 1_000_000)),
        timeout_s=draw(st.none() | st.floats(0, 1e7, exclude_min=True)),
        headers=draw(headers),
    )
    return replace(job, created_at=draw(moments)), schema


@given(made=jobs(), attempt=st.integers(1, 1_000_000))
def test_what_is_encoded_is_decoded_the_same(made: tuple[Job[Any], Any], attempt: int) -> None:
    """Every field survives, whatever the model and the letters; only the attempt is the broker's to say."""
    job, schema = made

    assert decode(encode(job, schema), schema, attempt=attempt) == replace(job, attempt=attempt)


@given(made=jobs())
def test_an_envelope_can_be_opened_without_its_schema(made: tuple[Job[Any], Any]) -> None:
    """A listing or a dead letter can name the job, though nobody knows its model."""
    job, schema = made

    opened = open_envelope(encode(job, schema))

    assert (opened.id, opened.schema_name) == (job.id, schema.name)
    assert set(opened.payload) == set(type(job.payload).model_fields)


def test_an_envelope_is_one_compact_json_object() -> None:
    """What equals its default isn't written, and the attempt never is."""
    job = replace(
        job_from_schema(POINTS, {"x": 1.5}, id="a"), created_at=datetime(2026, 1, 1, tzinfo=UTC), attempt=7
    )

    assert encode(job, POINTS) == (
        b'{"v":1,"id":"a","schema":"points","created_at":1767225600.0,"payload":{"x":1.5,"y":0.0}}'
    )


# -- what is refused before it is sent ------------------------------------------------------------


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf"), [1.0, {"deep": float("nan")}]])
def test_what_json_cannot_carry_is_refused(value: object) -> None:
    """NaN and infinity would turn into null on the way, or not be JSON at all (PUB-6)."""
    with pytest.raises(InvalidPayload, match="payload: NaN and infinity can't be written as JSON"):
        encode(job_from_schema(FREE, {"value": value}), FREE)


@pytest.mark.parametrize(
    "value", ["NaN", "Infinity", "-Infinity", "null", "1e999", None, '"x": NaN', "9" * 500]
)
def test_a_string_that_merely_looks_like_it_is_accepted(value: object) -> None:
    """Words inside a string are no numbers, and null is a value like any other."""
    job = job_from_schema(FREE, {"value": value})

    assert decode(encode(job, FREE), FREE).payload.value == value


@pytest.mark.parametrize(
    ("value", "reason"),
    [
        ("\ud800", "UnicodeEncodeError: 'utf-8' codec can't encode character .* surrogates not allowed"),
        (b"\xff", "invalid utf-8 sequence .*; declare a field for bytes as bytes"),
        (object(), "object has no form in JSON; save it and publish its path, or use plain values"),
    ],
)
def test_what_has_no_json_form_is_refused(value: object, reason: str) -> None:
    """Half a surrogate pair, raw bytes and foreign objects are named as what they are (PUB-6)."""
    with pytest.raises(InvalidPayload, match=f"^payload: can't be written as JSON: {reason}$"):
        encode(job_from_schema(FREE, {"value": value}), FREE)


def nested(levels: int, core: object = 1) -> object:
    return nested(levels - 1, [core]) if levels else core


@pytest.mark.parametrize("core", [1, None, "NaN"])
def test_a_payload_nests_as_deep_as_a_consumer_reads(core: object) -> None:
    """62 levels of a value, its payload and the envelope make 64; one more is refused as too deep (PUB-6)."""
    assert encode(job_from_schema(FREE, {"value": nested(62, core)}), FREE)
    with pytest.raises(MalformedBody, match="nested deeper than 64 levels"):
        encode(job_from_schema(FREE, {"value": nested(63, core)}), FREE)


@pytest.mark.parametrize("beside", [1, None])
def test_a_number_is_as_long_as_a_consumer_reads(beside: object) -> None:
    """200 digits pass, 201 are refused as too many, whatever stands beside them (PUB-6)."""
    assert encode(job_from_schema(FREE, {"value": [10**199, beside]}), FREE)
    with pytest.raises(MalformedBody, match="a number of more than 200 digits"):
        encode(job_from_schema(FREE, {"value": [10**200, beside]}), FREE)


def test_a_body_of_5_mb_is_refused() -> None:
    """The message says how large it is and what the limit is (PUB-6)."""
    job = job_from_schema(FREE, {"value": "x" * 5_000_000})

    with pytest.raises(BodyTooLarge, match=r"body of 5,000,\d\d\d bytes: the limit is 1,048,576 bytes"):
        encode(job, FREE)


def test_a_payload_built_past_its_validators_is_refused() -> None:
    """Better to hear of it here than in a dead letter (PUB-6)."""
    unchecked = Point.model_construct(x="one")

    with (
        pytest.warns(UserWarning, match="serializer"),
        pytest.raises(InvalidPayload, match="x: Input should"),
    ):
        encode(job_from_schema(POINTS, unchecked), POINTS)


def test_a_payload_that_is_written_otherwise_than_it_is_read_is_refused() -> None:
    """A serializer that its own model can't read would dead-letter every job (PUB-6)."""

    class OneWay(BaseModel):
        x: int

        @field_serializer("x")
        def write(self, x: int) -> str:
            return f"no. {x}"

    schema = JobSchema("one-way", OneWay)

    with pytest.raises(InvalidPayload, match="payload, as a consumer would read it: doesn't fit OneWay"):
        encode(job_from_schema(schema, {"x": 1}), schema)


def test_a_serializer_that_raises_is_a_refusal() -> None:
    """Whatever a model's own code does while it is written, the error is typed (PUB-6)."""

    class Broken(BaseModel):
        x: int

        @field_serializer("x")
        def write(self, x: int) -> str:
            raise LookupError("no such thing")

    schema = JobSchema("broken", Broken)

    with pytest.raises(InvalidPayload, match=r"payload: can't be written as JSON: .*no such thing"):
        encode(job_from_schema(schema, {"x": 1}), schema)


def test_a_result_travels_like_a_payload() -> None:
    """Encoded by its model, decoded by its model, refused by its name (RES-1)."""
    assert decode_model("result", Point, encode_model("result", Point(x=1.5))) == Point(x=1.5)
    with pytest.raises(InvalidPayload, match=r"result: doesn't fit Point \(x: "):
        decode_model("result", Point, b'{"x":"one"}')


# -- what is refused when it arrives --------------------------------------------------------------

GOOD: dict[str, Any] = {"v": 1, "id": "a", "schema": "points", "created_at": 1.0, "payload": {"x": 1.5}}


def body(**changes: Any) -> bytes:
    return json.dumps({k: v for k, v in {**GOOD, **changes}.items() if v is not ...}).encode()


@pytest.mark.parametrize(
    ("changes", "rule"),
    [
        ({"v": 2}, "envelope version 2: this release reads version 1"),
        ({"v": ...}, "envelope version None"),
        ({"id": ...}, "envelope without 'id'"),
        ({"schema": ...}, "envelope without 'schema'"),
        ({"created_at": ...}, "envelope without 'created_at'"),
        ({"payload": ...}, "envelope without 'payload'"),
        ({"__class__": "os.system"}, "envelope with an unknown field '__class__'"),
        ({"attempt": 1}, "envelope with an unknown field 'attempt'"),
        ({"payload": [1]}, "the payload isn't a JSON object"),
        ({"schema": "other"}, "job of schema 'other', expected 'points'"),
        ({"schema": 7}, "job of schema 7, expected 'points'"),
        ({"id": "a b"}, "envelope: job id 'a b': use 1 to 128 characters"),
        ({"id": ["a"]}, r"envelope: job id \['a'\]: use 1 to 128 characters"),
        ({"created_at": "now"}, "created_at: must be seconds since 1970"),
        ({"created_at": True}, "created_at: must be seconds since 1970"),
        ({"created_at": 1e300}, "created_at: must be seconds since 1970"),
        ({"created_at": -1e10}, "envelope: created_at .*: must be from 1970 to 9998"),
        ({"not_before": []}, "not_before: must be seconds since 1970"),
        ({"priority": 10}, "envelope: priority 10: must be an integer from 0 to 9"),
        ({"priority": None}, "envelope: priority None: must be an integer from 0 to 9"),
        ({"max_attempts": 0}, "envelope: max_attempts 0: must be an integer from 1"),
        ({"timeout_s": 0}, "envelope: timeout_s 0: must be more than 0 seconds"),
        ({"timeout_s": 1e300}, "envelope: timeout_s 1e\\+300: must be a number of seconds"),
        ({"timeout_s": "5"}, "envelope: timeout_s '5': must be a number of seconds"),
        ({"headers": [1]}, "envelope: headers: must be a mapping"),
        ({"headers": {"a": 1}}, "envelope: header 'a': the name and the value must be strings"),
    ],
)
def test_a_field_out_of_place_is_refused(changes: dict[str, Any], rule: str) -> None:
    """One field wrong makes the whole body malformed, by that field's name (RCV-4, SEC-1)."""
    assert decode(body(), POINTS).payload == Point(x=1.5)
    with pytest.raises(MalformedBody, match=rule):
        decode(body(**changes), POINTS)


def test_a_payload_that_does_not_fit_is_refused_when_it_arrives() -> None:
    """A publisher of another release may have sent it (RCV-4)."""
    with pytest.raises(InvalidPayload, match=r"payload: doesn't fit Point \(x: "):
        decode(body(payload={"x": "one"}), POINTS)


@pytest.mark.parametrize("changes", [{"id": ["a"]}, {"schema": {}}, {"id": "a b"}])
def test_even_without_a_schema_a_name_must_be_a_name(changes: dict[str, Any]) -> None:
    """What a listing shows of a stranger's body is at least of the right type (SEC-2)."""
    with pytest.raises(MalformedBody, match=r"envelope: (job id|schema name) "):
        open_envelope(body(**changes))


def test_a_validator_sees_the_payload_as_json() -> None:
    """The consumer's model reads JSON, so that strict models take what JSON can say."""

    class Upper(BaseModel):
        word: str

        @field_validator("word")
        @classmethod
        def shout(cls, word: str) -> str:
            return word.upper()

    schema = JobSchema("upper", Upper)
    job = job_from_schema(schema, {"word": "hi"})

    assert decode(encode(job, schema), schema).payload.word == "HI"


def test_a_model_that_is_built_when_it_is_first_used_is_read_as_any_other() -> None:
    """Its schema isn't there when the first body comes."""

    class Late(JobInput):
        model_config = ConfigDict(defer_build=True)

        x: float

    schema = JobSchema("late", Late)
    body = b'{"v":1,"id":"a","schema":"late","created_at":1.5,"payload":{"x":1.5}}'

    assert [decode(body, schema).payload.x for _ in range(3)] == [1.5] * 3


def test_what_most_bodies_are_is_read_in_one_pass(monkeypatch: pytest.MonkeyPatch) -> None:
    """Written by encode, of nested models, whatever their strings hold (ADR 24)."""

    class Box(JobInput):
        points: list[Point]
        path: str
        colour: Colour
        due: datetime
        size: Decimal | None = None

    schema = JobSchema("boxes", Box)
    box = Box(points=[Point(x=1.0), Point()], path='s3://IMG/":{é', colour=Colour.RED, due=datetime.now(UTC))
    job = job_from_schema(
        schema, box, priority=3, max_attempts=5, not_before=datetime.now(UTC), timeout_s=0.5
    )
    body = encode(job, schema)
    monkeypatch.setattr("mindtrace.jobs.domain.envelope._read_fields", None)

    read = decode(body, schema, attempt=2)

    assert read == replace(job, attempt=2)
    assert type(read.payload) is Box
    assert read.headers == {}


class Kind(str, Enum):  # noqa: UP042 - whose str() isn't its value
    """Names as some keep them."""

    POINTS = "points"


def test_a_name_may_be_of_a_class_derived_from_str() -> None:
    """What is written is the name itself, not what its class makes of it."""
    schema = JobSchema(Kind.POINTS, Point)
    job = job_from_schema(schema, Point(), id=Kind.POINTS)

    body = encode(job, schema)

    assert json.loads(body)["id"] == json.loads(body)["schema"] == "points"
    assert decode(body, schema) == job


def test_a_moment_that_would_be_read_as_too_late_is_refused() -> None:
    """A float of it is the end of the year, though it isn't."""
    nearly = datetime(9998, 12, 31, 23, 59, 59, 999_999, UTC)

    with pytest.raises(InvalidJob, match="9998"):
        Job(schema_name="points", payload=Point(), created_at=nearly)
    job = Job(schema_name="points", payload=Point(), created_at=nearly.replace(microsecond=999_000))
    assert decode(encode(job, POINTS), POINTS).created_at < nearly


@pytest.mark.parametrize("headers", [{}, {"traceparent": "00-1"}], ids=["", "headers"])
@pytest.mark.parametrize("delay_s", [None, 60.0])
def test_a_job_waits_since_its_publish_or_the_end_of_its_delay(
    headers: dict[str, str], delay_s: float | None
) -> None:
    job = job_from_schema(POINTS, Point())
    due = None if delay_s is None else job.created_at + timedelta(seconds=delay_s)
    body = encode(replace(job, not_before=due, headers=headers), POINTS)
    assert waits_since(body) == (due or job.created_at).timestamp()


@pytest.mark.parametrize("text", [b"", b"{}", b"no job", b'{"v":1}'])
def test_what_is_no_job_waits_since_no_moment(text: bytes) -> None:
    assert waits_since(text) is None
