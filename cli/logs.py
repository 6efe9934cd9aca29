"""The worker's log on stderr: text for people, or one JSON object a line."""

import json
import logging
import sys
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any

from ..application.observing.job_logging import NO_JOB, JobContextFilter
from ..domain.printable import printable, printable_json, printable_lines
from ..ports.base_classes import Mindtrace
from .log_stream import log_stream

WORKER = logging.getLogger("mindtrace.jobs.worker")


_OWN = frozenset(vars(logging.makeLogRecord({}))) | {
    *("message", "asctime", "taskName", "job", "job_id", "job_queue", "job_attempt", "of_job")
}
"""The attributes of a record that its logger and ours give it; all others come from ``extra=``."""


class TextFormatter(logging.Formatter):
    """One line a record, whatever the text of its job; a traceback follows, indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)-7s %(of_job)s%(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Write the line; where a handler wrote it, with the job that it runs."""
        job = {} if record.name == WORKER.name else _job_of(record)  # what a worker says of a job names it
        record.of_job = "[{queue} {id} {attempt}] ".format(**job) if job else ""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Write the traceback."""
        return printable_lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Write the stack that a record asks for."""
        return printable_lines(super().formatStack(stack_info))


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, pid, message, the job, and what ``extra=`` gave it."""

    def format(self, record: logging.LogRecord) -> str:
        """Write the object, on one line."""
        fields: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname.lower(),
            "logger": record.name,
            "pid": record.process,
            "message": record.getMessage(),
        }
        job = getattr(record, "job", None)
        if job := _job_of(record) | (job if isinstance(job, dict) else {}):
            fields["job"] = job
        if extra := {name: value for name, value in vars(record).items() if name not in _OWN}:
            fields["extra"] = extra
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(fields, ensure_ascii=False, default=str))


def configure(log_format: str, log_level: str) -> bool:
    """Send every record of this process to stderr, unless its program has configured logging itself.

    Returns:
        Whether it does so; else the root logger has handlers already, and nothing is changed.
    """
    root = logging.getLogger()
    if root.handlers:
        return False
    handler = logging.StreamHandler(log_stream())
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    handler.addFilter(JobContextFilter())
    handler.setLevel(log_level.upper())
    root.addHandler(handler)
    root.setLevel(log_level.upper())
    _hear_mindtrace_core()
    return True


def _hear_mindtrace_core() -> None:
    """Have what the program's own components of mindtrace-core log reach the root logger as well.

    Where it is installed, it gives the logger ``mindtrace`` a file and stderr, and ends propagation there.
    """
    with suppress(OSError):  # the home folder can't be written: then no component can log
        _ = Mindtrace.logger  # with mindtrace-core, this sets that logger up
    core = logging.getLogger("mindtrace")
    core.propagate = True
    for handler in list(core.handlers):
        if isinstance(handler, logging.StreamHandler) and handler.stream is sys.stderr:
            core.removeHandler(handler)


def _job_of(record: logging.LogRecord) -> dict[str, Any]:
    """The job whose handler wrote a record, as the filter has noted it; else nothing."""
    if getattr(record, "job_id", NO_JOB) == NO_JOB:
        return {}
    fields = vars(record)
    return {"id": fields["job_id"], "queue": fields["job_queue"], "attempt": fields["job_attempt"]}
