"""A job queue with the same guarantees on every backend.

The names below are the public interface; :mod:`mindtrace.jobs.errors` has the errors by themselves. The
values that programs pass around are imported at once, and what does the work (orchestrators, consumers, the
clients of brokers) when it is first asked for. So a program loads only what it uses, and only pydantic must
be installed (ADR 57).
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mindtrace.jobs import errors
from mindtrace.jobs.domain import (
    AnyJSON,
    HandlerSignal,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Limit,
    Progress,
    Queue,
    QueueKind,
    Rate,
    Reject,
    RetryLater,
    RetryPolicy,
    Unique,
    UniqueField,
    current_job,
    job_from_schema,
    progress,
)
from mindtrace.jobs.errors import (
    AccessDenied,
    AdapterNotInstalled,
    AlreadyConnected,
    BackendError,
    BackendUnavailable,
    BodyTooLarge,
    BrokerUnsuitable,
    Closed,
    HandlerMissing,
    ImmutableJob,
    InvalidInput,
    InvalidJob,
    InvalidName,
    InvalidPayload,
    InvalidSchema,
    JobCancelled,
    JobFailed,
    JobNotFound,
    JobReplaced,
    JobsError,
    MalformedBody,
    MigrationNeeded,
    NotConnected,
    NotInHandler,
    PublishUnknown,
    QueueConflict,
    QueueNotFound,
    ResultExpired,
    ResultNotReady,
    ScheduleNotFound,
    SchemaConflict,
    SchemaMismatch,
    SchemaNotRegistered,
    UnknownBackend,
    UnsupportedCapability,
    UsageError,
)
from mindtrace.jobs.ports import (
    Attempt,
    CancelOutcome,
    Capabilities,
    ConsumerBackend,
    CoordinationStore,
    DeadLetter,
    Durability,
    Failure,
    Finding,
    JobStatus,
    Observer,
    OrchestratorBackend,
    Outcome,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    ResultStore,
    Verdict,
)

if TYPE_CHECKING:
    from mindtrace.jobs.adapters.local import LocalClient, LocalConsumerBackend
    from mindtrace.jobs.adapters.postgresql import (
        PostgreSQLClient,
        PostgreSQLConsumerBackend,
        PostgreSQLCoordinationStore,
        PostgreSQLResultStore,
    )
    from mindtrace.jobs.adapters.rabbitmq import RabbitMQClient, RabbitMQConsumerBackend
    from mindtrace.jobs.adapters.redis import (
        RedisClient,
        RedisConsumerBackend,
        RedisCoordinationStore,
        RedisResultStore,
    )
    from mindtrace.jobs.adapters.sqlite import SQLiteClient, SQLiteConsumerBackend
    from mindtrace.jobs.application.async_calls.scheduling import AsyncSchedules
    from mindtrace.jobs.application.async_job_queue import AsyncJobHandle, AsyncJobQueue
    from mindtrace.jobs.application.async_orchestrator import AsyncOrchestrator
    from mindtrace.jobs.application.batch_consumer import BatchAnswer, BatchConsumer, JobOutcome
    from mindtrace.jobs.application.batch_handler import BatchHandler, batch_handler
    from mindtrace.jobs.application.consumer import Consumer
    from mindtrace.jobs.application.consuming.loop import ConsumeStats
    from mindtrace.jobs.application.job_handler import JobHandler, job_handler
    from mindtrace.jobs.application.job_logging import JobContextFilter
    from mindtrace.jobs.application.job_queue import JobHandle, JobQueue
    from mindtrace.jobs.application.orchestrator import Orchestrator
    from mindtrace.jobs.application.pausing.records import Pause
    from mindtrace.jobs.application.schedules.record import Schedule
    from mindtrace.jobs.application.schedules.scheduler import Scheduler
    from mindtrace.jobs.application.schedules.schedules import Schedules
    from mindtrace.jobs.domain.batch_outcomes import Dead, Done, Retry
    from mindtrace.jobs.domain.schedule import Cron, Every
    from mindtrace.jobs.domain.then import Then

    __version__: str

__all__ = [
    "AccessDenied",
    "AdapterNotInstalled",
    "AlreadyConnected",
    "AnyJSON",
    "AsyncJobHandle",
    "AsyncJobQueue",
    "AsyncOrchestrator",
    "AsyncSchedules",
    "Attempt",
    "BackendError",
    "BackendUnavailable",
    "BatchAnswer",
    "BatchConsumer",
    "BatchHandler",
    "BodyTooLarge",
    "BrokerUnsuitable",
    "CancelOutcome",
    "Capabilities",
    "Closed",
    "ConsumeStats",
    "Consumer",
    "ConsumerBackend",
    "CoordinationStore",
    "Cron",
    "Dead",
    "DeadLetter",
    "Done",
    "Durability",
    "Every",
    "Failure",
    "Finding",
    "HandlerMissing",
    "HandlerSignal",
    "ImmutableJob",
    "InvalidInput",
    "InvalidJob",
    "InvalidName",
    "InvalidPayload",
    "InvalidSchema",
    "Job",
    "JobCancelled",
    "JobContextFilter",
    "JobFailed",
    "JobHandle",
    "JobHandler",
    "JobInput",
    "JobNotFound",
    "JobOutcome",
    "JobOutput",
    "JobQueue",
    "JobReplaced",
    "JobSchema",
    "JobStatus",
    "JobsError",
    "Limit",
    "LocalClient",
    "LocalConsumerBackend",
    "MalformedBody",
    "MigrationNeeded",
    "NotConnected",
    "NotInHandler",
    "Observer",
    "Orchestrator",
    "OrchestratorBackend",
    "Outcome",
    "Pause",
    "PostgreSQLClient",
    "PostgreSQLConsumerBackend",
    "PostgreSQLCoordinationStore",
    "PostgreSQLResultStore",
    "Progress",
    "PublishOutcome",
    "PublishStatus",
    "PublishUnknown",
    "Queue",
    "QueueConflict",
    "QueueCounts",
    "QueueKind",
    "QueueNotFound",
    "RabbitMQClient",
    "RabbitMQConsumerBackend",
    "Rate",
    "RedisClient",
    "RedisConsumerBackend",
    "RedisCoordinationStore",
    "RedisResultStore",
    "Reject",
    "ResultExpired",
    "ResultNotReady",
    "ResultStore",
    "Retry",
    "RetryLater",
    "RetryPolicy",
    "SQLiteClient",
    "SQLiteConsumerBackend",
    "Schedule",
    "ScheduleNotFound",
    "Scheduler",
    "Schedules",
    "SchemaConflict",
    "SchemaMismatch",
    "SchemaNotRegistered",
    "Then",
    "Unique",
    "UniqueField",
    "UnknownBackend",
    "UnsupportedCapability",
    "UsageError",
    "Verdict",
    "batch_handler",
    "current_job",
    "errors",
    "job_from_schema",
    "job_handler",
    "progress",
]

if not TYPE_CHECKING:
    _ON_DEMAND = {
        "AsyncJobHandle": "application.async_job_queue",
        "AsyncJobQueue": "application.async_job_queue",
        "AsyncOrchestrator": "application.async_orchestrator",
        "AsyncSchedules": "application.async_calls.scheduling",
        "BatchAnswer": "application.batch_consumer",
        "BatchConsumer": "application.batch_consumer",
        "BatchHandler": "application.batch_handler",
        "ConsumeStats": "application.consuming.loop",
        "Consumer": "application.consumer",
        "Cron": "domain.schedule",
        "Dead": "domain.batch_outcomes",
        "Done": "domain.batch_outcomes",
        "Every": "domain.schedule",
        "JobContextFilter": "application.job_logging",
        "JobHandle": "application.job_queue",
        "JobHandler": "application.job_handler",
        "JobOutcome": "application.batch_consumer",
        "JobQueue": "application.job_queue",
        "LocalClient": "adapters.local",
        "LocalConsumerBackend": "adapters.local",
        "Orchestrator": "application.orchestrator",
        "Pause": "application.pausing.records",
        "PostgreSQLClient": "adapters.postgresql",
        "PostgreSQLConsumerBackend": "adapters.postgresql",
        "PostgreSQLCoordinationStore": "adapters.postgresql",
        "PostgreSQLResultStore": "adapters.postgresql",
        "RabbitMQClient": "adapters.rabbitmq",
        "RabbitMQConsumerBackend": "adapters.rabbitmq",
        "RedisClient": "adapters.redis",
        "RedisConsumerBackend": "adapters.redis",
        "RedisCoordinationStore": "adapters.redis",
        "RedisResultStore": "adapters.redis",
        "Retry": "domain.batch_outcomes",
        "SQLiteClient": "adapters.sqlite",
        "SQLiteConsumerBackend": "adapters.sqlite",
        "Schedule": "application.schedules.record",
        "Scheduler": "application.schedules.scheduler",
        "Schedules": "application.schedules.schedules",
        "Then": "domain.then",
        "batch_handler": "application.batch_handler",
        "job_handler": "application.job_handler",
    }
    """The modules of the names that are imported when they are first asked for."""
    _LIBRARIES = {
        "adapters.postgresql": "psycopg",
        "adapters.rabbitmq": "pika",
        "adapters.redis": "redis",
        "adapters.sqlite": "sqlite3",
    }
    # `import *` fetches every name: those whose library isn't installed are left out of it.
    _missing = {module for module, library in _LIBRARIES.items() if find_spec(library) is None}
    __all__ = [name for name in __all__ if _ON_DEMAND.get(name) not in _missing]

    def __getattr__(name: str) -> Any:
        if name == "__version__":
            return version("mindtrace-jobs")
        module = _ON_DEMAND.get(name)
        if module is None:
            raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
        try:
            return getattr(import_module(f"{__name__}.{module}"), name)
        except ModuleNotFoundError as error:
            if module not in _LIBRARIES:
                raise
            adapter = module.removeprefix("adapters.")
            if adapter == "sqlite":
                message = f"{name} needs {error.name}, a part of Python that this one was built without"
            else:
                from mindtrace.jobs.domain.wording import lacks

                message = lacks(name, error.name, adapter)
            raise errors.AdapterNotInstalled(message, name=error.name) from error

    def __dir__() -> list[str]:
        return sorted({*globals(), *_ON_DEMAND, "__version__"})
