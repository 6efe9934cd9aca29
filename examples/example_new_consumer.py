"""The same schema and the same consumer on every backend.

A backend whose server isn't there is reported with the way to get one. The exit code is 0 if and only if
the backends that need no server, Local and SQLite, did their work.
"""

import logging
import sys
import tempfile
from collections.abc import Callable
from pathlib import Path

from mindtrace.jobs import (
    BackendUnavailable,
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
WAIT_S = 2.0  # for a server that may not be there; the default, 5 s, survives a restart


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

    return RedisClient(host="localhost", port=6379, db=0, retry_timeout_s=WAIT_S)


def rabbitmq() -> OrchestratorBackend:
    from mindtrace.jobs import RabbitMQClient

    return RabbitMQClient(
        host="localhost", port=5672, username="guest", password="guest", retry_timeout_s=WAIT_S
    )


def postgresql() -> OrchestratorBackend:
    from mindtrace.jobs import PostgreSQLClient

    return PostgreSQLClient(
        host="localhost", port=5432, database="postgres", username="postgres", retry_timeout_s=WAIT_S
    )


BACKENDS: list[tuple[str, Callable[[], OrchestratorBackend]]] = [
    ("Local", local),
    ("SQLite", sqlite),
    ("Redis", redis),
    ("RabbitMQ", rabbitmq),
    ("PostgreSQL", postgresql),
]
HOW_TO_GET = {
    "Redis": "docker run --rm -p 6379:6379 redis:8, or on Debian: apt-get install redis-server",
    "RabbitMQ": "docker run --rm -p 5672:5672 rabbitmq:4, or on Debian: apt-get install rabbitmq-server",
    "PostgreSQL": "docker run --rm -p 5432:5432 -e POSTGRES_HOST_AUTH_METHOD=trust postgres:17",
}


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
    logging.getLogger("mindtrace.jobs").setLevel(logging.ERROR)  # what isn't there is told here, once
    missing = {"Local", "SQLite"}
    for name, make_backend in BACKENDS:
        try:
            chosen = work_on(make_backend)
        except ImportError as error:  # the adapter, or the library it needs, isn't installed
            print(f"✗ {name}: not available - {error}", flush=True)
        except BackendUnavailable as error:
            how = f"\n  To get one: {HOW_TO_GET[name]}" if name in HOW_TO_GET else ""
            print(f"✗ {name}: not there - {error}{how}", flush=True)
        except JobsError as error:
            print(f"✗ {name}: failed - {error}", flush=True)
        else:
            missing.discard(name)
            print(f"✓ {name}: success - Created {chosen}", flush=True)
    FOLDER.cleanup()
    return 1 if missing else 0


if __name__ == "__main__":
    sys.exit(main())
