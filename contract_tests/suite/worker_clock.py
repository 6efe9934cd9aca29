"""A worker whose calendar is wrong, for the checks that deadlines are the broker's (LSE-5)."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from unittest import mock

OFFSETS_S = (-3600.0, 3600.0)
"""By how much the calendars of workers are off."""


@contextmanager
def calendar_off_by(seconds: float) -> Iterator[None]:
    """Have this process take a wrong time from its calendar meanwhile."""
    real, real_ns, off_ns = time.time, time.time_ns, int(seconds * 1e9)

    def wrong() -> float:
        return real() + seconds

    def wrong_ns() -> int:
        return real_ns() + off_ns

    with mock.patch("time.time", wrong), mock.patch("time.time_ns", wrong_ns):
        yield
