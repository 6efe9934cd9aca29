"""Rates and limits: what they accept, and what jobs they count together."""

import os
import subprocess
import sys
from collections.abc import Callable
from enum import StrEnum
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from pydantic import SecretStr, field_serializer

from conditions import LIMIT_S
from mindtrace.jobs import AnyJSON, JobInput, JobSchema, Limit, Rate
from mindtrace.jobs.errors import InvalidInput, InvalidSchema
from mindtrace.jobs.ports.coordination import MAX_KEY_CHARS


class Frame(JobInput):
    camera: str
    lane: int = 0


REFUSED: dict[str, tuple[Callable[[], Any], type[Exception], str]] = {
    "no starts": (lambda: Rate(0, per_s=1), InvalidInput, "rate count 0"),
    "no time": (lambda: Rate(1, per_s=0), InvalidInput, "leave rate out"),
    "a negative time": (lambda: Rate(1, per_s=-1), InvalidInput, "more than 0 and up to"),
    "no burst": (lambda: Rate(3, per_s=1, burst=0), InvalidInput, "rate burst 0"),
    "a burst above the rate": (lambda: Rate(3, per_s=1, burst=4), InvalidInput, "from 1 to 3"),
    "a field without its word": (lambda: Limit(4, "camera"), TypeError, "2 positional"),  # type: ignore[misc]
    "seconds without their word": (lambda: Rate(10, 60), TypeError, "2 positional"),  # type: ignore[misc]
    "no places": (lambda: Limit(0), InvalidInput, "limit count 0"),
    "half a place": (lambda: Limit(0.5), InvalidInput, "must be an integer"),  # type: ignore[arg-type]
    "a list of fields": (lambda: Limit(1, by=["camera"]), InvalidInput, "a tuple"),  # type: ignore[arg-type]
    "no field of several": (lambda: Limit(1, by=()), InvalidInput, "a tuple"),
    "a list of fields of a rate": (lambda: Rate(1, per_s=1, by=["a"]), InvalidInput, "rate by="),  # type: ignore[arg-type]
    "a field twice": (lambda: Limit(1, by=("site", "camera", "site")), InvalidInput, "has 'site' twice"),
    "a field of a rate twice": (lambda: Rate(1, per_s=1, by=("a", "a")), InvalidInput, "each field once"),
    "an unknown field of a rate": (
        lambda: JobSchema("f", Frame, rate=Rate(3, per_s=1, by="site")),
        InvalidSchema,
        "rate is by 'site', which Frame doesn't have",
    ),
    "an unknown choice": (
        lambda: Limit(1, when_store_is_away="raise"),  # type: ignore[arg-type]
        InvalidInput,
        '"wait" or "run"',
    ),
    "a number as the rate": (lambda: JobSchema("f", Frame, rate=3), InvalidSchema, "Rate(100, per_s=60)"),  # type: ignore[arg-type]
    "a number as the limit": (
        lambda: JobSchema("f", Frame, concurrency_limit=3),  # type: ignore[arg-type]
        InvalidSchema,
        "Limit(4",
    ),
    "an unknown field": (
        lambda: JobSchema("f", Frame, concurrency_limit=Limit(3, by="site")),
        InvalidSchema,
        "its fields: 'camera', 'lane'",
    ),
}


@pytest.mark.parametrize("mistake", REFUSED)
def test_what_can_not_limit_is_refused_when_it_is_made(mistake: str) -> None:
    make, error, remedy = REFUSED[mistake]
    with pytest.raises(error) as raised:
        make()
    assert type(raised.value) is error
    assert remedy in str(raised.value)


def test_jobs_with_the_same_values_of_the_fields_count_together() -> None:
    by_camera, by_both = Limit(1, by="camera"), Limit(1, by=("camera", "lane"))
    one, other = Frame(camera="a", lane=1), Frame(camera="a", lane=2)

    assert by_camera.key_of(one) == by_camera.key_of(other)
    assert by_both.key_of(one) != by_both.key_of(other)
    assert Limit(1).key_of(one) == Limit(1).key_of(Frame(camera="b"))


def test_a_model_of_any_fields_may_lack_the_one_that_a_limit_is_by() -> None:
    limit = Limit(1, by="camera")

    assert JobSchema("any", AnyJSON, concurrency_limit=limit).is_limited
    assert limit.key_of(AnyJSON()) != limit.key_of(AnyJSON.model_validate({"camera": "a"}))


@pytest.mark.parametrize("name", ["camera", "copy", "json", "model_fields"])
def test_a_limit_by_a_field_named_like_a_method_counts_by_its_value(name: str) -> None:
    limit = Limit(1, by=name)
    one, other = (AnyJSON.model_validate({name: "a", "n": n}) for n in (1, 2))

    assert limit.key_of(one) == limit.key_of(other) == '["a"]'
    assert limit.key_of(AnyJSON()) == limit.key_of(AnyJSON.model_validate({"n": 1})) == "[null]"


def test_equal_values_count_together_whatever_their_order() -> None:
    limit = Limit(1, by="value")
    one, other = {"a": 1, "b": [{"c": 1, "d": 2}]}, {"b": [{"d": 2, "c": 1}], "a": 1}

    keys = {limit.key_of(AnyJSON.model_validate({"value": value})) for value in (one, other)}
    assert len(keys) == 1
    assert limit.key_of(AnyJSON.model_validate({"value": one["b"]})) not in keys


def test_sets_count_together_in_processes_that_order_them_differently() -> None:
    program = (
        "from mindtrace.jobs import JobInput, Limit\n"
        "class Shot(JobInput):\n"
        "    tags: set[str]\n"
        "print(Limit(1, by='tags').key_of(Shot(tags={'a', 'b', 'c', 'd'})))"
    )

    def key_with(seed: str) -> str:
        environment = os.environ | {"PYTHONHASHSEED": seed}
        command = [sys.executable, "-c", program]
        return subprocess.check_output(command, env=environment, text=True, timeout=LIMIT_S)

    assert key_with("1") == key_with("2")


def test_secrets_count_apart_and_are_not_shown() -> None:
    class Call(JobInput):
        api_key: SecretStr

        @field_serializer("api_key")
        def in_clear_text(self, secret: SecretStr) -> str:
            return secret.get_secret_value()

    limit = Limit(1, by="api_key")
    JobSchema("call", Call, concurrency_limit=limit)
    key = limit.key_of(Call(api_key=SecretStr("s3cret")))
    assert key != limit.key_of(Call(api_key=SecretStr("another")))
    assert "s3cret" not in key


@given(st.text(), st.text())
def test_keys_are_short_and_printable_and_differ_as_values_do(one: str, other: str) -> None:
    limit = Limit(1, by="camera")
    try:
        keys = [limit.key_of(Frame(camera=text)) for text in (one, other)]
    except UnicodeEncodeError:  # no such text can be published
        return

    assert (keys[0] == keys[1]) == (one == other)
    assert all(key.isprintable() and len(key) < MAX_KEY_CHARS // 3 for key in keys)


def test_a_rate_spaces_its_starts_evenly() -> None:
    assert Rate(100, per_s=60).interval_s == pytest.approx(0.6)


def test_a_field_may_be_named_by_a_member_of_an_enum() -> None:
    class Field(StrEnum):
        CAMERA = "camera"

    one, other = Frame(camera="a"), Frame(camera="b")
    assert Limit(1, by=Field.CAMERA).key_of(one) == Limit(1, by="camera").key_of(one)
    assert Limit(1, by=Field.CAMERA).key_of(one) != Limit(1, by=Field.CAMERA).key_of(other)
