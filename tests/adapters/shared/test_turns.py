"""The time between two turns, in whole microseconds."""

import pytest

from mindtrace.jobs.adapters.shared.turns import whole_microseconds


@pytest.mark.parametrize(
    ("interval_s", "expected"),
    [(1 / 3, 333_334), (0.07, 70_000), (2.01, 2_010_000), (1e-9, 1), (600.000_000_4, 600_000_001)],
)
def test_an_interval_is_rounded_up_but_for_the_error_of_its_float(interval_s: float, expected: int) -> None:
    assert whole_microseconds(interval_s) == expected
