"""The turns of a rate, in the whole microseconds in which stores count."""

from math import ceil

_LONGEST_S = 3e9


def whole_microseconds(interval_s: float) -> int:
    """Return the time between two turns in whole microseconds, rounded up: no turn comes too soon.

    The error of a float isn't rounded up: 0.07 s is 70,000 µs, though 0.07 * 1e6 is a little more.
    """
    return max(1, ceil(round(min(interval_s, _LONGEST_S) * 1e6, 3)))
