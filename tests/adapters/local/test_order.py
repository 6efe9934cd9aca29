"""In which order the jobs that are ready leave a queue, whatever came back in between (ORD-1 to ORD-4)."""

from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from mindtrace.jobs import QueueKind
from mindtrace.jobs.adapters.local.order import ORDERS, StoredJob

Key = Callable[[StoredJob], tuple[int, ...]]

# A step is: None to take a job, a priority to add one, or which of those in hand to give back.
steps = st.lists(
    st.none() | st.integers(0, 9) | st.floats(0, 1, exclude_max=True),
    max_size=60,
)


def run(kind: QueueKind, steps: list[float | int | None], key: Key) -> None:
    """Take each step on the order and on a plain list, whose next job is the one with the smallest key."""
    order = ORDERS[kind]()
    ready: list[StoredJob] = []
    in_hand: list[StoredJob] = []
    for place, step in enumerate(steps):
        if step is None and ready:
            expected = min(ready, key=key)
            ready.remove(expected)
            assert order.pop() is expected
            in_hand.append(expected)
        elif isinstance(step, int):
            job = StoredJob(str(place), b"", step if kind is QueueKind.PRIORITY else 0, place)
            order.add(job)
            ready.append(job)
        elif isinstance(step, float) and in_hand:
            job = in_hand.pop(int(step * len(in_hand)))
            order.give_back(job)
            ready.append(job)
        assert len(order) == len(ready)


@given(steps=steps)
def test_a_fifo_serves_the_oldest_wherever_it_has_been(steps: list[float | int | None]) -> None:
    """What came back stands where it stood (ORD-1, ORD-4)."""
    run(QueueKind.FIFO, steps, lambda job: (job.place,))


@given(steps=steps)
def test_a_priority_queue_serves_the_highest_and_of_those_the_oldest(
    steps: list[float | int | None],
) -> None:
    """Strictly, and what came back stands where it stood in its level (ORD-3, ORD-4)."""
    run(QueueKind.PRIORITY, steps, lambda job: (-job.priority, job.place))


@given(steps=steps)
def test_a_stack_serves_the_newest_wherever_it_has_been(steps: list[float | int | None]) -> None:
    """A job that came back stands behind those that were published after it (ORD-2, ORD-4)."""
    run(QueueKind.STACK, steps, lambda job: (-job.place,))


@pytest.mark.parametrize("kind", QueueKind)
def test_an_empty_order_has_no_next(kind: QueueKind) -> None:
    """The store looks at its length first."""
    order = ORDERS[kind]()

    assert len(order) == 0
    with pytest.raises(IndexError):
        order.pop()
