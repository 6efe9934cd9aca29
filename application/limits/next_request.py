"""When a consumer asks the store again for the places of the jobs that wait."""

from collections.abc import Callable, Iterable, Mapping
from math import inf

from .held_job import HeldJob

_SHORTEST_S = 0.005
_LONGEST_S = 0.05
_PART = 0.1
"""The part of the time that jobs take after which to ask again, within these bounds: a place of another
consumer is empty for so long at most."""


class NextRequest:
    """Knows whether a place may have become free since the last request.

    A consumer that gave a place back asks at once. A place of another consumer may become free at any time,
    so it asks again and again for that. If it has all places of a key itself, no other can free one.

    Args:
        limit: How many places a key has.
        clock: The consumer's clock.
    """

    def __init__(self, limit: int, clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._granted_s = -inf
        """When some job last got a place."""
        self._some_are_free = False
        self.due_s = inf
        """When to ask; never if only this consumer can free a place."""

    @property
    def is_due(self) -> bool:
        """Whether to ask now."""
        return self._some_are_free or self._clock() >= self.due_s

    def note_freed(self) -> None:
        """Ask at once, as places were given back here; any thread calls this after that."""
        self._some_are_free = True

    def take_freed(self) -> bool:
        """Return whether places were given back here since the last call of this."""
        some_are_free, self._some_are_free = self._some_are_free, False
        return some_are_free

    def plan(
        self, waiting: Iterable[HeldJob], here: Mapping[str, int], job_s: float | None, *, asked: bool
    ) -> None:
        """Decide when to ask again.

        Args:
            waiting: The jobs that waited before the request.
            here: How many places this consumer has now, by key.
            job_s: How long a job has its place, in seconds, as far as is known.
            asked: Whether the request was for all jobs that may get a place.
        """
        now, others_have_some = self._clock(), False
        for job in waiting:
            if job.has_place:
                self._granted_s = now
            elif job.place is not None and here[job.place.key] < self._limit:
                others_have_some = True
        if not others_have_some:
            self.due_s = inf
        elif asked or self.due_s == inf:
            takes_s = max(job_s or 0.0, now - self._granted_s)
            self.due_s = now + min(max(_SHORTEST_S, _PART * takes_s), _LONGEST_S)
