"""The same schema and the same consumer on every backend.

A backend whose server isn't there is reported with the way to start one. The exit code is 0 if and only if
the backends that need no server, Local and SQLite, did their work.
"""

import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    JobsError,
    LocalClient,
    Orchestrator,
    OrchestratorBackend,
)

JOBS = 3
FOLDER = tempfile.TemporaryDirectory()  # elsewhere, a file that is to last


class MyJobInput(JobInput):
    x: float = 0.0
    y: float = 0.0


class MyJobOutput(JobOutput):
    total: float = 0.0


class MyConsumer(Consumer):
    def run(self, job: Job[MyJobInput]) -> MyJobOutput:
        return MyJobOutput(total=job.payload.x + job.payload.y)


def local() -> OrchestratorBackend:
    return LocalClient()


def sqlite() -> OrchestratorBackend:
    from mindtrace.jobs import SQLiteClient

    return SQLiteClient(Path(FOLDER.name) / "jobs.db")


def redis() -> OrchestratorBackend:
    from mindtrace.jobs import RedisClient

    return RedisClient(host="localhost", port=6379, db=0)


def rabbitmq() -> OrchestratorBackend:
    from mindtrace.jobs import RabbitMQClient

    return RabbitMQClient(host="localhost", port=5672, username="guest", password="guest")


def postgresql() -> OrchestratorBackend:
    from mindtrace.jobs import PostgreSQLClient

    return PostgreSQLClient(host="localhost", port=5432, database="postgres", username="postgres")


BACKENDS: list[tuple[str, Callable[[], OrchestratorBackend]]] = [
    ("Local", local),
    ("SQLite", sqlite),
    ("Redis", redis),
    ("RabbitMQ", rabbitmq),
    ("PostgreSQL", postgresql),
]


def work_on(make_backend: Callable[[], OrchestratorBackend]) -> str:
    """Publish a few jobs and run them; return the name of the consumer backend that was chosen."""
    schema = JobSchema(name="my_jobs", input=MyJobInput, output=MyJobOutput)
    with make_backend() as backend:
        orchestrator = Orchestrator(backend)
        queue = orchestrator.register(schema)
        orchestrator.publish_batch(queue, [MyJobInput(x=i, y=0.5) for i in range(JOBS)])
        with MyConsumer("my_jobs") as consumer:
            consumer.connect(orchestrator)
            done = consumer.consume(num_messages=JOBS)
            if done != JOBS:
                raise JobsError(f"only {done} of {JOBS} jobs came back")
            return type(consumer.consumer_backend).__name__


def main() -> int:
    missing = {"Local", "SQLite"}
    for name, make_backend in BACKENDS:
        try:
            chosen = work_on(make_backend)
        except ImportError as error:  # the adapter, or the library it needs, isn't installed
            print(f"✗ {name}: not available - {error}")
        except JobsError as error:
            print(f"✗ {name}: failed - {error}")
        else:
            missing.discard(name)
            print(f"✓ {name}: success - Created {chosen}")
    FOLDER.cleanup()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
