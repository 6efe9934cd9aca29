"""The retry policy: exponential backoff with full jitter, a cap, and two budgets."""

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.jobs import RetryPolicy
from mindtrace.jobs.domain.errors import InvalidInput

YEAR_S = 366 * 86_400.0
seconds = st.floats(0, YEAR_S)
attempts = st.integers(1, 1_000_000)


def test_the_bound_doubles_up_to_the_cap() -> None:
    """The first bound is the base, each further one twice as long, none above the cap (RTY-1)."""
    policy = RetryPolicy(base_delay_s=1.0, max_delay_s=10.0)

    assert [policy.longest_delay_s(attempt) for attempt in range(1, 7)] == [1, 2, 4, 8, 10, 10]


@given(base=seconds, cap=seconds, attempt=attempts)
def test_a_delay_lies_between_zero_and_its_bound(base: float, cap: float, attempt: int) -> None:
    """Full jitter draws from the whole interval, which never passes the cap (RTY-1)."""
    policy = RetryPolicy(base_delay_s=base, max_delay_s=cap)

    bound = policy.longest_delay_s(attempt)
    assert 0 <= policy.delay_s(attempt) <= bound <= cap
    assert policy.backoff_s(attempt, 0.0) == 0
    assert policy.backoff_s(attempt, 1.0) == bound


@given(base=seconds, cap=seconds, attempt=st.integers(1, 100))
def test_the_bound_never_shrinks(base: float, cap: float, attempt: int) -> None:
    """A later attempt waits no less long, at most (RTY-1)."""
    policy = RetryPolicy(base_delay_s=base, max_delay_s=cap)

    assert policy.longest_delay_s(attempt) <= policy.longest_delay_s(attempt + 1)


def test_delays_are_spread() -> None:
    """Jobs that failed together don't come back together (RTY-1)."""
    policy = RetryPolicy(base_delay_s=1.0)

    assert len({policy.delay_s(1) for _ in range(100)}) > 90


@pytest.mark.parametrize(
    ("setting", "value", "rule"),
    [
        ("max_attempts", 0, "an integer from 1 to 1000000"),
        ("max_attempts", None, "an integer from 1 to 1000000"),
        ("max_crashes", 0, "an integer from 1 to 1000000"),
        ("base_delay_s", -1, r"a number of seconds, from 0 to 31,622,400 .366 days."),
        ("base_delay_s", float("nan"), r"a number of seconds, from 0 to 31,622,400 .366 days."),
        ("max_delay_s", float("inf"), r"a number of seconds, from 0 to 31,622,400 .366 days."),
        ("max_delay_s", "5", r"a number of seconds, from 0 to 31,622,400 .366 days."),
        ("max_delay_s", True, r"a number of seconds, from 0 to 31,622,400 .366 days."),
    ],
)
def test_a_setting_out_of_range_is_refused(setting: str, value: Any, rule: str) -> None:
    """The message names the setting, the value and the range."""
    with pytest.raises(InvalidInput, match=rf"{setting} {value!r}: must be {rule}"):
        RetryPolicy(**{setting: value})


@pytest.mark.parametrize(("budget", "from_crash"), [(1, 1), (2, 1), (3, 1), (4, 2), (5, 2), (100, 2)])
def test_a_job_that_may_kill_its_workers_runs_alone(budget: int, from_crash: int) -> None:
    """From the second crash on, and earlier if few are left (RTY-3)."""
    policy = RetryPolicy(max_crashes=budget)

    assert [policy.runs_alone(crashes) for crashes in range(4)] == [n >= from_crash for n in range(4)]
