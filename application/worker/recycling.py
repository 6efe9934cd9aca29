"""Recycling: a process that has run many jobs, or holds much memory, asks for another in its place."""

from _thread import allocate_lock
from collections.abc import Callable
from itertools import count
from logging import Logger

from ...domain.wording import quantity
from ...ports import Attempt, Observer, Outcome
from .memory import resident_bytes

_MIB = 1 << 20


class RecyclingLimits(Observer):
    """Asks once for this process to be replaced: after so many jobs, or with so much memory.

    The process works on until it is its turn, so it may run further jobs.

    Args:
        ask: Asks, and is told why. It is called on the thread of a job.
        logger: Where it tells that the memory never was below the limit.
        max_jobs: After how many runs of handlers it asks; None is any number.
        max_memory_bytes: It asks when a handler has ended and the process holds more; None is any number.
    """

    def __init__(
        self,
        ask: Callable[[str], None],
        logger: Logger,
        *,
        max_jobs: int | None = None,
        max_memory_bytes: int | None = None,
    ) -> None:
        self._ask = ask
        self._logger = logger
        self._max_jobs = max_jobs
        self._max_memory_bytes = max_memory_bytes
        self._numbers = count(1)
        self._asking = allocate_lock()
        """Taken once, but given back if it couldn't ask."""

    def ended(self, attempt: Attempt) -> None:
        """Count it, unless no handler ran."""
        if attempt.outcome is Outcome.EXPIRED:
            return
        number = next(self._numbers)
        if not self._asking.locked() and (why := self._why(number)) and self._asking.acquire(blocking=False):
            try:
                self._ask(why)
            except BaseException:
                self._asking.release()
                raise

    def _why(self, jobs: int) -> str | None:
        """Say why the process is to be replaced after so many jobs, if it is."""
        ran = quantity(jobs, "job")
        if self._max_jobs is not None and jobs >= self._max_jobs:
            return f"it has run {ran}, of at most {self._max_jobs:,}"
        limit = self._max_memory_bytes
        if limit is None or (held := resident_bytes()) <= limit:
            return None
        if jobs == 1:
            self._logger.warning(
                "this process holds %d MiB after its first job, and may hold %d MiB: each process runs few "
                "jobs; give them more memory",
                held // _MIB,
                limit // _MIB,
            )
        return f"it holds {held // _MIB} MiB after {ran}, of at most {limit // _MIB} MiB"
