"""One line of log for each attempt at a job."""

import logging

from ..domain.printable import printable
from ..ports import Attempt, Observer


class JobLogger(Observer):
    """Logs how each attempt ended.

    The record's ``job`` is a dict of id, queue, attempt, duration_s, outcome and error, for formatters that
    write structured logs.
    """

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger

    def ended(self, attempt: Attempt) -> None:
        """Write the line."""
        if not self._logger.isEnabledFor(logging.INFO):
            return
        fields = {
            "id": attempt.job_id,
            "queue": attempt.queue,
            "attempt": attempt.number,
            "duration_s": round(attempt.duration_s, 6),
            "outcome": attempt.outcome.value,
        }
        if attempt.error is not None:
            fields["error"] = attempt.error
        self._logger.info(
            "job %s of %s: %s in %.3f s, attempt %d%s",
            printable(attempt.job_id),
            attempt.queue,
            attempt.outcome.value,
            attempt.duration_s,
            attempt.number,
            "" if attempt.error is None else f": {printable(attempt.error)}",
            extra={"job": fields},
        )
