"""What adapters keep beside a job's body is read, and what is damaged of it is left out."""

from datetime import UTC, datetime

import pytest

from mindtrace.jobs.adapters.shared.records import parse_history, parse_json, parse_moment, parse_progress
from mindtrace.jobs.domain import Progress
from mindtrace.jobs.ports import Failure

NO_JSON = [None, "", b"", "{", b"\xff", "[" * 100_000, "9" * 5000]


@pytest.mark.parametrize("text", NO_JSON, ids=lambda text: repr(text)[:20])
def test_text_that_is_not_json_reads_as_nothing(text: str | bytes | None) -> None:
    assert parse_json(text) is None
    assert parse_history(text) == ()
    assert parse_progress(text) is None


@pytest.mark.parametrize(
    ("text", "failures"),
    [
        ('[[1, "one"], [2, "two"]]', (Failure(1, "one"), Failure(2, "two"))),
        (b'[[1, "one"], [2], ["3", "three"], [true, "four"], 5, [6, "six", 6]]', (Failure(1, "one"),)),
        ('{"1": "one"}', ()),
        ("7", ()),
    ],
)
def test_damaged_failures_are_left_out_of_a_history(text: str | bytes, failures: tuple[Failure, ...]) -> None:
    assert parse_history(text) == failures


@pytest.mark.parametrize(
    ("text", "progress"),
    [
        ("[1, 2]", Progress(1, 2)),
        (b"[0.5, null]", Progress(0.5)),
        ("[1]", None),
        ("[-1, 2]", None),
        ("[NaN, 2]", None),
        ('["1", 2]', None),
        ("{}", None),
    ],
)
def test_progress_is_two_amounts_or_nothing(text: str | bytes, progress: Progress | None) -> None:
    assert parse_progress(text) == progress


@pytest.mark.parametrize("seconds", [1e300, float("nan"), -1e18, None, "yesterday", b"\xff", 10**30])
def test_an_impossible_moment_reads_as_1970(seconds: object) -> None:
    assert parse_moment(seconds) == datetime(1970, 1, 1, tzinfo=UTC)
    assert parse_moment(1.5) == datetime(1970, 1, 1, 0, 0, 1, 500_000, tzinfo=UTC)
