"""What users call: ``Orchestrator`` and ``Consumer``, and what runs a job. Never imports an adapter."""

from .consumer import Consumer
from .consuming.loop import ConsumeStats
from .job_handler import JobHandler, job_handler
from .job_logging import JobContextFilter
from .job_queue import JobHandle, JobQueue
from .orchestrator import Orchestrator

__all__ = [
    "ConsumeStats",
    "Consumer",
    "JobContextFilter",
    "JobHandle",
    "JobHandler",
    "JobQueue",
    "Orchestrator",
    "job_handler",
]
