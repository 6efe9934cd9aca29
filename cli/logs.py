"""The worker's log on stderr: text for people, or one JSON object a line."""

import json
import logging
import sys
from datetime import UTC, datetime
from typing import Any

WORKER = logging.getLogger("mindtrace.jobs.worker")


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
        return json.dumps(fields, ensure_ascii=False, default=str)


def configure(log_format: str, log_level: str) -> None:
    """Send every record of this process to stderr."""
    handler = logging.StreamHandler(sys.stderr)
    if log_format == "json":
        handler.setFormatter(JsonFormatter())
    else:
        text = "%(asctime)s %(process)d %(levelname)-7s %(message)s"
        handler.setFormatter(logging.Formatter(text, datefmt="%H:%M:%S"))
    logging.basicConfig(level=log_level.upper(), handlers=[handler], force=True)
