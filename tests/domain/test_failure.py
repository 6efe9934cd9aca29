"""What is kept of a failed attempt: written as one text, and read back as far as it is there."""

from datetime import UTC, datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.jobs.domain.bounds import MAX_FAILURE_CHARS, truncate_error
from mindtrace.jobs.domain.failure import FailureReport, decode_failure, encode_failure

MOMENT = datetime(2026, 11, 26, 12, 30, 15, 125000, tzinfo=UTC)
TRACEBACK = 'Traceback (most recent call last):\n  File "tasks.py", line 7, in run\nValueError: no threes'
REPORT = FailureReport("ValueError: no threes", MOMENT, "web-1", 4711, TRACEBACK)

texts = st.text(st.characters(codec=None), max_size=40)


@pytest.mark.parametrize(
    "report",
    [REPORT, FailureReport("ValueError"), FailureReport(""), FailureReport("busy", MOMENT, "höst", 1, None)],
)
def test_it_is_read_as_it_was_written(report: FailureReport) -> None:
    assert decode_failure(encode_failure(report)) == report


@given(st.builds(FailureReport, texts, st.none() | st.just(MOMENT), texts, st.none() | st.integers(1), texts))
def test_any_text_can_be_stored_and_none_passes_for_another_field(report: FailureReport) -> None:
    """Whatever a message, a host or a traceback contains."""
    text = encode_failure(report)
    read = decode_failure(text)

    assert text.encode()
    assert (read.failed_at, read.pid) == (report.failed_at, report.pid)
    assert read.error == truncate_error(report.error.replace("\x1e", r"\x1e"))


def test_its_length_has_a_bound_and_the_most_recent_frames_stay() -> None:
    """The oldest frames are cut off, and of a long message the beginning."""
    frames = "\n".join(f"frame {n} \x1b[31m" for n in range(2000))
    report = FailureReport("x" * 5000 + " the cause", MOMENT, '"' * 500, 2**22, frames)

    text = encode_failure(report)
    read = decode_failure(text)

    assert len(text) <= MAX_FAILURE_CHARS
    assert read.traceback is not None
    assert len(read.traceback) == 8192
    assert read.traceback.endswith(r"frame 1999 \x1b[31m")
    assert len(read.error) == 2048
    assert read.error.endswith("the cause")


def test_what_is_left_of_a_text_that_was_cut_is_read() -> None:
    """A backend with too little room keeps the end: first the oldest frames go, then where and when."""
    text = encode_failure(REPORT)
    for longest in range(2, len(text) + 1):
        read = decode_failure(truncate_error(text, longest))
        assert REPORT.error.endswith(read.error.removeprefix("…"))
        if read.pid is not None:
            assert (read.error, read.failed_at, read.host) == (REPORT.error, MOMENT, "web-1")
        if read.traceback is not None:
            assert TRACEBACK.endswith(read.traceback.removeprefix("…"))


@pytest.mark.parametrize("text", ["", "no good", "a\nb", '{"at":1}'])
def test_a_text_of_another_origin_is_an_error_alone(text: str) -> None:
    assert decode_failure(text) == FailureReport(text)


@pytest.mark.parametrize(
    "origin", ["", "[]", "1", '{"at":"x","host":1,"pid":true}', '{"at":1e300}', "[" * 99999]
)
def test_a_damaged_origin_costs_no_more_than_itself(origin: str) -> None:
    assert decode_failure(f"frames\x1e{origin}\x1eno good") == FailureReport("no good", traceback="frames")
