"""What users call: ``Orchestrator`` and ``Consumer``, and what runs a job. Never imports an adapter."""

from .async_job_queue import AsyncJobHandle, AsyncJobQueue
from .batch_consumer import BatchAnswer, BatchConsumer, JobOutcome
from .batch_handler import BatchHandler, batch_handler
from .consumer import Consumer
from .consuming.loop import ConsumeStats
from .job_handler import JobHandler, job_handler
from .job_logging import JobContextFilter
from .job_queue import JobHandle, JobQueue
from .orchestrator import Orchestrator

__all__ = [
    "AsyncJobHandle",
    "AsyncJobQueue",
    "BatchAnswer",
    "BatchConsumer",
    "BatchHandler",
    "ConsumeStats",
    "Consumer",
    "JobContextFilter",
    "JobHandle",
    "JobHandler",
    "JobOutcome",
    "JobQueue",
    "Orchestrator",
    "batch_handler",
    "job_handler",
]
