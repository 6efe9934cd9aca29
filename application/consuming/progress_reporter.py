"""From a handler's progress to the broker, seldom enough to cost nothing and never able to fail the job."""

from logging import Logger
from time import monotonic
from typing import Any

from ...domain import Job, Progress
from ...domain.printable import printable
from ...ports import ConsumerBackend

_EVERY_S = 0.5
_PAUSE_S = 10.0
"""How long nothing is sent after it failed: a broker that is away must not slow the handler down."""
_MOST = 100
"""How many jobs are remembered before those that may report again are forgotten."""


class ProgressReporter:
    """Tells the broker how far jobs have come, each twice a second at most. Any thread may call it.

    Args:
        backend: Where to tell it; it passes over a job that is settled or whose lease is lost.
        logger: Where a failure is told.
    """

    def __init__(self, backend: ConsumerBackend, logger: Logger) -> None:
        self._backend = backend
        self._logger = logger
        self._next_s: dict[str, float] = {}
        """Before which moment no progress is sent, by receipt."""

    def __call__(self, job: Job[Any], receipt: str, progress: Progress) -> None:
        """Tell it, unless that was done just now."""
        now = monotonic()
        if now < self._next_s.get(receipt, 0.0):
            return
        if len(self._next_s) >= _MOST:
            self._next_s = {each: next_s for each, next_s in list(self._next_s.items()) if next_s > now}
        self._next_s[receipt] = now + _EVERY_S
        try:
            self._backend.report(receipt, progress)
        except Exception as error:
            self._logger.debug("job %s: its progress wasn't told: %s", printable(job.id), error)
            self._next_s[receipt] = now + _PAUSE_S
