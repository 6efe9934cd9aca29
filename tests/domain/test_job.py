"""A job: immutable, its fields within their bounds."""

import copy
import os
import pickle
from dataclasses import FrozenInstanceError, replace
from datetime import UTC, datetime, timedelta, timezone, tzinfo
from typing import Any
from unittest import mock

import pytest
from pydantic import BaseModel, ValidationError

from mindtrace.jobs import Job, JobInput, JobSchema, job_from_schema
from mindtrace.jobs.domain import new_job_id
from mindtrace.jobs.domain.errors import ImmutableJob, InvalidJob, InvalidName, JobsError

NOON = datetime(2026, 1, 1, 12, tzinfo=UTC)
NAME_RULE = "use 1 to 128 characters of A-Z a-z 0-9 . _ -"


class Nowhere(tzinfo):
    """A time zone that knows no offset, which makes a moment as good as naive."""

    def utcoffset(self, _: datetime | None) -> None:
        return None


def job(**fields: Any) -> Job[None]:
    return Job(**{"schema_name": "points", "payload": None} | fields)


def test_a_job_has_an_id_of_its_own_and_modest_defaults() -> None:
    """Only the schema's name and the payload need be given (PUB-2)."""
    first, second = job(), job()

    assert first.id != second.id
    assert (first.priority, first.attempt, first.max_attempts, first.not_before) == (0, 1, None, None)
    assert first.headers == {}
    assert first.created_at.tzinfo is UTC


def test_ids_are_32_hexadecimal_digits_and_never_repeat() -> None:
    """They name a job on every backend."""
    ids = {new_job_id() for _ in range(1000)}

    assert len(ids) == 1000
    assert all(len(id_) == 32 and int(id_, 16) >= 0 for id_ in ids)


@pytest.mark.filterwarnings("ignore:This process .* is multi-threaded:DeprecationWarning")
def test_a_forked_process_makes_other_ids_than_its_parent() -> None:
    """Even in the same millisecond."""
    with mock.patch("time.time_ns", return_value=0):
        new_job_id()
        reader, writer = os.pipe()
        child = os.fork()
        if child == 0:
            try:
                os.write(writer, "".join(new_job_id() for _ in range(200)).encode())
            finally:
                os._exit(0)
        os.close(writer)
        with os.fdopen(reader) as pipe:
            told = pipe.read()
        os.waitpid(child, 0)
        mine = {new_job_id() for _ in range(200)}

    theirs = {told[start : start + 32] for start in range(0, len(told), 32)}
    assert len(theirs) == 200
    assert not mine & theirs


def test_ids_made_later_sort_later() -> None:
    """To the millisecond: an index of ids grows at its end."""
    with mock.patch("time.time_ns", side_effect=[n * 1_000_000 for n in (1, 2, 1_700_000_000_000)]):
        ids = [new_job_id() for _ in range(3)]

    assert ids == sorted(ids)
    assert ids[-1].startswith(f"{1_700_000_000_000:012x}")


def test_a_job_cannot_be_changed() -> None:
    """Neither its fields nor its headers, not even through the dict that they were given in."""
    headers = {"trace": "1"}
    made = job(headers=headers)
    headers["trace"] = "2"

    with pytest.raises(ImmutableJob, match=r"job.priority: a job can't be changed; make another") as raised:
        made.priority = 5  # type: ignore[misc]
    with pytest.raises(ImmutableJob):
        del made.priority  # type: ignore[misc]
    assert isinstance(raised.value, JobsError | FrozenInstanceError)
    with pytest.raises(TypeError):
        made.headers["trace"] = "3"
    assert made.headers == {"trace": "1"}


@pytest.mark.parametrize(
    "copied", [copy.copy, copy.deepcopy, lambda job: pickle.loads(pickle.dumps(job)), replace]
)
def test_a_job_can_be_copied(copied: Any) -> None:
    made = job(payload={"x": 1}, headers={"trace": "1"}, priority=3)

    assert copied(made) == made


class Image(JobInput):
    path: str


class Status(BaseModel):
    job: Job[Image]
    untyped: Job[Any] | None = None


def test_a_job_may_be_a_field_of_a_model() -> None:
    """Written as JSON and read again, it is the same job."""
    made = job_from_schema(
        JobSchema("inspect", Image),
        {"path": "a.png"},
        not_before=NOON,
        headers={"trace": "1"},
        max_attempts=2,
    )
    text = Status(job=made, untyped=made).model_dump_json()
    again = Status.model_validate_json(text)

    assert again.job == made
    assert again.untyped == replace(made, payload={"path": "a.png"})
    assert Status(job=made).job is made
    assert Status.model_validate(Status(job=made).model_dump()).job == made
    assert "headers" in str(Status.model_json_schema(mode="serialization"))


def test_a_model_refuses_a_job_that_is_none() -> None:
    """By the rules of a job."""
    with pytest.raises(ValidationError, match="use 1 to 128 characters"):
        Status.model_validate_json('{"job": {"schema_name": "a b", "payload": {"path": "a"}}}')


@pytest.mark.parametrize("name", ["a", "a.b_c-9", "A" * 128, "4f1e"])
def test_a_name_is_1_to_128_plain_characters(name: str) -> None:
    """Ids and schema names share one rule (PUB-6)."""
    assert job(id=name, schema_name=name).id == name


@pytest.mark.parametrize("name", ["", "a b", "a/b", "a\n", "ü", "٣", "A" * 129, "a:b", None, 7, b"a"])
@pytest.mark.parametrize(("field", "called"), [("id", "job id"), ("schema_name", "schema name")])
def test_another_name_is_refused(name: object, field: str, called: str) -> None:
    """The message shows the value, cut where it is long, and the rule (PUB-6)."""
    with pytest.raises(InvalidName) as raised:
        job(**{field: name})

    message = str(raised.value)
    assert message.startswith(f"{called} {repr(name)[:70]}")
    assert NAME_RULE in message
    assert len(message) < 200


@pytest.mark.parametrize(
    ("field", "value", "rule"),
    [
        ("priority", 11, "must be an integer from 0 to 9"),
        ("priority", -1, "must be an integer from 0 to 9"),
        ("priority", True, "must be an integer from 0 to 9"),
        ("priority", 1.0, "must be an integer from 0 to 9"),
        ("attempt", 0, "must be an integer from 1 to 1000000"),
        ("max_attempts", 0, "must be an integer from 1 to 1000000"),
        ("max_attempts", "3", "must be an integer from 1 to 1000000"),
        ("timeout_s", 0, "must be more than 0 seconds"),
        ("timeout_s", -1.0, "must be a number of seconds"),
        ("timeout_s", True, "must be a number of seconds"),
    ],
)
def test_a_number_out_of_range_is_refused(field: str, value: object, rule: str) -> None:
    """The message names the field, the value and the range (PUB-6)."""
    with pytest.raises(InvalidJob, match=rf"{field} {value!r}: {rule}"):
        job(**{field: value})


@pytest.mark.parametrize("field", ["created_at", "not_before"])
@pytest.mark.parametrize(
    ("moment", "rule"),
    [
        (NOON.replace(tzinfo=None), "must be a datetime with a time zone"),
        (NOON.replace(tzinfo=Nowhere()), "must be a datetime with a time zone"),
        (1_700_000_000.0, "must be a datetime with a time zone"),
        (datetime.max.replace(tzinfo=UTC), "must be from 1970 to 9998"),
        (datetime.min.replace(tzinfo=timezone(timedelta(hours=14))), "must be from 1970 to 9998"),
    ],
)
def test_a_moment_that_no_consumer_could_read_is_refused(field: str, moment: object, rule: str) -> None:
    """A moment needs a time zone, and to survive as seconds since 1970."""
    with pytest.raises(InvalidJob, match=rf"{field} .*: {rule}"):
        job(**{field: moment})


@pytest.mark.parametrize(
    ("headers", "rule"),
    [
        ({f"h{n}": "" for n in range(33)}, "a mapping of at most 32 strings to strings"),
        (["trace"], "a mapping of at most 32 strings to strings"),
        ({1: "a"}, "header 1: the name and the value must be strings"),
        ({"a": None}, "header 'a': the name and the value must be strings"),
        ({"a": "x" * 1025}, "header 'a': longer than 1024 characters"),
        ({"x" * 1025: "a"}, "longer than 1024 characters"),
        ({"a": "\ud800"}, "header 'a': the name or the value has a lone surrogate"),
    ],
)
def test_headers_that_could_not_travel_are_refused(headers: Any, rule: str) -> None:
    """Headers are few, short and plain Unicode (PUB-6)."""
    with pytest.raises(InvalidJob, match=rule):
        job(headers=headers)


def test_a_changed_copy_is_checked_as_well() -> None:
    """``dataclasses.replace`` is no way around the bounds."""
    assert replace(job(), priority=9).priority == 9
    with pytest.raises(InvalidJob, match="priority 10"):
        replace(job(), priority=10)
