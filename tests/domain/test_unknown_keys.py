"""A dict with a key that its model doesn't know is a typing error, unless the model says otherwise."""

from collections.abc import Mapping
from typing import Annotated, Any

import pytest
from pydantic import (
    AliasChoices,
    AliasPath,
    BaseModel,
    BeforeValidator,
    ConfigDict,
    Field,
    RootModel,
    computed_field,
    field_validator,
    model_validator,
)

from mindtrace.jobs import JobInput, JobSchema, job_from_schema
from mindtrace.jobs.domain.envelope import decode
from mindtrace.jobs.domain.errors import InvalidPayload


class Size(JobInput):
    width: int = 0
    height: int = 0


class Circle(JobInput):
    radius: int


class Tags(RootModel[dict[str, Size]]):
    pass


class Image(JobInput):
    path: str = ""
    threshold: float = 0.5
    size: Size = Size()
    sizes: list[Size] = Field([])
    named: dict[str, Size] = Field({})
    shape: Size | Circle | None = None
    tags: Tags = Tags({})
    free: dict[str, Any] = Field({})
    extra: Any = None


def accepted(model: type[BaseModel], data: Mapping[str, Any]) -> Any:
    return job_from_schema(JobSchema("images", model), data).payload


@pytest.mark.parametrize(
    ("data", "problem"),
    [
        ({"treshold": 1}, "unknown key 'treshold' (did you mean 'threshold'?)"),
        ({"size": {"widht": 1}}, "unknown key 'size.widht' (did you mean 'width'?)"),
        ({"sizes": [{}, {"hight": 1}]}, "unknown key 'sizes.1.hight' (did you mean 'height'?)"),
        ({"named": {"a": {"zzz": 1}}}, "unknown key 'named.a.zzz' (Size has height, width)"),
        ({"shape": {"radius": 1, "x": 2}}, "unknown key 'shape.x' (Circle has radius)"),
        ({"tags": {"a": {"zzz": 1}}}, "unknown key 'tags.a.zzz' (Size has height, width)"),
        ({1: 2}, "unknown key '1' (Image has extra, free, named, path, shape, size, sizes, tags, threshold)"),
        ({"a\n": 1, "b": 2}, r"unknown key 'a\n' (Image has extra, "),
    ],
)
def test_an_unknown_key_is_refused_with_what_it_resembles(data: dict[Any, Any], problem: str) -> None:
    """In models within models, too, by its path; values stay out of messages (PUB-6, SEC-3)."""
    with pytest.raises(InvalidPayload) as raised:
        accepted(Image, data)

    assert problem in str(raised.value)
    assert str(raised.value).startswith("payload: unknown key ")


@pytest.mark.parametrize(
    "data",
    [
        {},
        {"free": {"anything": {"at": "all"}}},
        {"extra": {"width": 1, "nothing": 2}},
        {"shape": {"width": 1}},
        {"shape": None, "size": Size()},
        {"named": {"any": {"width": 1}}},
    ],
)
def test_what_is_known_or_has_no_model_is_accepted(data: dict[str, Any]) -> None:
    accepted(Image, data)


def test_many_unknown_keys_are_counted() -> None:
    with pytest.raises(InvalidPayload, match=r"; and 95 more$"):
        accepted(Image, {f"key_{n}": n for n in range(100)})


def test_a_model_without_fields_says_so() -> None:
    with pytest.raises(InvalidPayload, match=r"unknown key 'path' \(JobInput has no fields\)"):
        accepted(JobInput, {"path": "a"})


def test_a_consumer_accepts_a_key_that_it_doesnt_know_yet() -> None:
    """Publishers of a newer release may be there first (RCV-4)."""
    body = (
        b'{"v":1,"id":"a","schema":"images","created_at":1.0,"payload":{"path":"a","new":1,"size":{"z":1}}}'
    )

    assert decode(body, JobSchema("images", Image)).payload == Image(path="a")


# -- models that say otherwise --------------------------------------------------------------------


class Ignoring(JobInput):
    model_config = ConfigDict(extra="ignore")

    path: str = ""
    size: Size = Size()


class Allowing(JobInput):
    model_config = ConfigDict(extra="allow")

    size: Size = Size()


class Reshaping(JobInput):
    path: str
    size: Size = Size()

    @model_validator(mode="before")
    @classmethod
    def accept_the_old_name(cls, data: Any) -> Any:
        return {"path": data["file"], **data} if "file" in data else data


def test_a_model_may_ignore_or_allow_unknown_keys() -> None:
    """If its config says so; the models within it decide for themselves."""
    assert accepted(Ignoring, {"path": "a", "other": 1}) == Ignoring(path="a")
    assert accepted(Allowing, {"other": 1}).other == 1
    for model in (Ignoring, Allowing):
        with pytest.raises(InvalidPayload, match=r"unknown key 'size\.x'"):
            accepted(model, {"other": 1, "size": {"x": 1}})


def test_a_model_that_forbids_them_refuses_in_pydantics_words() -> None:
    """As it did, and as its consumers do."""

    class Forbidding(JobInput):
        model_config = ConfigDict(extra="forbid")

    with pytest.raises(InvalidPayload, match="other: Extra inputs are not permitted"):
        accepted(Forbidding, {"other": 1})


def test_a_validator_of_the_whole_may_take_any_key() -> None:
    """What it makes of them isn't known, so only the models within are checked."""
    assert accepted(Reshaping, {"file": "a"}).path == "a"
    with pytest.raises(InvalidPayload, match=r"unknown key 'size\.x'"):
        accepted(Reshaping, {"file": "a", "size": {"x": 1}})


def by_words(value: Any) -> Any:
    return {"width": value["across"]} if isinstance(value, dict) and "across" in value else value


def test_a_validator_of_a_field_may_take_any_key_of_its_value() -> None:
    """Whether it is a method or an annotation."""

    class Method(JobInput):
        size: Size

        _read = field_validator("size", mode="before")(by_words)

    class Annotation(JobInput):
        size: Annotated[Size, BeforeValidator(by_words)]

    for model in (Method, Annotation):
        assert accepted(model, {"size": {"across": 3}}).size == Size(width=3)
        with pytest.raises(InvalidPayload, match="unknown key 'sise'"):
            accepted(model, {"size": {}, "sise": {}})


# -- names ----------------------------------------------------------------------------------------


class Aliased(JobInput):
    file: str = Field("", alias="path")
    choice: str = Field("", validation_alias=AliasChoices("choice", "option", AliasPath("options", 0)))


class Populated(JobInput):
    model_config = ConfigDict(populate_by_name=True)

    file: str = Field("", alias="path")


class Generated(JobInput):
    model_config = ConfigDict(alias_generator=str.upper)

    path: str = ""


@pytest.mark.parametrize(
    ("model", "data"),
    [
        (Aliased, {"path": "a"}),
        (Aliased, {"choice": "a"}),
        (Aliased, {"option": "a"}),
        (Aliased, {"options": ["a"]}),
        (Populated, {"path": "a"}),
        (Populated, {"file": "a"}),
        (Generated, {"PATH": "a"}),
    ],
)
def test_every_name_by_which_a_field_is_read_is_known(model: type[BaseModel], data: dict[str, Any]) -> None:
    """Aliases, choices, the first step of a path, and the name where the config says so."""
    assert "a" in accepted(model, data).model_dump().values()


def test_a_name_that_only_an_alias_reads_is_refused_with_the_alias() -> None:
    """Pydantic would take the default without a word."""
    with pytest.raises(InvalidPayload, match=r"unknown key 'file' \(Aliased reads file as 'path'\)"):
        accepted(Aliased, {"file": "a"})
    with pytest.raises(InvalidPayload, match=r"unknown key 'path' \(Generated reads path as 'PATH'\)"):
        accepted(Generated, {"path": "a"})


def test_a_dump_of_the_model_is_accepted() -> None:
    """With the fields that it computes, which nobody reads."""

    class Area(JobInput):
        side: int

        @computed_field  # type: ignore[prop-decorator]
        @property
        def area(self) -> int:
            return self.side**2

    class Holder(JobInput):
        value: Area

    assert accepted(Holder, Holder(value=Area(side=2)).model_dump()) == Holder(value=Area(side=2))


def test_a_typo_in_a_required_key_is_named_beside_what_is_missing() -> None:
    """Both in one message: the key that is missing, and the one that was meant."""

    class Image(JobInput):
        path: str

    with pytest.raises(
        InvalidPayload, match=r"path: Field required\); unknown key 'pth' \(did you mean 'path'\?\)"
    ):
        job_from_schema(JobSchema("images", Image), {"pth": "a.png"})
