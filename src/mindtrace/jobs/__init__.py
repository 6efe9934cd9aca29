"""A job queue with the same guarantees on every backend.

The names below are the public interface. Those of SQLite, Redis and RabbitMQ are imported when first asked
for, so that nothing but pydantic need be installed.
"""

from importlib import import_module
from importlib.metadata import version
from typing import TYPE_CHECKING, Any

from mindtrace.jobs.adapters.local import LocalClient, LocalConsumerBackend
from mindtrace.jobs.application import Consumer, ConsumeStats, Orchestrator
from mindtrace.jobs.domain import (
    HandlerSignal,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Progress,
    Queue,
    QueueKind,
    Reject,
    RetryLater,
    RetryPolicy,
    job_from_schema,
    progress,
)
from mindtrace.jobs.domain.errors import AdapterNotInstalled, JobsError
from mindtrace.jobs.ports import (
    Capabilities,
    ConsumerBackend,
    DeadLetter,
    Finding,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    ResultStore,
    Verdict,
)

__version__ = version("mindtrace-jobs")

_ON_DEMAND = {
    "SQLiteClient": "sqlite",
    "SQLiteConsumerBackend": "sqlite",
    "RedisClient": "redis",
    "RedisConsumerBackend": "redis",
    "RedisResultStore": "redis",
    "RabbitMQClient": "rabbitmq",
    "RabbitMQConsumerBackend": "rabbitmq",
}

__all__ = [
    "Capabilities",
    "ConsumeStats",
    "Consumer",
    "ConsumerBackend",
    "DeadLetter",
    "Finding",
    "HandlerSignal",
    "Job",
    "JobInput",
    "JobOutput",
    "JobSchema",
    "JobsError",
    "LocalClient",
    "LocalConsumerBackend",
    "Orchestrator",
    "OrchestratorBackend",
    "Progress",
    "PublishOutcome",
    "PublishStatus",
    "Queue",
    "QueueCounts",
    "QueueKind",
    "Reject",
    "ResultStore",
    "RetryLater",
    "RetryPolicy",
    "Verdict",
    "job_from_schema",
    "progress",
]

if not TYPE_CHECKING:

    def __getattr__(name: str) -> Any:
        adapter = _ON_DEMAND.get(name)
        if adapter is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        module = f"{__name__}.adapters.{adapter}"
        try:
            return getattr(import_module(module), name)
        except ModuleNotFoundError as error:
            if adapter == "sqlite":
                message = f"{name} needs {error.name}, a part of Python that this one was built without"
            else:
                message = f"{name} needs {error.name}: pip install 'mindtrace-jobs[{adapter}]'"
            raise AdapterNotInstalled(message, name=error.name) from error
