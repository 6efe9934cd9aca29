"""The jobs of a queue in memory that have ended: dead letters, results, and who waits for them."""

import threading
from collections import OrderedDict
from collections.abc import Callable, Iterable
from datetime import UTC, datetime
from heapq import heappop, heappush
from itertools import islice
from math import inf
from time import monotonic
from typing import Any, NamedTuple, TypeVar

from ...ports import Ack, Dead, DeadLetter, JobResult, ResultStatus
from ...ports.signal_safe_event import SignalSafeEvent
from ..shared.records import REMEMBERED_ENDS
from .clock import Clock
from .order import StoredJob
from .waits import Waits

FoundT = TypeVar("FoundT")

_FEW = 100
_STATUS_DONE = ResultStatus.DONE
_DONE = JobResult(_STATUS_DONE)
_new_result: Callable[[type[JobResult], tuple[Any, ...]], JobResult] = tuple.__new__
"""Makes one in a third of the time of ``JobResult(...)``."""


class StoredLetter(NamedTuple):
    """A dead job, its letter, and when that is to be removed."""

    job: StoredJob
    letter: DeadLetter
    until: float


class DeadLetters(dict[str, StoredLetter]):
    """The dead jobs by id, oldest first. The caller holds the queue's lock."""

    def __init__(self) -> None:
        super().__init__()
        self.ends: list[tuple[float, int, StoredJob]] = []
        """A heap of those that aren't kept for ever: until when, and the job's place, which no other has.

        It may have some that are no longer dead, but no more than half of it, and a few.
        """

    def plan_end(self, job: StoredJob, ttl_s: float | None, now: float) -> float:
        """Plan when a job that dies just now is removed, and return the moment; an interrupt does no harm."""
        if ttl_s is None:
            return inf
        if len(self.ends) > 2 * len(self) + _FEW:
            self.ends = sorted(each for each in self.ends if self._is_planned(each[2], inf))
        heappush(self.ends, (now + ttl_s, job.place, job))
        return now + ttl_s

    def remove_expired(self, now: float) -> None:
        """Remove those whose time is over (DLQ-5)."""
        while self.ends and self.ends[0][0] <= now:
            job = self.ends[0][2]
            if self._is_planned(job, now):
                self.pop(job.id, None)
            heappop(self.ends)  # last: after an interrupt the next call removes the job

    def _is_planned(self, job: StoredJob, now: float) -> bool:
        """Whether a job is still dead, and is to be removed by this moment."""
        found = self.get(job.id)
        return found is not None and found.job is job and found.until <= now

    @staticmethod
    def letter(job: StoredJob, dead: Dead, now: float) -> DeadLetter:
        """Return the letter of a job that died just now."""
        return DeadLetter(
            id=job.id,
            body=job.body,
            reason=dead.reason,
            error=dead.error,
            attempt=job.attempt,
            crashes=job.crashes,
            died_at=datetime.fromtimestamp(now, UTC),
            history=job.history,
        )

    def page(self, limit: int, offset: int) -> list[DeadLetter]:
        """List some of the letters."""
        return [dead.letter for dead in islice(self.values(), offset, offset + limit)]

    def find(self, ids: Iterable[str] | None) -> list[StoredJob]:
        """Return the jobs of these ids, or all."""
        wanted = list(self) if ids is None else [id_ for id_ in dict.fromkeys(ids) if id_ in self]
        return [self[id_].job for id_ in wanted]


class Results:
    """Keeps the results of jobs until they expire. The caller holds the queue's lock."""

    def __init__(self) -> None:
        # A plain dict is slow to find its first item once many before it were deleted.
        self._results: OrderedDict[str, tuple[float, JobResult]] = OrderedDict()
        self._ended_ids: OrderedDict[str, None] = OrderedDict()

    def keep(self, job_id: str, ack: Ack, now: float) -> None:
        """Keep the result of a job that is done; or remember that it is, if it has none."""
        if ack.result is not None:
            self._forget_expired(now)
            kept = _new_result(JobResult, (_STATUS_DONE, ack.result, None))
            self._results[job_id] = (now + ack.result_ttl_s, kept)
            self._results.move_to_end(job_id)
            return
        self._ended_ids[job_id] = None
        if len(self._ended_ids) > REMEMBERED_ENDS:
            self._ended_ids.popitem(last=False)

    def keep_cancelled(self, job_id: str, ttl_s: float, now: float) -> None:
        """Remember that a job was cancelled."""
        self.forget(job_id)
        self._forget_expired(now)
        self._results[job_id] = (now + ttl_s, JobResult(ResultStatus.CANCELLED))

    def forget(self, job_id: str) -> None:
        """Forget how a job ended whose id was published again."""
        self._results.pop(job_id, None)
        self._ended_ids.pop(job_id, None)

    def find(self, job_id: str, now: float) -> JobResult | None:
        """Return how a job ended, or None if that is unknown or has expired."""
        expires, result = self._results.get(job_id, (now, None))
        if expires > now:
            return result
        return _DONE if job_id in self._ended_ids else None

    def _forget_expired(self, now: float) -> None:
        # Results of one queue are mostly kept equally long, so the first to be stored expires first.
        while self._results and next(iter(self._results.values()))[0] <= now:
            self._results.popitem(last=False)


class EndNotifier:
    """Tells of jobs that end. The caller holds the queue's lock, but for :meth:`wait_for`.

    Args:
        lock: The queue's lock.
        clock: Its clock.
    """

    def __init__(self, lock: threading.Lock, clock: Clock) -> None:
        self._lock = lock
        self._clock = clock
        self.waits = Waits()
        self.told: list[set[str]] = []
        """Where to put the id of each job that ends."""

    def stop_telling(self, ended: set[str]) -> None:
        """Put no ids into ``ended`` any more."""
        self.told = [each for each in self.told if each is not ended]

    def tell(self, ids: Iterable[str]) -> None:
        """Tell that these jobs ended, and wake those who wait."""
        self.note(ids)
        self.wake()

    def note(self, ids: Iterable[str]) -> None:
        """Tell that these jobs ended; :meth:`wake` wakes those who wait."""
        for ended in self.told:
            ended.update(ids)

    def wake(self) -> None:
        """Wake those who wait, so that they look."""
        if self.waits:
            self.waits.notify_all()

    def wait_for(self, look: Callable[[], FoundT | None], timeout_s: float) -> FoundT | None:
        """Return what ``look`` finds, now or when jobs have ended; None after ``timeout_s`` seconds.

        ``look`` is called with the lock held.
        """
        wake = SignalSafeEvent()
        try:
            return self._wait_for(look, wake, monotonic() + timeout_s)
        finally:
            with self._lock:
                self.waits.pop(wake, None)

    def _wait_for(
        self, look: Callable[[], FoundT | None], wake: SignalSafeEvent, give_up_s: float
    ) -> FoundT | None:
        while (found := self._look(look, wake)) is None:
            remaining_s = give_up_s - monotonic()
            if remaining_s <= 0:
                break
            self._clock.wait_until(inf, wake, remaining_s)
        return found

    def _look(self, look: Callable[[], FoundT | None], wake: SignalSafeEvent) -> FoundT | None:
        with self._lock:
            self.waits.join(wake)
            return look()
