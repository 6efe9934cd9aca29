"""A queue's name and kind."""

import pytest

from mindtrace.jobs import Queue, QueueKind
from mindtrace.jobs.domain.errors import InvalidInput, InvalidName


@pytest.mark.parametrize("kind", ["fifo", "stack", "priority"])
def test_a_kind_may_be_given_by_its_name(kind: str) -> None:
    """The string and the member are one (ORD-1 to ORD-3)."""
    assert Queue("points", kind).kind is QueueKind(kind)


@pytest.mark.parametrize("kind", ["lifo", "FIFO", "", None, 1])
def test_another_kind_is_refused(kind: object) -> None:
    """The message shows the value and the three that exist."""
    with pytest.raises(InvalidInput, match=rf"queue type {kind!r}: must be one of fifo, stack, priority"):
        Queue("points", kind)


def test_a_bad_name_is_refused() -> None:
    """The rule for names holds for queues too (PUB-6)."""
    with pytest.raises(InvalidName, match=r"queue name 'my jobs': use 1 to 128 characters"):
        Queue("my jobs")
