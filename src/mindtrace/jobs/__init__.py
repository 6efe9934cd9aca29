"""A job queue with the same guarantees on every backend.

The names below are the public interface; :mod:`mindtrace.jobs.errors` has the errors by themselves. The
clients of SQLite, Redis, RabbitMQ and PostgreSQL are imported when they are first used: only pydantic must
be installed.
"""

from importlib import import_module
from importlib.metadata import version
from importlib.util import find_spec
from typing import TYPE_CHECKING, Any

from mindtrace.jobs import errors
from mindtrace.jobs.adapters.local import (
    LocalClient,
    LocalConsumerBackend,
)
from mindtrace.jobs.application import (
    AsyncJobHandle,
    AsyncJobQueue,
    BatchAnswer,
    BatchConsumer,
    BatchHandler,
    Consumer,
    ConsumeStats,
    JobContextFilter,
    JobHandle,
    JobHandler,
    JobOutcome,
    JobQueue,
    Orchestrator,
    batch_handler,
    job_handler,
)
from mindtrace.jobs.domain import (
    AnyJSON,
    Dead,
    Done,
    HandlerSignal,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Progress,
    Queue,
    QueueKind,
    Reject,
    Retry,
    RetryLater,
    RetryPolicy,
    current_job,
    job_from_schema,
    progress,
)
from mindtrace.jobs.errors import *
from mindtrace.jobs.ports import (
    Attempt,
    Capabilities,
    ConsumerBackend,
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
    from mindtrace.jobs.adapters.postgresql import PostgreSQLClient, PostgreSQLConsumerBackend
    from mindtrace.jobs.adapters.rabbitmq import RabbitMQClient, RabbitMQConsumerBackend
    from mindtrace.jobs.adapters.redis import RedisClient, RedisConsumerBackend, RedisResultStore
    from mindtrace.jobs.adapters.sqlite import SQLiteClient, SQLiteConsumerBackend
    from mindtrace.jobs.application.async_orchestrator import AsyncOrchestrator

    __version__: str

__all__ = [
    "AnyJSON",
    "AsyncJobHandle",
    "AsyncJobQueue",
    "AsyncOrchestrator",
    "Attempt",
    "BatchAnswer",
    "BatchConsumer",
    "BatchHandler",
    "Capabilities",
    "ConsumeStats",
    "Consumer",
    "ConsumerBackend",
    "Dead",
    "DeadLetter",
    "Done",
    "Durability",
    "Failure",
    "Finding",
    "HandlerSignal",
    "Job",
    "JobContextFilter",
    "JobHandle",
    "JobHandler",
    "JobInput",
    "JobOutcome",
    "JobOutput",
    "JobQueue",
    "JobSchema",
    "JobStatus",
    "LocalClient",
    "LocalConsumerBackend",
    "Observer",
    "Orchestrator",
    "OrchestratorBackend",
    "Outcome",
    "PostgreSQLClient",
    "PostgreSQLConsumerBackend",
    "Progress",
    "PublishOutcome",
    "PublishStatus",
    "Queue",
    "QueueCounts",
    "QueueKind",
    "RabbitMQClient",
    "RabbitMQConsumerBackend",
    "RedisClient",
    "RedisConsumerBackend",
    "RedisResultStore",
    "Reject",
    "ResultStore",
    "Retry",
    "RetryLater",
    "RetryPolicy",
    "SQLiteClient",
    "SQLiteConsumerBackend",
    "Verdict",
    "batch_handler",
    "current_job",
    "errors",
    "job_from_schema",
    "job_handler",
    "progress",
]
__all__ += errors.__all__

if not TYPE_CHECKING:
    _LIBRARIES = {"sqlite": "sqlite3", "redis": "redis", "rabbitmq": "pika", "postgresql": "psycopg"}
    _ON_DEMAND = {
        "SQLiteClient": "sqlite",
        "SQLiteConsumerBackend": "sqlite",
        "RedisClient": "redis",
        "RedisConsumerBackend": "redis",
        "RedisResultStore": "redis",
        "RabbitMQClient": "rabbitmq",
        "RabbitMQConsumerBackend": "rabbitmq",
        "PostgreSQLClient": "postgresql",
        "PostgreSQLConsumerBackend": "postgresql",
    }
    # `import *` fetches every name: those whose library isn't installed are left out of it.
    __all__ = [name for name in __all__ if name not in _ON_DEMAND or find_spec(_LIBRARIES[_ON_DEMAND[name]])]

    def __getattr__(name: str) -> Any:
        if name == "AsyncOrchestrator":  # asyncio takes as long to import as half of this package
            return import_module(f"{__name__}.application.async_orchestrator").AsyncOrchestrator
        if name == "__version__":  # what reads it takes as long to import as all adapters together
            return version("mindtrace-jobs")
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
                # Without the version, an installer may take an older release.
                wanted = f"mindtrace-jobs[{adapter}]>={version('mindtrace-jobs')}"
                message = f"{name} needs {error.name}: pip install '{wanted}'"
            raise errors.AdapterNotInstalled(message, name=error.name) from error

    def __dir__() -> list[str]:
        return sorted({*globals(), *_ON_DEMAND, "AsyncOrchestrator", "__version__"})
