"""A job queue with the same guarantees on every backend.

The names below are the public interface. Those of Redis and RabbitMQ are imported when first asked for, so
that nothing but pydantic need be installed.
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
    Queue,
    QueueKind,
    Reject,
    RetryLater,
    RetryPolicy,
    job_from_schema,
)
from mindtrace.jobs.domain.errors import AdapterNotInstalled, JobsError
from mindtrace.jobs.ports import (
    Capabilities,
    ConsumerBackend,
    DeadLetter,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
)

__version__ = version("mindtrace-jobs")

_ON_DEMAND = {
    "RedisClient": "redis",
    "RedisConsumerBackend": "redis",
    "RabbitMQClient": "rabbitmq",
    "RabbitMQConsumerBackend": "rabbitmq",
}

__all__ = [
    "Capabilities",
    "ConsumeStats",
    "Consumer",
    "ConsumerBackend",
    "DeadLetter",
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
    "PublishOutcome",
    "PublishStatus",
    "Queue",
    "QueueCounts",
    "QueueKind",
    "Reject",
    "RetryLater",
    "RetryPolicy",
    "job_from_schema",
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
            message = f"{name} needs {error.name}: pip install 'mindtrace-jobs[{adapter}]'"
            raise AdapterNotInstalled(message, name=error.name) from error
