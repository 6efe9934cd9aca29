"""One schema and one consumer on every backend in turn; a backend that isn't there fails on its own line."""

import importlib
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

from mindtrace.jobs import Consumer, Job, JobInput, JobOutput, JobSchema, Orchestrator


class MyJobInput(JobInput):
    x: float = 0.0


class MyJobOutput(JobOutput):
    pass


class MyConsumer(Consumer):
    def run(self, job: Job[MyJobInput]) -> None:
        print(f"Processing job {job.id}")


folder = tempfile.TemporaryDirectory()
schema = JobSchema(name="my_jobs", input=MyJobInput(), output=MyJobOutput())


def client(name: str, **settings: Any) -> Callable[[], Any]:
    """Make a client when it is asked for, so that one that isn't installed fails on its own."""
    return lambda: getattr(importlib.import_module("mindtrace.jobs"), name)(**settings)


def test_all_backends() -> None:
    backends = [
        ("Local", client("LocalClient")),
        ("SQLite", client("SQLiteClient", path=Path(folder.name) / "jobs.db")),
        ("Redis", client("RedisClient", host="localhost", port=6379, db=0)),
        ("RabbitMQ", client("RabbitMQClient", host="localhost", username="guest", password="guest")),
        ("PostgreSQL", client("PostgreSQLClient", host="localhost", username="postgres")),
    ]

    for name, make_backend in backends:
        try:
            orchestrator = Orchestrator(make_backend())
            orchestrator.register(schema)
            orchestrator.publish("my_jobs", MyJobInput(x=1))

            consumer = MyConsumer("my_jobs")
            consumer.connect(orchestrator)
            print(f"✓ {name} backend: {type(consumer.consumer_backend).__name__}")

            consumer.consume(num_messages=1)
        except Exception as e:
            print(f"✗ {name} backend failed: {e}")


if __name__ == "__main__":
    with folder:
        test_all_backends()
