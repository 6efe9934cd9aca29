"""Where in a queue a consumer looks for ready jobs, and for what comes to its time."""

from math import inf
from time import monotonic

from .binary_format import int8s

_WHOLE_LOOK_S = 1.0
"""How often at most a busy consumer has the server look from the very beginning of the queue: what another
took, and gave back by dying within that statement, stands there."""
_SHARE = 20
"""How many times as long as such a look takes to wait before the next."""
_LATE_S = 1.0
"""How long after its time a row may become visible, as its transaction may be slow to commit. What comes
later still is found by a look from the beginning."""
_LEVELS = 10
_LEVEL = 1 << 56
"""How far apart the levels of priority are in a place."""
_FROM_THE_BEGINNING = int8s([0] * _LEVELS)


class ScanPositions:
    """Says where to look, so that dead rows, which a held snapshot keeps, needn't be looked at again."""

    def __init__(self) -> None:
        self._starts = [0] * _LEVELS
        """For each level of priority: all places before it were taken, unless a job has returned since."""
        self.returned = 0
        """How often jobs had returned to their old places by the last look."""
        self._next_whole = 0.0
        self._swept = -inf
        """When all that had come to its time was swept."""

    def is_whole(self, now: float) -> bool:
        """Whether to look from the beginning."""
        return now >= self._next_whole

    def whole_in_s(self) -> float:
        """In how many seconds to look from the beginning."""
        return self._next_whole - monotonic()

    def sweep_s(self, now: float, *, is_whole: bool) -> float:
        """How many seconds to look back for what has come to its time, and wasn't swept before."""
        return inf if is_whole else now - self._swept + _LATE_S

    def swept(self, began: float, *, is_all: bool, is_whole: bool) -> None:
        """Note a sweep that began then, and whether it took all that it was to look for."""
        if is_all:
            self._swept = began
        elif is_whole:
            self._swept = -inf

    def starts(self, *, is_whole: bool) -> bytes:
        """Where to look from on each level, as the server is told."""
        return _FROM_THE_BEGINNING if is_whole else int8s(self._starts)

    def saw(self, before: int, returned: int, last: int | None) -> None:
        """Note what a look has seen.

        Args:
            before: All transactions before this one had ended.
            returned: How often jobs had returned to their old places.
            last: The place of the last job that was taken; None if there was no other.
        """
        if returned != self.returned:
            self._starts = [0] * _LEVELS
            self.returned = returned
        if last is None:
            self._starts = [before] * _LEVELS
            return
        level, place = divmod(last, _LEVEL)
        self._starts[:level] = [before] * level
        self._starts[level] = min(place, before)

    def was_whole(self, began: float) -> None:
        """Note that a look from the beginning, begun then, has just ended."""
        now = monotonic()
        self._next_whole = now + max(_WHOLE_LOOK_S, _SHARE * (now - began))
