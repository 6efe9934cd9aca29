"""Which jobs count as the same."""

from dataclasses import replace
from typing import Annotated, Any

import pytest
from pydantic import Field, PlainSerializer, model_validator

from mindtrace.jobs import AnyJSON, JobInput, JobSchema, Unique, UniqueField
from mindtrace.jobs.domain.errors import InvalidSchema
from mindtrace.jobs.domain.unique import digest


class Image(JobInput):
    path: str
    size: int = Field(default=1, alias="pixels")
    note: str = Field(default="", exclude=True)


def test_the_fields_are_known_by_the_names_under_which_they_are_written() -> None:
    schema = JobSchema("images", Image, unique=Unique(by=("path", "size")))
    assert schema.unique_names == ("path", "pixels")
    assert JobSchema("images", Image, unique=Unique(by="size")).unique_names == ("pixels",)
    assert Unique(by="path") == Unique(by=("path",)) == Unique(by=["path"])  # type: ignore[arg-type]
    assert JobSchema("images", Image, unique=Unique()).unique_names == ()
    assert JobSchema("images", Image).unique is None
    assert JobSchema("any", AnyJSON, unique=Unique(by=("whatever",))).unique_names == ("whatever",)


@pytest.mark.parametrize(
    ("make", "error", "message"),
    [
        (
            lambda: JobSchema("images", Image, unique=Unique(by=("paht",))),
            InvalidSchema,
            "has the fields path",
        ),
        (lambda: JobSchema("images", Image, unique=Unique(by=("note",))), InvalidSchema, "excluded"),
        (lambda: JobSchema("images", Image, unique=True), InvalidSchema, "must be a Unique"),
        (lambda: JobSchema("images", Image, unique=Unique(by="paht")), InvalidSchema, "has the fields path"),
        (lambda: Unique(by=""), InvalidSchema, "pass the name"),
        (lambda: Unique(by=5), InvalidSchema, "pass the name"),
        (lambda: Unique(by=(5,)), InvalidSchema, "pass the name"),
        (lambda: Unique(by=("path", "path")), InvalidSchema, "twice"),
        (lambda: Unique(period_s=0), InvalidSchema, "more than 0"),
        (lambda: Unique(period_s=-1), InvalidSchema, "period_s"),
        (lambda: Unique(debounce_s=0), InvalidSchema, "debounce_s 0: must be more than 0"),
        (lambda: Unique(debounce_s=True), InvalidSchema, "debounce_s"),
        (lambda: Unique(replace="newest"), InvalidSchema, "must be True, False or None"),
        (lambda: Unique(period_s=1, replace=True), InvalidSchema, "choose one"),
        (lambda: Unique(replace=False, debounce_s=5), InvalidSchema, "choose one: debouncing"),
        (lambda: Unique(period_s=1, debounce_s=1), InvalidSchema, "choose one"),
    ],
    ids=[
        *("no field", "excluded", "no Unique", "a wrong name", "an empty name", "a number", "of a number"),
        *("twice", "no period", "negative"),
        *("no debounce", "a bool", "replace by a word", "period and replace"),
        *("no replace and debounce", "period and debounce"),
    ],
)
def test_what_cannot_be_unique_is_refused_when_the_schema_is_made(
    make: Any, error: Any, message: str
) -> None:
    with pytest.raises(error, match=message):
        make()


class Marked(JobInput):
    path: Annotated[str, UniqueField()]
    size: Annotated[int, Field(ge=0), UniqueField] = Field(default=1, alias="pixels")
    note: str = ""


class MarkedWithin(JobInput):
    path: Annotated[str, UniqueField()] | None = None


class MarkedAndExcluded(JobInput):
    note: Annotated[str, UniqueField()] = Field(default="", exclude=True)


class MarkedAgain(Marked):
    note: Annotated[str, UniqueField()] = ""


def test_marked_fields_count_unless_the_schema_names_others() -> None:
    def names(model: type[JobInput], **unique: Any) -> tuple[str, ...]:
        return JobSchema("images", model, unique=Unique(**unique)).unique_names

    assert names(Marked) == ("path", "pixels")
    assert names(Marked, period_s=60) == ("path", "pixels")
    assert names(Marked, by=("note",)) == ("note",)
    assert names(MarkedAgain) == ("path", "pixels", "note")
    assert JobSchema("images", Marked).unique is None
    assert Marked(path="a", pixels=3).size == 3
    with pytest.raises(InvalidSchema, match="mark the whole"):
        names(MarkedWithin)
    with pytest.raises(InvalidSchema, match="excluded"):
        names(MarkedAndExcluded)


class Tagged(JobInput):
    tags: set[str]
    others: dict[str, frozenset[int]] | None = None
    nested: list["Tagged"] | None = None
    path: str = "set"
    ordered: Annotated[set[str], PlainSerializer(sorted)]
    hidden: set[str] = Field(default=set(), exclude=True)

    @model_validator(mode="after")
    def check(self) -> "Tagged":
        return self


def test_a_field_that_holds_a_set_is_refused_unless_it_is_written_in_order() -> None:
    for name in ("tags", "others", "nested"):
        with pytest.raises(InvalidSchema, match=f"unique by '{name}', which holds a set"):
            JobSchema("images", Tagged, unique=Unique(by=name))
    with pytest.raises(InvalidSchema, match="unique by 'tags', which holds a set"):
        JobSchema("images", Tagged, unique=Unique())
    assert JobSchema("images", Tagged, unique=Unique(by=("path", "ordered"))).unique_names
    assert JobSchema("images", Tagged).unique is None


def test_the_order_of_fields_does_not_count_and_their_values_do() -> None:
    assert digest({"a": 1, "b": {"x": 1, "y": 2}}, ()) == digest({"b": {"y": 2, "x": 1}, "a": 1}, ())
    assert digest({"a": 1, "b": 2}, ("a",)) == digest({"a": 1, "b": 3}, ("a",))
    assert digest({"a": 1}, ()) != digest({"a": "1"}, ())
    assert digest({"a": None}, ("a",)) != digest({}, ("a",))
    assert len({digest({"a": value}, ()) for value in (0, 1, "", "ü", "😀", [1], {"a": 1})}) == 7


def test_a_copy_with_another_option_means_what_it_says() -> None:
    assert replace(Unique(by="path"), debounce_s=3.0).replaces
    assert not replace(Unique(by="path", debounce_s=3.0), debounce_s=None).replaces
    assert replace(Unique(by="path", replace=True, debounce_s=3.0), debounce_s=None).replaces
