"""A class that was defined again is told from another model, and what differs is named."""

from datetime import datetime
from enum import StrEnum
from typing import Annotated, Any

import pytest
from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, create_model
from pydantic.errors import PydanticInvalidForJsonSchema
from pydantic_core import core_schema

from mindtrace.jobs import JobInput
from mindtrace.jobs.domain.model_changes import changes


def image(name: str = "Image", base: type[BaseModel] = JobInput, **fields: Any) -> type[BaseModel]:
    return create_model(name, __base__=base, **{"path": (str, ...), **fields})


class Opaque:
    pass


class Silent(int):
    """Has no JSON schema, and says so itself."""

    @classmethod
    def __get_pydantic_core_schema__(cls, source: Any, handler: Any) -> Any:
        return core_schema.int_schema()

    @classmethod
    def __get_pydantic_json_schema__(cls, schema: Any, handler: Any) -> Any:
        raise PydanticInvalidForJsonSchema("none")


WITH_OPAQUE = Annotated[Opaque, BeforeValidator(lambda value: value), PlainSerializer(lambda value: 1)]


class Arbitrary(JobInput):
    model_config = ConfigDict(arbitrary_types_allowed=True)


class Forbidding(JobInput):
    model_config = ConfigDict(extra="forbid")


def colours(*names: str) -> Any:
    return StrEnum("Colour", list(names))


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (image(), image()),
        (image(size=(int, 3)), image(size=(int, 3))),
        (image(size=(image("Size"), ...)), image(size=(image("Size"), ...))),
        (
            image(path=(str, Field(description="where"))),
            image(path=(str, Field(title="Where", examples=["a"]))),
        ),
        (image(colour=(colours("RED"), ...)), image(colour=(colours("RED"), ...))),
        (image(base=Arbitrary, value=(WITH_OPAQUE, ...)), image(base=Arbitrary, value=(WITH_OPAQUE, ...))),
        (image(value=(Silent, ...)), image(value=(Silent, ...))),
        (image(title=(str, "x"), description=(str, "y")), image(title=(str, "x"), description=(str, "y"))),
        (
            image(at=(datetime, Field(default_factory=datetime.now))),
            image(at=(datetime, Field(default_factory=datetime.now))),
        ),
    ],
)
def test_a_class_that_was_defined_again_is_the_same(before: type[BaseModel], after: type[BaseModel]) -> None:
    """Whatever is said to readers only, or is code."""
    assert before is not after
    assert changes(before, after) == changes(after, before) == ()


@pytest.mark.parametrize(
    ("before", "after", "said"),
    [
        (image(), image("Picture"), ["Picture is another model than Image"]),
        (image(), image(size=(int, 0)), ["Image.size was added"]),
        (image(size=(int, 0), z=(int, 0)), image(), ["Image.size was removed", "Image.z was removed"]),
        (
            image(size=(int, ...)),
            image(size=(str, ...)),
            ["Image.size was changed from required type: integer to required type: string"],
        ),
        (
            image(size=(int, 3)),
            image(size=(int, ...)),
            ["Image.size was changed from default: 3, type: integer to required type: integer"],
        ),
        (
            image(size=(image("Size"), ...)),
            image(size=(image("Size", unit=(str, "mm")), ...)),
            ["Size.unit was added"],
        ),
        (
            image(colour=(colours("RED"), ...)),
            image(colour=(colours("RED", "BLUE"), ...)),
            ['Colour was changed from {"enum": ["red"], "type": "string"} to {"enum": ["red", "blue"], '],
        ),
        (image(), image(base=Forbidding), ["Image was changed from "]),
        (
            image(title=(str, "x")),
            image(title=(int, 1)),
            ["Image.title was changed from default: x, type: string"],
        ),
        (
            image(value=(Any, ...)),
            image(value=(int, ...)),
            ["Image.value was changed from required anything to "],
        ),
    ],
)
def test_what_differs_is_named(before: type[BaseModel], after: type[BaseModel], said: list[str]) -> None:
    """By model and field, shortly."""
    found = changes(before, after)

    assert len(found) == len(said)
    for sentence, start in zip(found, said, strict=True):
        assert sentence.startswith(start)
        assert len(sentence) < 400
