"""In which order the jobs that are ready leave a queue (ORD-1 to ORD-4)."""

from collections import deque
from dataclasses import dataclass
from heapq import heapify, heappop, heappush
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
    """The ready jobs of one queue."""

    def __len__(self) -> int: ...

    def add(self, job: StoredJob) -> None:
        """Let a job join that has just become ready, in the order of ``place``."""

    def give_back(self, job: StoredJob) -> None:
        """Let a job return to where it stood (ORD-4)."""

    def remove(self, job: StoredJob) -> None:
        """Take out a job that is ready."""

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
        self._waiting: deque[StoredJob] = deque()
        self._returned: list[tuple[int, StoredJob]] = []
        self.add = self._waiting.append

    def __len__(self) -> int:
        return len(self._waiting) + len(self._returned)

    def give_back(self, job: StoredJob) -> None:
        heappush(self._returned, (job.place, job))

    def remove(self, job: StoredJob) -> None:
        _remove(job, job.place, self._waiting, self._returned)

    def pop(self) -> StoredJob:
        if self._returned:
            return heappop(self._returned)[1]
        return self._waiting.popleft()


class StackOrder:
    """Newest first."""

    # As above, but a job that came back may be older than some that wait.

    def __init__(self) -> None:
        self._waiting: list[StoredJob] = []
        self._returned: list[tuple[int, StoredJob]] = []
        self.add = self._waiting.append

    def __len__(self) -> int:
        return len(self._waiting) + len(self._returned)

    def give_back(self, job: StoredJob) -> None:
        heappush(self._returned, (-job.place, job))

    def remove(self, job: StoredJob) -> None:
        _remove(job, -job.place, self._waiting, self._returned)

    def pop(self) -> StoredJob:
        if self._returned and (not self._waiting or -self._returned[0][0] > self._waiting[-1].place):
            return heappop(self._returned)[1]
        return self._waiting.pop()


class PriorityOrder:
    """Highest priority first, oldest first within one."""

    def __init__(self) -> None:
        self._levels = [FifoOrder() for _ in range(MAX_PRIORITY + 1)]

    def __len__(self) -> int:
        return sum(map(len, self._levels))

    def add(self, job: StoredJob) -> None:
        self._levels[job.priority].add(job)

    def give_back(self, job: StoredJob) -> None:
        self._levels[job.priority].give_back(job)

    def remove(self, job: StoredJob) -> None:
        self._levels[job.priority].remove(job)

    def pop(self) -> StoredJob:
        for level in reversed(self._levels):
            if level:
                return level.pop()
        raise IndexError("no job is ready")


def _remove(
    job: StoredJob,
    rank: int,
    waiting: deque[StoredJob] | list[StoredJob],
    returned: list[tuple[int, StoredJob]],
) -> None:
    """Take a job out of the heap of those that came back, or else out of the others."""
    if (rank, job) in returned:
        returned.remove((rank, job))
        heapify(returned)
    else:
        waiting.remove(job)


ORDERS: dict[QueueKind, type[FifoOrder] | type[StackOrder] | type[PriorityOrder]] = {
    QueueKind.FIFO: FifoOrder,
    QueueKind.STACK: StackOrder,
    QueueKind.PRIORITY: PriorityOrder,
}
