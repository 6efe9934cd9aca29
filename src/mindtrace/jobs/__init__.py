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
    Snooze,
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
    JobExpired,
    JobFailed,
    JobNotFound,
    JobReplaced,
    JobsError,
    JobTimedOut,
    LimitNotFound,
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
    StartFailed,
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
    from mindtrace.jobs.application.api.batch_consumer import BatchAnswer, BatchConsumer, JobOutcome
    from mindtrace.jobs.application.api.batch_handler import BatchHandler, batch_handler
    from mindtrace.jobs.application.api.consumer import Consumer
    from mindtrace.jobs.application.api.job_handler import JobHandler, job_handler
    from mindtrace.jobs.application.api.job_queue import JobHandle, JobQueue, PublishedJob
    from mindtrace.jobs.application.api.orchestrator import Orchestrator
    from mindtrace.jobs.application.api_async.async_job_queue import (
        AsyncJobHandle,
        AsyncJobQueue,
        AsyncPublishedJob,
    )
    from mindtrace.jobs.application.api_async.async_orchestrator import AsyncOrchestrator
    from mindtrace.jobs.application.api_async.scheduling import AsyncSchedules
    from mindtrace.jobs.application.consuming.loop import ConsumeStats
    from mindtrace.jobs.application.consuming.middleware import Middleware
    from mindtrace.jobs.application.limits.changes import LimitChange
    from mindtrace.jobs.application.limits.overview import KeyUse, LimitUse, RateTerms, RateUse
    from mindtrace.jobs.application.observing.job_logging import JobContextFilter
    from mindtrace.jobs.application.pausing.records import Pause
    from mindtrace.jobs.application.schedules.record import Schedule
    from mindtrace.jobs.application.schedules.scheduler import Scheduler
    from mindtrace.jobs.application.schedules.schedules import Schedules
    from mindtrace.jobs.domain.batch_outcomes import Dead, Done, Retry
    from mindtrace.jobs.domain.dead_job import DeadJob
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
    "AsyncPublishedJob",
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
    "DeadJob",
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
    "JobExpired",
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
    "JobTimedOut",
    "JobsError",
    "KeyUse",
    "Limit",
    "LimitChange",
    "LimitNotFound",
    "LimitUse",
    "LocalClient",
    "LocalConsumerBackend",
    "MalformedBody",
    "Middleware",
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
    "PublishedJob",
    "Queue",
    "QueueConflict",
    "QueueCounts",
    "QueueKind",
    "QueueNotFound",
    "RabbitMQClient",
    "RabbitMQConsumerBackend",
    "Rate",
    "RateTerms",
    "RateUse",
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
    "Snooze",
    "StartFailed",
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
        "AsyncJobHandle": "application.api_async.async_job_queue",
        "AsyncJobQueue": "application.api_async.async_job_queue",
        "AsyncPublishedJob": "application.api_async.async_job_queue",
        "AsyncOrchestrator": "application.api_async.async_orchestrator",
        "AsyncSchedules": "application.api_async.scheduling",
        "BatchAnswer": "application.api.batch_consumer",
        "BatchConsumer": "application.api.batch_consumer",
        "BatchHandler": "application.api.batch_handler",
        "ConsumeStats": "application.consuming.loop",
        "Consumer": "application.api.consumer",
        "Cron": "domain.schedule",
        "Dead": "domain.batch_outcomes",
        "DeadJob": "domain.dead_job",
        "Done": "domain.batch_outcomes",
        "Every": "domain.schedule",
        "JobContextFilter": "application.observing.job_logging",
        "JobHandle": "application.api.job_queue",
        "JobHandler": "application.api.job_handler",
        "JobOutcome": "application.api.batch_consumer",
        "JobQueue": "application.api.job_queue",
        "PublishedJob": "application.api.job_queue",
        "KeyUse": "application.limits.overview",
        "LimitChange": "application.limits.changes",
        "LimitUse": "application.limits.overview",
        "LocalClient": "adapters.local",
        "LocalConsumerBackend": "adapters.local",
        "Middleware": "application.consuming.middleware",
        "Orchestrator": "application.api.orchestrator",
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
        "RateTerms": "application.limits.overview",
        "RateUse": "application.limits.overview",
        "Retry": "domain.batch_outcomes",
        "SQLiteClient": "adapters.sqlite",
        "SQLiteConsumerBackend": "adapters.sqlite",
        "Schedule": "application.schedules.record",
        "Scheduler": "application.schedules.scheduler",
        "Schedules": "application.schedules.schedules",
        "Then": "domain.then",
        "batch_handler": "application.api.batch_handler",
        "job_handler": "application.api.job_handler",
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
