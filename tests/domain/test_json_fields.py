"""What JSON can't carry is refused when the schema is made, by the name of the field and with what to do."""

import re
from base64 import b64encode
from collections import OrderedDict, defaultdict, deque
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from enum import Enum, IntEnum, StrEnum
from ipaddress import IPv4Address
from pathlib import Path, PurePosixPath
from typing import Annotated, Any, Literal, NamedTuple, Optional
from uuid import UUID

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    Base64Bytes,
    BaseModel,
    BeforeValidator,
    ByteSize,
    ConfigDict,
    Field,
    Json,
    PlainSerializer,
    RootModel,
    Secret,
    SecretBytes,
    SecretStr,
    create_model,
    field_serializer,
    field_validator,
    model_validator,
)
from typing_extensions import TypedDict

from mindtrace.jobs import JobInput, JobOutput, JobSchema, job_from_schema
from mindtrace.jobs.domain.envelope import decode, encode
from mindtrace.jobs.domain.errors import InvalidPayload, InvalidSchema


class Colour(StrEnum):
    RED = "red"


class Number(IntEnum):
    ONE = 1


class Mixed(Enum):
    WORD = "word"
    NUMBER = 1.5


class Corners(Enum):
    LEFT = (0, 0)


class Array:
    """Like an ndarray: no pydantic model knows it."""

    def __init__(self, items: list[float]) -> None:
        self.items = items

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Array) and other.items == self.items

    __hash__ = None  # type: ignore[assignment]


@dataclass
class Size:
    width: int
    label: bytes = b""


@dataclass
class Encoded(Size):
    __pydantic_config__ = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Pair(NamedTuple):
    left: int
    right: datetime


class Words(TypedDict):
    word: str
    raw: bytes


class Inner(JobInput):
    raw: bytes
    at: datetime | None = None


class Words2(RootModel[list[bytes]]):
    model_config = ConfigDict(ser_json_bytes="base64", val_json_bytes="base64")


class Node(JobInput):
    raw: bytes
    children: "list[Node]" = Field([])


class Free(JobInput):
    model_config = ConfigDict(arbitrary_types_allowed=True)


def of(annotation: Any, base: type[BaseModel] = Free) -> type[BaseModel]:
    return create_model("Image", __base__=base, value=(annotation, ...))


EVERY_BYTE = bytes(range(256))
MOMENT = datetime.fromisoformat("2026-01-02T03:04:05.678901+02:00")
AN_ID = UUID("12345678123456781234567812345678")

KEPT: list[tuple[Any, Any]] = [
    (bytes, EVERY_BYTE),
    (bytes | None, EVERY_BYTE),
    (list[bytes], [b"", b"\xff", EVERY_BYTE]),
    (dict[str, bytes], {"a": EVERY_BYTE}),
    (dict[bytes, int], {EVERY_BYTE: 1}),
    (tuple[bytes, ...], (b"\xff", b"text")),
    (set[bytes], {b"\xff"}),
    (Annotated[bytes, Field(max_length=300)], EVERY_BYTE),
    (bytes | int, EVERY_BYTE),
    (Inner, Inner(raw=EVERY_BYTE, at=MOMENT)),
    (Optional[Inner], Inner(raw=EVERY_BYTE)),  # noqa: UP045 - as some write it
    (list[Inner], [Inner(raw=b"\xff")]),
    (Node, Node(raw=b"\xff", children=[Node(raw=b"\xfe")])),
    (Words2, Words2([b"\xff"])),
    (Encoded, Encoded(3, EVERY_BYTE)),
    (Pair, Pair(1, MOMENT)),
    (Words, {"word": "a", "raw": EVERY_BYTE}),
    (Base64Bytes, b64encode(EVERY_BYTE)),
    (datetime, MOMENT),
    (datetime, datetime(2026, 1, 2)),
    (date, date(2026, 1, 2)),
    (time, time(1, 2, 3, 4)),
    (timedelta, timedelta(days=-3, microseconds=7)),
    (UUID, AN_ID),
    (Colour, Colour.RED),
    (Number, Number.ONE),
    (Mixed, Mixed.NUMBER),
    (dict[Colour, Number], {Colour.RED: Number.ONE}),
    (Literal["a", 1, None], 1),
    (Decimal, Decimal("1.10")),
    (Decimal, Decimal(10) ** 40),
    (Path, Path("/a/b c/é.png")),
    (PurePosixPath, PurePosixPath("a/../b")),
    (IPv4Address, IPv4Address("127.0.0.1")),
    (ByteSize, ByteSize(1024)),
    (complex, 1 + 2j),
    (re.Pattern, re.compile("a+")),
    (int, 2**80),
    (float, 0.1),
    (bool, True),
    (str, "\x00\u2028é😀"),
    (list, [1, "a", None]),
    (dict, {"a": [1]}),
    (Any, {"a": [1, None, {"b": 1.5}]}),
    (object, "text"),
    (tuple[int, str], (1, "a")),
    (set[int], {1, 2}),
    (frozenset[str], frozenset({"a"})),
    (deque[int], deque([1, 2])),
    (OrderedDict[str, int], OrderedDict(a=1)),
    (defaultdict[str, list[int]], defaultdict(list, a=[1])),
    (Sequence[int], [1, 2]),
    (Mapping[str, int], {"a": 1}),
    (Hashable, "text"),
]


@pytest.mark.parametrize(("annotation", "value"), KEPT, ids=[f"{a} {n}" for n, (a, _) in enumerate(KEPT)])
def test_a_field_arrives_as_it_was(annotation: Any, value: Any) -> None:
    """Of the same type and value, after one pass and after the slow one that a body with headers takes."""
    schema = JobSchema("images", of(annotation, JobInput))
    for headers in ({}, {"trace": "1"}):
        job = job_from_schema(schema, {"value": value}, headers=headers)

        read = decode(encode(job, schema), schema)

        assert read == job
        assert type(read.payload.value) is type(job.payload.value)


def custom(array: object) -> Any:
    return array if isinstance(array, Array) else Array(array)  # type: ignore[arg-type]


Readable = Annotated[Array, BeforeValidator(custom), PlainSerializer(lambda array: array.items)]


def test_an_object_with_a_validator_and_a_serializer_of_its_own_travels() -> None:
    """The usual way to have arrays in a model."""
    schema = JobSchema("images", of(Readable), of(Readable))
    job = job_from_schema(schema, {"value": Array([1.5])})

    assert decode(encode(job, schema), schema).payload.value == Array([1.5])


def test_a_field_that_is_never_written_may_be_anything() -> None:
    """It isn't sent, and the handler sees its default."""

    class Image(Free):
        path: str
        cache: Array | None = Field(None, exclude=True)

    schema = JobSchema("images", Image)
    job = job_from_schema(schema, Image(path="a", cache=Array([])))

    assert decode(encode(job, schema), schema).payload == Image(path="a")


class Plain(BaseModel):
    raw: bytes


class PlainEncoded(BaseModel):
    raw: Base64Bytes


class OneSided(JobInput):
    model_config = ConfigDict(val_json_bytes="utf8")

    raw: bytes


class Wrapped(JobInput):
    @model_validator(mode="before")
    @classmethod
    def accept(cls, data: Any) -> Any:
        return data


class TwoNames(JobInput):
    y: int = Field(0, serialization_alias="why")


AN_OBJECT = (
    "is of type Array, which JSON can't carry: save it and publish its path, or give the field a validator"
)
AS_TEXT = (
    "is bytes, of which Image keeps only text: derive it from JobInput or JobOutput, or give it model_config"
)
A_SECRET = "is a secret, which pydantic writes as asterisks"

REFUSED: dict[str, tuple[type[BaseModel], str]] = {
    "an object": (of(Array), f"field 'value' {AN_OBJECT}"),
    "an object or none": (of(Array | None), f"field 'value' {AN_OBJECT}"),
    "a list of objects": (of(list[Array]), f"field 'value' {AN_OBJECT}"),
    "an object beside a number": (of(int | Array), f"field 'value' {AN_OBJECT}"),
    "an object in a model": (of(of(Array)), f"field 'value.value' {AN_OBJECT}"),
    "an object in a dict of models": (of(dict[str, of(Array)]), f"field 'value.value' {AN_OBJECT}"),  # type: ignore[misc]
    "an object that is read but not written": (
        of(Annotated[Array, BeforeValidator(custom)]),
        f"field 'value' {AN_OBJECT}",
    ),
    "an object that is written but not read": (
        of(Annotated[Array, PlainSerializer(lambda array: array.items)]),
        f"field 'value' {AN_OBJECT}",
    ),
    "a callable": (
        of(Callable[[int], int]),
        "field 'value' is a Callable, which JSON can't carry: publish the name",
    ),
    "a class": (of(type[Array]), "field 'value' is a class, which JSON can't carry: publish its name"),
    "an iterable": (of(Iterable[int]), "field 'value' is an Iterable or a Generator"),
    "JSON in JSON": (of(Json[list[int]]), "field 'value' is a Json, which isn't written as it is read"),
    "an enum of tuples": (of(Corners), "field 'value' is Corners, whose value LEFT JSON can't carry"),
    "bytes or a string": (of(bytes | str), "field 'value' is str or bytes, which JSON can't tell apart"),
    "bytes of a plain model": (of(bytes, BaseModel), f"field 'value' {AS_TEXT}"),
    "bytes in a list": (of(list[bytes], BaseModel), f"field 'value' {AS_TEXT}"),
    "bytes in a dataclass": (
        of(Size, BaseModel),
        "field 'value.label' is bytes, of which Size keeps only text: give it __pydantic_config__ =",
    ),
    "bytes of a plain model within": (
        of(Plain),
        "field 'value.raw' is bytes, of which Plain keeps only text",
    ),
    "bytes that are read otherwise": (OneSided, "field 'raw' is bytes, of which OneSided keeps only text"),
    "bytes behind a validator": (
        of(Plain, Wrapped),
        "field 'value.raw' is bytes, of which Plain keeps only text",
    ),
    "encoded bytes that are encoded twice": (of(PlainEncoded), "field 'value.raw' is bytes"),
    "a secret": (of(SecretStr), f"field 'value' {A_SECRET}"),
    "secret bytes": (of(SecretBytes), f"field 'value' {A_SECRET}"),
    "another secret": (of(Secret[date]), f"field 'value' {A_SECRET}"),
    "a secret or none": (of(SecretStr | None), f"field 'value' {A_SECRET}"),
    "secrets in a model in a list": (of(list[of(SecretStr)]), f"field 'value.value' {A_SECRET}"),  # type: ignore[misc]
    "two names in a model within": (of(TwoNames), "field 'value.y' is written as 'why' but read as 'y'"),
}


@pytest.mark.parametrize("role", ["input", "output"])
@pytest.mark.parametrize(("model", "rule"), REFUSED.values(), ids=REFUSED.keys())
def test_a_field_that_json_cannot_carry_is_refused(model: type[BaseModel], rule: str, role: str) -> None:
    """When the schema is made, and for what comes back as for what is sent."""
    with pytest.raises(InvalidSchema, match=re.escape(f"schema 'images': {role} {rule}")):
        JobSchema("images", **{"input": JobInput, role: model})


def test_a_model_that_is_not_finished_is_refused() -> None:
    """Rather than at the first publish."""

    class Late(JobInput):
        inner: "NotYet"  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(
        InvalidSchema, match=r"input Late refers to a class that isn't defined yet: .*model_rebuild"
    ):
        JobSchema("images", Late)


# -- secrets --------------------------------------------------------------------------------------


class Upload(JobInput):
    tokens: list[SecretStr]

    @field_serializer("tokens")
    def write_in_clear(self, tokens: list[SecretStr]) -> list[str]:
        return [token.get_secret_value() for token in tokens]


def test_a_secret_travels_if_its_owner_says_so() -> None:
    """By a serializer; the handler then has the true value, and asterisks still show."""
    schema = JobSchema("uploads", Upload)

    read = decode(encode(job_from_schema(schema, {"tokens": ["hunter2"]}), schema), schema).payload

    assert [token.get_secret_value() for token in read.tokens] == ["hunter2"]
    assert "hunter2" not in repr(read)


# -- names ----------------------------------------------------------------------------------------


class Renamed(JobInput):
    file: str = Field(validation_alias=AliasChoices("file", "path", AliasPath("files", 0)))


class ByName(JobInput):
    model_config = ConfigDict(populate_by_name=True)

    file: str = Field(validation_alias="path")


class OneAlias(JobInput):
    file: str = Field(alias="path")


@pytest.mark.parametrize("model", [Renamed, ByName, OneAlias])
@pytest.mark.parametrize("nested", [False, True])
def test_a_field_may_have_several_names_if_it_is_read_as_it_is_written(model: Any, nested: bool) -> None:
    """So that consumers take the old name and the new one."""
    data = {"path": "a.png"}
    schema = JobSchema("files", of(model) if nested else model)
    job = job_from_schema(schema, {"value": data} if nested else data)

    assert decode(encode(job, schema), schema) == job


@pytest.mark.parametrize(
    "alias",
    [AliasChoices("path", "name"), AliasPath("file", 0), AliasChoices(AliasPath("file", "name"), "path")],
)
def test_a_field_that_is_not_read_as_it_is_written_is_refused(alias: Any) -> None:
    """Also where a path into a value begins with its name."""
    model = create_model("Image", __base__=JobInput, file=(str, Field(validation_alias=alias)))

    with pytest.raises(InvalidSchema, match="field 'file' is written as 'file' but read as Alias"):
        JobSchema("files", model)


# -- values without a type ------------------------------------------------------------------------


class Loose(JobInput):
    value: Any = None
    raw: bytes = b""
    more: dict[str, Any] = Field({})


class Open(JobInput):
    model_config = ConfigDict(extra="allow")


@pytest.mark.parametrize(
    ("model", "data", "where"),
    [
        (Loose, {"value": b"text"}, "value"),
        (Loose, {"value": EVERY_BYTE}, "value"),
        (Loose, {"value": [1, {"deep": bytearray(b"x")}]}, "value.1.deep"),
        (Loose, {"more": {"a": (b"x",)}}, "more.a.0"),
        (Loose, {"value": {b"key": 1}}, "value.b'key'"),
        (Loose, {"value": {b"x"}}, "value.0"),
        (Loose, {"raw": b"typed", "value": b"x"}, "value"),
        (Open, {"anything": b"x"}, "anything"),
        (of(list), {"value": [b"x"]}, "value.0"),
        (of(Loose), {"value": {"value": b"x"}}, "value.value"),
    ],
)
def test_bytes_without_a_type_are_refused(model: type[BaseModel], data: dict[str, Any], where: str) -> None:
    """JSON would make a string of them, and nobody would make it bytes again (PUB-6)."""
    schema = JobSchema("loose", model)

    with pytest.raises(
        InvalidPayload, match=f"payload: {where} is bytes in a field without a type, .* as bytes$"
    ):
        encode(job_from_schema(schema, data), schema)


def test_bytes_with_a_type_are_fine_beside_values_without() -> None:
    """And what JSON has no type for is what JSON makes of it."""
    schema = JobSchema("loose", Loose)
    job = job_from_schema(schema, {"raw": EVERY_BYTE, "value": {"at": MOMENT, "pair": (1, 2)}})

    read = decode(encode(job, schema), schema).payload

    assert read.raw == EVERY_BYTE
    assert read.value == {"at": MOMENT.isoformat(), "pair": [1, 2]}


@pytest.mark.parametrize("value", [Array([]), {"deep": [Array([])]}, custom, Array])
def test_an_object_without_a_type_is_refused_with_what_to_do(value: object) -> None:
    """Its class is named, and what to publish instead (PUB-6)."""
    schema = JobSchema("loose", Loose)

    with pytest.raises(
        InvalidPayload, match=r"^payload: can't be written as JSON: .* has no form in JSON; save it"
    ):
        encode(job_from_schema(schema, {"value": value}), schema)


def test_a_string_given_for_bytes_is_base64_as_in_json() -> None:
    """As the command line passes it."""
    schema = JobSchema("loose", Loose)

    assert job_from_schema(schema, {"raw": b64encode(EVERY_BYTE).decode()}).payload.raw == EVERY_BYTE
    with pytest.raises(InvalidPayload, match="raw: Data should be valid base64"):
        job_from_schema(schema, {"raw": "no base64!"})


def test_an_output_is_checked_as_an_input_is() -> None:
    """Both are told apart in the schema, and its equality doesn't depend on it."""
    schema = JobSchema("loose", JobInput, create_model("Out", __base__=JobOutput, value=(Any, None)))

    assert (schema.has_untyped_input, schema.has_untyped_output) == (False, True)
    assert "untyped" not in repr(schema)


def test_a_validator_of_a_field_that_makes_the_object_is_enough_with_a_serializer() -> None:
    """Declared as methods of the model."""

    class Image(Free):
        value: Array

        @field_validator("value", mode="before")
        @classmethod
        def read(cls, value: Any) -> Array:
            return custom(value)  # type: ignore[no-any-return]

        @field_serializer("value")
        def write(self, value: Array) -> list[float]:
            return value.items

    schema = JobSchema("images", Image)
    job = job_from_schema(schema, {"value": [2.5]})

    assert decode(encode(job, schema), schema).payload.value == Array([2.5])
