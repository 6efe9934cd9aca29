"""Which jobs that wait for places a consumer keeps, and how many it takes to find some that may run."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import inf
from operator import itemgetter

from ...ports import Place, Release
from .backoff import Backoff
from .held_job import HeldJob

_KEPT = 32
"""How many waiting jobs any consumer keeps; of one key no more, unless its limit is large."""
_KEPT_FOR_EACH = 4
"""How many more a consumer keeps for each job that it runs at once, and of a key for each of its places."""
_MOST_KEPT = 1000
_LOOKED_AT = 16
"""How many jobs to take at least, to find one that may run behind those that wait. After looks that found
none it is more, up to ten times as many."""
_SHORTEST_LOOK_S = 0.1
_LONGEST_LOOK_S = 1.0
"""How long to take no more jobs after those that were taken must wait as well; it doubles up to this."""
_SHORTEST_BACK_S = 0.1


class WaitingWindow:
    """The part of a queue that a consumer keeps leased while its keys have no free place.

    A place that gets free needs a job of its key at once, or it stays empty. So the window has jobs of each
    key, and grows with what the consumer runs. What doesn't fit goes back behind the other jobs of the queue,
    and the consumer sees jobs of other keys.

    Args:
        at_once: How many jobs the consumer runs at once.
        limit: Says how many places a key has.
        clock: The consumer's clock.
    """

    def __init__(self, at_once: int, limit: Callable[[], int], clock: Callable[[], float]) -> None:
        self._limit = limit
        self._most = min(max(_KEPT, _KEPT_FOR_EACH * at_once), _MOST_KEPT)
        self._pause = Backoff(clock, _SHORTEST_LOOK_S, _LONGEST_LOOK_S)

    @property
    def _most_of_a_key(self) -> int:
        return max(_KEPT, _KEPT_FOR_EACH * self._limit())

    @property
    def may_look(self) -> bool:
        """Whether to take jobs behind those that wait."""
        return self._pause.is_over

    @property
    def looks_again_s(self) -> float:
        """When to look again; never at a certain time if there is nothing to wait for."""
        return inf if self.may_look else self._pause.until_s

    def look_size(self, running: int) -> int:
        """Return how many jobs to take then, if so many run here."""
        return max(round(_LOOKED_AT * self._pause.growth), 2 * running)

    def note_look(self, taken: Sequence[HeldJob]) -> None:
        """Note which jobs were taken: if none may run, the next look comes later, and takes more."""
        if any(job.has_place for job in taken):
            self._pause.reset()
        elif taken:
            self._pause.begin()

    def note_freed(self, places: Iterable[Place], held: Iterable[HeldJob]) -> None:
        """Look at once if a place was given back for which no job waits; any thread calls this."""
        keys = {job.place.key for job in held if job.place is not None and not job.has_place}
        if any(place.key not in keys for place in places):
            self._pause.reset()

    def send_back(self, jobs: Iterable[HeldJob], job_s: float | None) -> list[Release]:
        """Return the releases of the waiting jobs that are too many to keep.

        Of each key the first jobs stay. A job stays sooner if fewer jobs of its key wait before it.

        Args:
            jobs: In the order in which they came.
            job_s: How long a job has its place, in seconds; None if that isn't known.
        """
        waiting = [(job, job.place.key) for job in jobs if not job.has_place and job.place is not None]
        most_of_a_key = self._most_of_a_key
        if len(waiting) <= min(self._most, most_of_a_key):
            return []
        counts, ranked = Counter[str](), []
        for job, key in waiting:
            ranked.append((counts[key], job, key))
            counts[key] += 1
        ranked.sort(key=itemgetter(0))
        kept = min(self._most, sum(rank < most_of_a_key for rank, _, _ in ranked))
        left = Counter(key for _, _, key in ranked[:kept])
        return [Release(job.receipt, self._back_s(job, left[key], job_s)) for _, job, key in ranked[kept:]]

    def _back_s(self, job: HeldJob, left: int, job_s: float | None) -> float:
        """Return for how long to send a job back: it must be there again before its key has no job here.

        Args:
            job: What goes back.
            left: How many jobs of its key stay.
            job_s: How long a job has its place, in seconds; None if that isn't known.
        """
        if job_s is None:
            return job.back_s
        return max(_SHORTEST_BACK_S, min(job.back_s, left * job_s / self._limit() / 2))
