"""Pure domain: jobs, schemas, queues, retry policy, the envelope and the errors. No clock, no I/O.

May import the standard library, pydantic, typing-extensions and, for cron expressions, cronsim; nothing else.
"""

from .handler_signals import HandlerSignal, Reject, RetryLater, Snooze
from .job import Job, current_job, job_from_schema, new_job_id
from .job_context import progress
from .job_progress import Progress
from .limits import Limit, Rate
from .queue import Queue, QueueKind, QueueType
from .retry import RetryPolicy
from .schema import AnyJSON, JobInput, JobOutput, JobSchema, SchemaLike, read_schema
from .unique import Unique, UniqueField

__all__ = [
    "AnyJSON",
    "HandlerSignal",
    "Job",
    "JobInput",
    "JobOutput",
    "JobSchema",
    "Limit",
    "Progress",
    "Queue",
    "QueueKind",
    "QueueType",
    "Rate",
    "Reject",
    "RetryLater",
    "RetryPolicy",
    "SchemaLike",
    "Snooze",
    "Unique",
    "UniqueField",
    "current_job",
    "job_from_schema",
    "new_job_id",
    "progress",
    "read_schema",
]
