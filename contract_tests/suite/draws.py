"""What the state machine draws: numbers, and one of several by its place."""

from collections.abc import Sequence
from typing import TypeVar

from hypothesis import strategies as st

ItemT = TypeVar("ItemT")

CONSUMERS = 3
COUNTS = st.integers(1, 4)
WHO = st.integers(0, CONSUMERS - 1)
PRIORITIES = st.integers(0, 9)
PLACES = st.integers(0, 63)
"""The place of one of several, counting round after the last. How many there are may depend on how fast time
passed. What is drawn must not: Hypothesis repeats the same draws."""
DELAYS = ["none", "soon", "far"]
ENDS = st.tuples(
    st.sampled_from(["ack", "retry", "dead", "release", "then", "dead then"]), st.sampled_from(DELAYS)
)
"""How a delivery ends, and the delay of a retry or a release; with one, an ack has a result."""


def picked(items: Sequence[ItemT], which: int) -> Sequence[ItemT]:
    """Return the item at that place, counting round after the last; none if there are no items."""
    return [items[which % len(items)]] if items else []
