"""The jobs of a queue in memory that wait: for their time (DLY-1), then in order (ORD-1 to ORD-4)."""

from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
from math import ceil, inf
from typing import Protocol

from ...domain.bounds import MAX_PRIORITY
from ...domain.job_progress import Progress
from ...domain.queue import QueueKind
from ...ports import Failure


@dataclass(slots=True, eq=False)
class StoredJob:
    """A job and all that changes about it."""

    id: str
    body: bytes
    priority: int
    place: int = 0
    """Its place in the order of arrival; a job that was retried or delayed arrives anew when due."""
    due: float = 0.0
    """When it is ready, if it is delayed; else 0."""
    attempt: int = 1
    number: int = 0
    crashes: int = 0
    lease_ends: float = 0.0
    history: tuple[Failure, ...] = ()
    progress: Progress | None = None
    """How far the delivery that is leased has come, as it told itself."""
    cancel_ttl_s: float | None = None
    """If its cancellation was asked for while it was leased: for how long to remember that."""


class Order(Protocol):
    """The ready jobs of one queue. An interrupt leaves each of them as it was, or as it was to become."""

    popped: StoredJob | None
    """The job that was popped last. Its taker clears this, so that an interrupt before that loses no job."""

    def __len__(self) -> int: ...

    def add(self, job: StoredJob) -> None:
        """Let a job join that has just become ready, in the order of ``place``."""

    def give_back(self, job: StoredJob) -> None:
        """Let a job return to where it stood (ORD-4)."""

    def remove(self, job: StoredJob) -> None:
        """Take a job out, if it is there."""

    def first(self) -> StoredJob | None:
        """Return the next job, and leave it there; None if none is ready."""

    def pop(self) -> StoredJob:
        """Take the next job.

        Raises:
            IndexError: none is ready.
        """


class FifoOrder:
    """Oldest first."""

    # A job that came back is older than all that wait. A heap orders the few of them; all else costs one
    # operation on a deque.

    def __init__(self) -> None:
        self.popped: StoredJob | None = None
        self._waiting: deque[StoredJob] = deque()
        self._returned: list[tuple[int, StoredJob]] = []
        self.add = self._waiting.append

    def __len__(self) -> int:
        return len(self._waiting) + len(self._returned)

    def give_back(self, job: StoredJob) -> None:
        if self._waiting and job.place > self._waiting[-1].place:  # it had only just arrived
            self._waiting.append(job)
        else:
            heappush(self._returned, (job.place, job))

    def remove(self, job: StoredJob) -> None:
        self._returned = _without(job, self._returned)
        if job in self._waiting:
            self._waiting.remove(job)

    def first(self) -> StoredJob | None:
        if self._returned:
            return self._returned[0][1]
        return self._waiting[0] if self._waiting else None

    def pop(self) -> StoredJob:
        if self._returned:
            job = self.popped = self._returned[0][1]
            heappop(self._returned)
            return job
        job = self.popped = self._waiting[0]
        del self._waiting[0]
        return job


class StackOrder:
    """Newest first."""

    # As above, but a job that came back may be older than some that wait.

    def __init__(self) -> None:
        self.popped: StoredJob | None = None
        self._waiting: list[StoredJob] = []
        self._returned: list[tuple[int, StoredJob]] = []
        self.add = self._waiting.append

    def __len__(self) -> int:
        return len(self._waiting) + len(self._returned)

    def give_back(self, job: StoredJob) -> None:
        heappush(self._returned, (-job.place, job))

    def remove(self, job: StoredJob) -> None:
        self._returned = _without(job, self._returned)
        if job in self._waiting:
            self._waiting.remove(job)

    def first(self) -> StoredJob | None:
        if self._returned_is_next():
            return self._returned[0][1]
        return self._waiting[-1] if self._waiting else None

    def pop(self) -> StoredJob:
        if self._returned_is_next():
            job = self.popped = self._returned[0][1]
            heappop(self._returned)
            return job
        job = self.popped = self._waiting[-1]
        del self._waiting[-1]
        return job

    def _returned_is_next(self) -> bool:
        return bool(self._returned) and (not self._waiting or -self._returned[0][0] > self._waiting[-1].place)


class PriorityOrder:
    """Highest priority first, oldest first within one."""

    def __init__(self) -> None:
        self._levels = [FifoOrder() for _ in range(MAX_PRIORITY + 1)]
        self._popped_from = self._levels[0]

    @property
    def popped(self) -> StoredJob | None:
        return self._popped_from.popped

    @popped.setter
    def popped(self, job: StoredJob | None) -> None:
        self._popped_from.popped = job

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def add(self, job: StoredJob) -> None:
        self._levels[job.priority].add(job)

    def give_back(self, job: StoredJob) -> None:
        self._levels[job.priority].give_back(job)

    def remove(self, job: StoredJob) -> None:
        self._levels[job.priority].remove(job)

    def first(self) -> StoredJob | None:
        return next((level.first() for level in reversed(self._levels) if level), None)

    def pop(self) -> StoredJob:
        for level in reversed(self._levels):
            if level:
                self._popped_from = level
                return level.pop()
        raise IndexError("no job is ready")


def _without(job: StoredJob, returned: list[tuple[int, StoredJob]]) -> list[tuple[int, StoredJob]]:
    """Return the heap of the jobs that came back without this one."""
    left = [each for each in returned if each[1] is not job]
    heapify(left)
    return left


ORDERS: dict[QueueKind, type[FifoOrder] | type[StackOrder] | type[PriorityOrder]] = {
    QueueKind.FIFO: FifoOrder,
    QueueKind.STACK: StackOrder,
    QueueKind.PRIORITY: PriorityOrder,
}


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

    @property
    def first(self) -> StoredJob:
        """The one that is due first."""
        return self._heap[0][2]

    def add(self, job: StoredJob) -> None:
        """Keep a job until it is due; its place says which of two comes first."""
        heappush(self._heap, (job.due, job.place, job))

    def drop_first(self) -> None:
        """Take out the one that is due first."""
        heappop(self._heap)

    def remove(self, job: StoredJob) -> None:
        """Take a job out, if it is there."""
        left = [entry for entry in self._heap if entry[2] is not job]
        heapify(left)
        self._heap = left  # last: an interrupt leaves the heap as it was, or without the job
