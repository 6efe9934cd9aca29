"""Threads beside a test end with it, or are reported."""

import threading

import pytest

from background import Background
from conditions import LIMIT_S


def test_what_a_thread_returns_or_raises_is_in_its_future() -> None:
    with Background() as threads:
        returned, raised = threads.submit(divmod, 7, 2), threads.submit(divmod, 7, 0)

    assert returned.result(0) == (3, 1)
    with pytest.raises(ZeroDivisionError):
        raised.result(0)


def test_a_thread_that_never_ends_is_reported_with_its_stack() -> None:
    gate = threading.Event()

    def wait_at_the_gate() -> None:
        gate.wait()

    threads = Background(join_s=0.01)
    with pytest.raises(AssertionError, match=r"(?s)didn't end.*in wait_at_the_gate"), threads:
        left = threads.submit(wait_at_the_gate)

    gate.set()
    left.result(LIMIT_S)
