"""The jobs of a queue in memory that aren't due yet."""

from heapq import heapify, heappop, heappush
from math import ceil, inf

from .order import StoredJob


class DelayedJobs:
    """Jobs by the time when they are due; of those due at one time the one that was put first comes first."""

    def __init__(self) -> None:
        self._heap: list[tuple[float, int, StoredJob]] = []

    def __len__(self) -> int:
        return len(self._heap)

    @property
    def first_due(self) -> float:
        """When the first is due. Asked of the heap each time, as an interrupt may end any call half-way."""
        return self._heap[0][0] if self._heap else inf

    def describe_first(self, now: float) -> str | None:
        """Name the job that is due first, and say when that is by a clock that a test moves."""
        if not self._heap:
            return None
        due, _, job = self._heap[0]
        left_s = ceil((due - now) * 1000) / 1000
        return f"attempt {job.attempt} of job {job.id}, due in {left_s:g} s by the ManualClock"

    def add(self, job: StoredJob, due: float) -> None:
        """Keep a job until it is due; its place says which of two comes first."""
        heappush(self._heap, (due, job.place, job))

    def pop(self) -> StoredJob:
        """Take out the one that is due first."""
        return heappop(self._heap)[2]

    def remove(self, job: StoredJob) -> bool:
        """Take a job out; tell whether it was there."""
        entry = next((entry for entry in self._heap if entry[2] is job), None)
        if entry is None:
            return False
        self._heap.remove(entry)
        heapify(self._heap)
        return True
