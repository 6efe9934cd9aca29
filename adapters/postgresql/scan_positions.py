"""Where in a queue a consumer looks for ready jobs, for due jobs and for leases that have ended."""

from math import inf
from time import monotonic

from .binary_format import int8s

_WHOLE_LOOK_S = 1.0
"""The shortest time, in seconds, between two looks of a busy consumer from the very beginning of the queue. A
job that another consumer took stands there again if that consumer died within the statement."""
_SHARE = 20
"""The pause before the next such look, in multiples of the time that the last one took."""
_LATE_S = 1.0
"""How many seconds after its due time a row may become visible, as its transaction may be slow to commit. A
look from the beginning finds a row that becomes visible later still."""
_LEVELS = 10
_LEVEL = 1 << 56
"""How far apart the levels of priority are in a place."""
_FROM_THE_BEGINNING = int8s([0] * _LEVELS)


class ScanPositions:
    """Says from where to look. So the server doesn't read dead rows again, which an open snapshot keeps."""

    def __init__(self) -> None:
        self._starts = [0] * _LEVELS
        """For each level of priority, the first place that may hold a ready job, unless a job has returned
        since."""
        self.returned = 0
        """How many jobs had returned to their old places when this consumer last looked."""
        self._next_whole = 0.0
        self._swept = -inf
        """When the last sweep began that left nothing behind which was due or over."""

    def is_whole(self, now: float) -> bool:
        """Whether to look from the beginning."""
        return now >= self._next_whole

    def whole_in_s(self) -> float:
        """In how many seconds to look from the beginning."""
        return self._next_whole - monotonic()

    def sweep_s(self, now: float, *, is_whole: bool) -> float:
        """Return how many seconds to look back for due jobs and ended leases that no sweep has handled."""
        return inf if is_whole else now - self._swept + _LATE_S

    def swept(self, began: float, *, is_all: bool, is_whole: bool) -> None:
        """Note a sweep that began at ``began``, and whether it handled all that it was to look for."""
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
            returned: How many jobs had returned to their old places by then.
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
        """Note that a look from the beginning has just ended, which began at ``began``."""
        now = monotonic()
        self._next_whole = now + max(_WHOLE_LOOK_S, _SHARE * (now - began))
