"""When a consumer asks the store again for the places of the jobs that wait."""

import threading
from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from math import inf

from .held_job import HeldJob

_SHORTEST_S = 0.005
_LONGEST_S = 0.05
_PART = 0.1
"""The part of the time that jobs take after which to ask again, within these bounds: a place of another
consumer is empty for so long at most."""
TOLD_S = 1.0
"""After how long to ask again where the store tells who is next: a report may be lost, and nobody reports
that the time of a place is over."""


class NextRequest:
    """Knows for which keys a place may have become free since the last request.

    A consumer that gave a place back asks for it at once, and so does one that the store tells it is next.
    For all else it asks again and again, unless it has all places of a key: then no other can free one.

    Args:
        limit: Says how many places a key has.
        clock: The consumer's clock.
    """

    def __init__(self, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._clock = clock
        self._lock = threading.Lock()
        self._freed = Counter[str]()
        self._granted_s = -inf
        """When some job last got a place."""
        self.is_told = False
        """Whether the store tells when a job of this consumer is next in line."""
        self.due_s = inf
        """When to ask for all; never if only this consumer can free a place."""

    @property
    def is_due(self) -> bool:
        """Whether to ask for all jobs now that may get a place."""
        return self._clock() >= self.due_s

    @property
    def some_are_free(self) -> bool:
        """Whether places may be free for which this consumer is next in line."""
        return bool(self._freed)

    def note_freed(self, keys: Iterable[str]) -> None:
        """Ask for a place of each of these keys at once. Any thread calls this after a place got free."""
        with self._lock:
            self._freed.update(keys)

    def note_missed(self) -> None:
        """Ask for all at once, as reports were lost; any thread calls this."""
        self.due_s = -inf

    def take_freed(self) -> Counter[str]:
        """Return how many places of each key were noted since the last call of this."""
        with self._lock:
            freed, self._freed = self._freed, Counter[str]()
            return freed

    def plan(
        self, waiting: Iterable[HeldJob], here: Mapping[str, int], job_s: float | None, *, asked: bool
    ) -> None:
        """Decide when to ask for all again.

        Args:
            waiting: The jobs that waited before the request.
            here: How many places this consumer has now, by key.
            job_s: How long a job has its place, in seconds, as far as is known.
            asked: Whether the request was for all jobs that may get a place.
        """
        now, limit, others_have_some = self._clock(), self._limit(), False
        for job in waiting:
            if job.has_place:
                self._granted_s = now
            elif job.place is not None and here[job.place.key] < limit:
                others_have_some = True
        if not others_have_some:
            self.due_s = inf
        elif asked or self.due_s == inf:
            takes_s = max(job_s or 0.0, now - self._granted_s)
            pause_s = TOLD_S if self.is_told else min(max(_SHORTEST_S, _PART * takes_s), _LONGEST_S)
            self.due_s = now + pause_s
