"""The result store beside RabbitMQ, behind a circuit breaker for those who can do without it."""

import threading
from collections.abc import Callable, Sequence
from logging import Logger
from time import monotonic
from typing import TypeVar

from ...domain import RetryPolicy
from ...domain.errors import BackendUnavailable, JobsError
from ...domain.wording import quantity
from ...ports import EndedJob, EndedJobs, JobResult, ResultStore

_PAUSES = RetryPolicy(base_delay_s=1.0, max_delay_s=10.0)
"""Between two calls that wait for a store that was away. Results are lost for so long after it is back."""

AnswerT = TypeVar("AnswerT")


class Results:
    """A client's way to its result store.

    :meth:`get` and :meth:`forget` need the store, and raise what it raises. :meth:`try_put` and
    :meth:`try_forget` never raise: after one call found the store away, they skip it, so that an outage
    delays publishers and consumers once, and not with each job. From time to time one of them tries again.

    Args:
        store: The store, which is closed with this.
        logger: Where an outage is told, once when it begins and once when it ends.
    """

    def __init__(self, store: ResultStore, logger: Logger) -> None:
        self._store = store
        self._logger = logger
        self._lock = threading.Lock()
        self._failures = 0
        """How many calls in a row found the store away."""
        self._again_s = 0.0
        """When the next call may try, while it is away."""

    def get(self, queue: str, job_id: str, *, timeout_s: float) -> JobResult | None:
        """Say how a job ended, waiting up to ``timeout_s`` seconds for it to end (RES-1)."""
        return self._call(lambda: self._store.get(queue, job_id, timeout_s=timeout_s))

    def get_many(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        """Say how those of these jobs ended that have."""
        return self._call(lambda: self._store.get_many(queue, ids))

    def ended_jobs(self, queue: str) -> EndedJobs:
        """Open what tells which jobs end from now on."""
        return self._call(lambda: self._store.ended_jobs(queue))

    def forget(self, queue: str, ids: Sequence[str] | None) -> None:
        """Forget how jobs of these ids ended, or how all of the queue's did."""
        self._call(lambda: self._store.forget(queue, ids))

    def try_forget(self, queue: str, ids: Sequence[str]) -> None:
        """Forget them unless the store is away. Only ids that are used again need it."""
        self._try(
            lambda: self._store.forget(queue, ids),
            f"earlier results of {quantity(len(ids), 'job')} aren't forgotten",
        )

    def try_put(self, queue: str, ended: Sequence[EndedJob]) -> None:
        """Store how jobs ended, unless the store is away."""
        self._try(
            lambda: self._store.put(queue, ended),
            f"the results of {quantity(len(ended), 'job')} are lost",
        )

    def close(self) -> None:
        """Close the store."""
        self._store.close()

    def _try(self, call: Callable[[], None], loss: str) -> None:
        if not self._may_try():
            self._logger.debug("the result store is away: %s", loss)
            return
        try:
            self._call(call)
        except BackendUnavailable as error:
            if self._failures == 1:
                self._logger.warning("the result store is away, and skipped meanwhile; %s: %s", loss, error)
        except JobsError as error:
            self._logger.warning("%s: %s", loss, error)

    def _may_try(self) -> bool:
        with self._lock:
            now = monotonic()
            if self._failures and now < self._again_s:
                return False
            self._again_s = now + _PAUSES.longest_delay_s(self._failures + 1)  # for the others meanwhile
            return True

    def _call(self, call: Callable[[], AnswerT]) -> AnswerT:
        try:
            answer = call()
        except BackendUnavailable:
            with self._lock:
                self._failures += 1
                self._again_s = monotonic() + _PAUSES.longest_delay_s(self._failures)
            raise
        if self._failures:
            with self._lock:
                self._failures = 0
            self._logger.warning("the result store is back")
        return answer
