"""How the jobs of a queue in memory ended: done, with or without a result, or cancelled."""

from collections import OrderedDict
from collections.abc import Callable
from typing import Any

from ...ports import Ack, JobResult, ResultStatus

_REMEMBERED_ENDS = 10_000
"""How many of the last jobs without a result are remembered as done."""

_STATUS_DONE = ResultStatus.DONE
_DONE = JobResult(_STATUS_DONE)
_new_result: Callable[[type[JobResult], tuple[Any, ...]], JobResult] = tuple.__new__
"""Makes one in a third of the time of ``JobResult(...)``."""


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
        if len(self._ended_ids) > _REMEMBERED_ENDS:
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
