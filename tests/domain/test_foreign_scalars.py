"""Scalars of NumPy and PyTorch are taken as the Python numbers that they are, without either being here."""

import math
from decimal import Decimal
from typing import Any

import pytest
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from mindtrace.jobs import JobInput, JobOutput, JobSchema, job_from_schema
from mindtrace.jobs.domain.envelope import decode, encode
from mindtrace.jobs.domain.errors import InvalidPayload
from mindtrace.jobs.domain.foreign_scalars import plain_scalar, plain_scalars


class Scalar:
    """Looks like ``numpy.bool_(True)`` or ``torch.tensor(1.5)``: pydantic takes it for none of its types."""

    shape = ()
    dtype = "any"

    def __init__(self, value: Any) -> None:
        self._value = value

    def item(self) -> Any:
        return self._value


class Array(Scalar):
    shape = (1,)  # type: ignore[assignment]


class Wide(Scalar):
    """Looks like ``numpy.longdouble``, which Python has nothing for."""

    def item(self) -> Any:
        return self


@pytest.mark.parametrize("value", [True, 7, 1.5, 1j, "text", b"bytes"])
def test_a_scalar_is_the_number_that_it_holds(value: object) -> None:
    assert plain_scalar(Scalar(value)) == value
    assert type(plain_scalar(Scalar(value))) is type(value)


@pytest.mark.parametrize("value", [None, 7, "text", [1], object(), Array(1.5), Wide(1), Scalar, Decimal(1)])
def test_anything_else_stays_as_it_is(value: object) -> None:
    assert plain_scalar(value) is value
    assert plain_scalars(value) is value


def test_scalars_are_found_in_collections() -> None:
    """What has none is returned itself, and nothing is changed in place."""
    given = {"a": [Scalar(1), (Scalar(2), "x")], "b": {"c": Scalar(True)}, "d": [Array(1)]}

    made = plain_scalars(given)

    assert {name: made[name] for name in "ab"} == {"a": [1, (2, "x")], "b": {"c": True}}
    assert made["d"] is given["d"]
    assert isinstance(given["a"][0], Scalar)


class Report(JobOutput):
    passed: bool
    score: float = 0.0
    counts: list[int] = Field([])
    best: dict[str, Decimal] = Field({})


class Exact(JobInput):
    model_config = ConfigDict(strict=True)

    score: float


@pytest.mark.parametrize(
    ("model", "given", "plain"),
    [
        (Report, {"passed": Scalar(True)}, {"passed": True}),
        (Report, {"passed": True, "score": Scalar(1.5)}, {"passed": True, "score": 1.5}),
        (Report, {"passed": True, "counts": [Scalar(2**60 + 1)]}, {"passed": True, "counts": [2**60 + 1]}),
        (Report, {"passed": True, "best": {"a": Scalar(0.5)}}, {"passed": True, "best": {"a": 0.5}}),
        (Exact, {"score": Scalar(1.5)}, {"score": 1.5}),
    ],
)
def test_a_model_takes_them_where_pydantic_refuses(
    model: type[BaseModel], given: dict[str, Any], plain: dict[str, Any]
) -> None:
    """Made by its class, or of a dict."""
    assert model(**given) == model(**plain)
    assert job_from_schema(JobSchema("reports", model), given).payload == model(**plain)


def test_what_is_wrong_all_the_same_is_refused_as_ever() -> None:
    """With the value that was given, if that was no scalar."""
    with pytest.raises(ValidationError, match="passed\n  Input should be a valid boolean"):
        Report(passed="perhaps")
    with pytest.raises(ValidationError, match="passed\n  Input should be a valid boolean"):
        Report(passed=Scalar("perhaps"))
    with pytest.raises(InvalidPayload, match="passed: Input should be a valid boolean"):
        job_from_schema(JobSchema("reports", Report), {"passed": Array(True)})
    with pytest.raises(ValidationError, match="finite number"):
        Report(passed=True, score=Scalar(math.nan))


class Free(JobInput):
    value: Any


def test_a_value_without_a_type_is_written_as_a_number() -> None:
    """Where pydantic knows no way to write it."""
    schema = JobSchema("free", Free)
    job = job_from_schema(schema, {"value": {"a": [Scalar(1.5), None]}})

    assert decode(encode(job, schema), schema).payload.value == {"a": [1.5, None]}


@pytest.mark.parametrize("value", [Scalar(math.nan), [None, Scalar(math.inf)]])
def test_a_nan_is_refused_whatever_holds_it(value: object) -> None:
    """Or it would arrive as null (PUB-6)."""
    schema = JobSchema("free", Free)

    with pytest.raises(InvalidPayload, match="NaN and infinity can't be written as JSON"):
        encode(job_from_schema(schema, {"value": value}), schema)


def test_a_subclass_with_an_init_of_its_own_works_as_with_pydantic() -> None:
    """It is called where pydantic calls it, and only there."""
    made = []

    class Own(JobInput):
        x: int

        def __init__(self, **data: Any) -> None:
            made.append(data)
            super().__init__(**data)

    class Heir(JobInput):
        x: int

    assert Own(x="3").x == 3
    assert Own.model_validate({"x": 4}).x == 4
    assert made == [{"x": "3"}, {"x": 4}]
    assert Own.__pydantic_custom_init__
    assert not Heir.__pydantic_custom_init__
