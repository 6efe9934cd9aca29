"""A schema takes classes, instances and aliases, and refuses what can't make the journey."""

from collections.abc import Iterable
from datetime import timedelta
from typing import Any

import pytest
from pydantic import AliasChoices, BaseModel, ConfigDict, Field, RootModel, ValidationError

from mindtrace.jobs import DeadJob, Job, JobInput, JobOutput, JobSchema, RetryPolicy, Then, job_from_schema
from mindtrace.jobs.domain.errors import InvalidInput, InvalidName, InvalidPayload, InvalidSchema
from mindtrace.jobs.domain.schema import validate_model


class Point(JobInput):
    x: float = 0.0
    y: float = 0.0


class Total(JobOutput):
    total: float = 0.0


class Strict(JobInput):
    name: str
    count: int


SCHEMA = JobSchema(name="points", input=Point, output=Total)


@pytest.mark.parametrize(
    "models",
    [
        {"input": Point, "output": Total},
        {"input": Point(), "output": Total()},
        {"input": Point(x=7.0), "output": Total},
        {"input_schema": Point, "output_schema": Total},
        {"input_schema": Point(), "output": Total()},
    ],
)
def test_a_model_may_be_a_class_or_an_instance_under_either_name(models: dict[str, Any]) -> None:
    """All these are the same schema: the values of an instance aren't used."""
    assert JobSchema(name="points", **models) == SCHEMA
    assert JobSchema("points", **models) == SCHEMA


def test_the_output_may_be_left_out() -> None:
    """Then a result has no fields."""
    assert JobSchema("points", Point).output is JobOutput


def test_any_pydantic_model_will_do() -> None:
    """``JobInput`` is a convenience: the frozen model that refuses NaN."""

    class Plain(BaseModel):
        x: float

    assert job_from_schema(JobSchema("plain", Plain), {"x": 1}).payload == Plain(x=1)


def test_a_schema_cannot_be_changed() -> None:
    """It is shared between threads and orchestrators."""
    with pytest.raises(AttributeError):
        SCHEMA.name = "other"


def test_inputs_and_outputs_are_frozen_and_finite() -> None:
    """A payload can't change after it was validated, and JSON has no NaN."""
    with pytest.raises(ValidationError):
        Point().x = 1.0
    with pytest.raises(ValidationError):
        Point(x=float("nan"))
    with pytest.raises(ValidationError):
        Total(total=float("inf"))


class Streamed(BaseModel):
    """What a pydantic model reads once, an encoder would read away."""

    items: dict[str, Iterable[int]]


class StreamedLate(BaseModel):
    """Built when it is first used."""

    model_config = ConfigDict(defer_build=True)

    inner: Streamed | None = None


class Rooted(RootModel[list[int]]):
    pass


class Hidden(JobInput):
    secret: str = Field(exclude=True)


class TwoNames(JobInput):
    x: int = Field(serialization_alias="ex")


class ManyNames(JobInput):
    x: int = Field(validation_alias=AliasChoices("ex", "why"))


async def later(dead: DeadJob[Point]) -> Then:
    return Then(SCHEMA, Point(x=1.0, y=1.0))


@pytest.mark.parametrize(
    ("arguments", "rule"),
    [
        ({}, "schema 'points': input is missing"),
        ({"output": Total}, "schema 'points': input is missing"),
        ({"input": Point, "input_schema": Point}, "pass input or input_schema, not both"),
        ({"input": Point, "output": Total, "output_schema": Total}, "pass output or output_schema, not both"),
        ({"input": dict}, "input must be a pydantic model class, got <class 'dict'>"),
        ({"input": {"x": 1.0}}, "input must be a pydantic model class, got {'x': 1.0}"),
        ({"input": BaseModel}, "input must be a pydantic model class"),
        ({"input": Point, "output": "Total"}, "output must be a pydantic model class, got 'Total'"),
        ({"input": Rooted}, "input Rooted is a RootModel"),
        ({"input": Streamed}, "input field 'items' is an Iterable"),
        ({"input": StreamedLate}, "input field 'inner.items' is an Iterable"),
        ({"input": Hidden}, "input field 'secret' is required but excluded from serialization"),
        ({"input": TwoNames}, "input field 'x' is written as 'ex' but read as 'x'"),
        ({"input": ManyNames}, "input field 'x' is written as 'x' but read as AliasChoices"),
        (
            {"input": Point, "retry": 5},
            "schema 'points': retry must be a RetryPolicy, such as RetryPolicy(max_attempts=3), got 5",
        ),
        ({"input": Point, "on_dead": SCHEMA}, "on_dead must be Then(schema, payload), or a function that"),
        ({"input": Point, "on_dead": Then}, "got <class 'mindtrace.jobs.domain.then.Then'>"),
        ({"input": Point, "on_dead": later}, "is an async def, and nobody would await it"),
        ({"input": Point, "on_dead": Then(SCHEMA, {}, result={})}, "on_dead has a result, and a dead job"),
    ],
)
def test_a_schema_that_could_only_fail_later_is_refused(arguments: dict[str, Any], rule: str) -> None:
    """The message names the schema, the role and what is wrong with it."""
    with pytest.raises(InvalidSchema) as raised:
        JobSchema(name="points", **arguments)

    assert rule in str(raised.value)


def test_one_alias_for_both_directions_is_fine() -> None:
    """Such a field is published and read under its alias."""

    class Aliased(JobInput):
        x: int = Field(alias="ex")

    assert job_from_schema(JobSchema("aliased", Aliased), {"ex": 3}).payload.x == 3


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), "1"])
def test_a_result_must_be_kept_for_a_while(ttl_s: Any) -> None:
    """A result's time to live is a positive number of seconds (RES-1)."""
    with pytest.raises(InvalidSchema, match=rf"result_ttl_s {ttl_s!r}: must be"):
        JobSchema("points", Point, result_ttl_s=ttl_s)


@pytest.mark.parametrize("ttl_s", [0, -1, float("nan"), "1", 367 * 86_400])
def test_a_dead_letter_must_be_kept_for_a_while(ttl_s: Any) -> None:
    """Its time is a positive number of seconds, or None for ever (DLQ-5)."""
    with pytest.raises(InvalidSchema, match=rf"dead_ttl_s {ttl_s!r}: must be"):
        JobSchema("points", Point, dead_ttl_s=ttl_s)
    assert JobSchema("points", Point).dead_ttl_s is None


def test_a_bad_name_is_refused() -> None:
    """A schema's name becomes its queue's, so the same rule holds (PUB-6)."""
    with pytest.raises(InvalidName, match="schema name 'my jobs': use 1 to 128 characters"):
        JobSchema("my jobs", Point)


@pytest.mark.parametrize("data", [Point(x=1.5, y=2.5), {"x": 1.5, "y": 2.5}, {"x": "1.5", "y": 2.5}])
def test_a_job_is_made_of_a_model_or_a_dict(data: Any) -> None:
    """Its payload is the schema's input model, validated."""
    made = job_from_schema(SCHEMA, data, id="a", priority=3, max_attempts=2, headers={"trace": "1"})

    assert isinstance(made, Job)
    assert made.payload == Point(x=1.5, y=2.5)
    assert (made.schema_name, made.id, made.priority, made.max_attempts) == ("points", "a", 3, 2)
    assert made.headers == {"trace": "1"}


@pytest.mark.parametrize(
    ("data", "rule"),
    [
        ({"x": "one"}, r"doesn't fit Point \(x: Input should be a valid number"),
        ({"x": float("nan")}, r"x: Input should be a finite number"),
        (Total(), "expected Point or a dict, got Total"),
        (Point, "expected Point or a dict, got the class Point"),
        (None, "expected Point or a dict, got NoneType"),
        ([("x", 1.0)], "expected Point or a dict, got list"),
        ('{"x": 1.0}', "expected Point or a dict, got str"),
    ],
)
def test_an_input_of_the_wrong_shape_is_refused(data: Any, rule: str) -> None:
    """The message names the field or the type, and what was expected (PUB-6)."""
    with pytest.raises(InvalidPayload, match=f"payload: .*{rule}"):
        job_from_schema(SCHEMA, data)


def test_a_refusal_names_every_field_but_no_value() -> None:
    """A payload may hold secrets, so its values stay out of messages (SEC-3)."""
    with pytest.raises(InvalidPayload) as raised:
        job_from_schema(JobSchema("strict", Strict), {"count": "hunter2"})

    message = str(raised.value)
    assert message.startswith("payload: doesn't fit Strict (")
    assert "name: Field required" in message
    assert "count: Input should be a valid integer" in message
    assert "hunter2" not in message


def test_a_refusal_of_many_fields_stays_short() -> None:
    """Five problems are told, the rest counted."""

    class Wide(JobInput):
        values: list[int]

    with pytest.raises(InvalidPayload, match=r"; and 95 more\)$"):
        validate_model("payload", Wide, {"values": ["no"] * 100})


def test_a_schema_with_on_dead_can_be_a_key_whatever_that_holds() -> None:
    """A payload that is a dict has no hash."""
    on_dead = Then(SCHEMA, {"x": 1.0})

    schemas = [JobSchema("points", Point, on_dead=each) for each in (on_dead, on_dead, None)]
    assert (len({*schemas}), schemas[0].on_dead) == (2, on_dead)


def test_a_schema_keeps_its_retry_policy() -> None:
    """Without one of its own, it has the default (RTY-1)."""
    policy = RetryPolicy(max_attempts=9)

    assert JobSchema("points", Point, retry=policy).retry is policy
    assert JobSchema("points", Point).retry == RetryPolicy()


@pytest.mark.parametrize(
    ("setting", "wrong"),
    [
        (setting, wrong)
        for setting in ("timeout_s", "expires_s", "result_ttl_s", "kill_after_s")
        for wrong in (-1, "5", timedelta(minutes=1), *(() if setting == "kill_after_s" else (0,)))
    ]
    + [("retry", 3), ("on_expired", "drop"), ("queue_type", "lifo"), ("unique", "x"), ("rate", 5)],
)
def test_the_error_of_a_setting_names_the_schema(setting: str, wrong: Any) -> None:
    """Of twenty schemas in a module, the message says which one is wrong."""
    with pytest.raises(InvalidInput, match="^schema 'points': .*" + setting.replace("_type", " type")):
        JobSchema("points", Point, **{setting: wrong})
