"""Logs of jobs: a line for each attempt, and on every line the job that it belongs to."""

import logging

from ...domain.job_context import BatchContext, running
from ...domain.printable import printable
from ...ports import Attempt, Observer, Outcome

NO_JOB = "-"
"""What stands in a record that belongs to no job."""


class JobContextFilter(logging.Filter):
    """Adds the job to each record that its handler writes, with any logger.

    The record gets ``job_queue``, ``job_id`` and ``job_attempt``, for example for the format
    ``"%(levelname)s [%(job_queue)s %(job_id)s %(job_attempt)s] %(message)s"``. Outside a handler each is
    ``"-"``; in the handler of a batch the id and the attempt are. Add it to handlers, not to loggers: a
    logger's filters don't see what its children log. Where a ``QueueHandler`` passes records to another
    thread, add it to that one.
    """

    def filter(self, record: logging.LogRecord) -> bool:
        """Add the attributes, unless another filter did; keep every record."""
        if not hasattr(record, "job_id"):
            context = running.get()
            if context is None:
                record.job_queue = record.job_id = record.job_attempt = NO_JOB
            elif isinstance(context, BatchContext):
                record.job_queue = context.consumer.queue
                record.job_id = record.job_attempt = NO_JOB
            else:
                job, _, consumer = context
                record.job_queue = consumer.queue
                record.job_id = job.id
                record.job_attempt = job.attempt
        return True


class JobLogger(Observer):
    """Logs how each attempt ended.

    The record's ``job`` is a dict of id, queue, attempt, duration_s, outcome and error, for formatters that
    write structured logs; it has ``timed_out`` if the attempt failed once its time limit was over.
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
        if attempt.timed_out:
            fields["timed_out"] = True
        self._logger.info(
            "job %s of %s: attempt %d %s: %s%s",
            printable(attempt.job_id),
            attempt.queue,
            attempt.number,
            "wasn't run" if attempt.outcome is Outcome.EXPIRED else f"ran for {attempt.duration_s:.3f} s",
            attempt.outcome.value,
            "" if attempt.error is None else f": {printable(attempt.error)}",
            extra={"job": fields},
        )
