"""The worker's log on stderr: text for people, or one JSON object a line."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

from ..domain.printable import printable, printable_json, printable_lines

WORKER = logging.getLogger("mindtrace.jobs.worker")


class TextFormatter(logging.Formatter):
    """One line a record, whatever the text of its job; a traceback follows, indented."""

    def __init__(self) -> None:
        super().__init__("%(asctime)s %(process)d %(levelname)-7s %(message)s", datefmt="%H:%M:%S")

    def formatMessage(self, record: logging.LogRecord) -> str:  # noqa: N802
        """Write the line."""
        return printable(super().formatMessage(record))

    def formatException(self, ei: Any) -> str:  # noqa: N802
        """Write the traceback."""
        return printable_lines(super().formatException(ei))

    def formatStack(self, stack_info: str) -> str:  # noqa: N802
        """Write the stack that a record asks for."""
        return printable_lines(super().formatStack(stack_info))


class JsonFormatter(logging.Formatter):
    """One JSON object a record: time, level, logger, pid, message, and what belongs to a job."""

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
        if isinstance(job, dict):
            fields["job"] = job
        if record.exc_info:
            fields["traceback"] = self.formatException(record.exc_info)
        return printable_json(json.dumps(fields, ensure_ascii=False, default=str))


def configure(log_format: str, log_level: str) -> None:
    """Send every record of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if log_format == "json" else TextFormatter())
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
