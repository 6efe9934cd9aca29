"""Counts of places, put together from those of each key."""

from collections.abc import Iterable
from heapq import nsmallest

from ...ports import KeyCount, PlaceCount


def place_count(counts: Iterable[KeyCount], busiest: int) -> PlaceCount:
    """Add up what was counted of each key, and name the busiest keys (CRD-8).

    Args:
        counts: Those of the keys; keys that nobody has or wants don't count.
        busiest: How many keys to name at most.
    """
    used = [each for each in counts if each.held or each.waiting]
    named = nsmallest(busiest, used, key=lambda each: (-each.held, -each.waiting, each.key))
    held, waiting = sum(each.held for each in used), sum(each.waiting for each in used)
    return PlaceCount(held, waiting, len(used), named)
