"""Put mutated envelopes straight into each backend, and demand that each is run properly or is a dead letter.

    PYTHONPATH=testing .venv/bin/python -m fuzz --jobs 100000 --seed 1 rabbitmq

Each backend is private: memory, a file, or a server of its own. On RabbitMQ a plain driver publishes half of
them, with properties and headers of all kinds.
"""

import argparse
import logging
import sys
import tempfile
import time
from collections import Counter
from itertools import islice
from pathlib import Path
from random import Random
from typing import Any

from pydantic import Field

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Orchestrator,
    OrchestratorBackend,
    PublishStatus,
    RetryPolicy,
    SQLiteClient,
)
from mindtrace.jobs.ports import Message

from .amqp_properties import properties
from .envelopes import SCHEMA, envelope

BACKENDS = ("memory", "sqlite", "redis", "rabbitmq", "postgresql")
_BATCH = 2000
_RETRY_TIMEOUT_S = 60.0
"""How long a call may take: a busy broker lists thousands of dead letters of a hundred thousand."""
_LISTED = 5000
"""How many dead letters are looked at."""


class Fields(JobInput):
    """A payload of several kinds of fields."""

    n: int = 0
    s: str = ""
    f: float = 0.0
    items: list[Any] = Field(default_factory=list, alias="l")
    d: dict[str, Any] = Field(default_factory=dict)


class Checker(Consumer):
    """Checks that what is run is what a job must be."""

    schema = JobSchema(SCHEMA, input=Fields, retry=RetryPolicy(max_attempts=1, max_crashes=3))

    def __init__(self) -> None:
        super().__init__()
        self.odd: list[str] = []

    def run(self, job: Job[Fields]) -> None:
        """Check one."""
        valid = isinstance(job.payload, Fields) and type(job.priority) is int and 0 <= job.priority <= 9
        if not valid or job.schema_name != SCHEMA:
            self.odd.append(repr(job))


class Fuzz:
    """Mutated envelopes in one backend.

    Args:
        client: The backend.
        seed: What the envelopes are made of.
    """

    def __init__(self, client: OrchestratorBackend, seed: int) -> None:
        self._client = client
        self._random = Random(seed)
        self._orchestrator = Orchestrator(client)
        self._orchestrator.register(Checker.schema)

    def publish(self, jobs: int) -> None:
        """Publish past the orchestrator, whose checks would refuse most."""
        messages = (Message(f"j{n}", envelope(self._random, f"j{n}")) for n in range(jobs))
        while batch := list(islice(messages, _BATCH)):
            statuses = {outcome.status for outcome in self._client.publish(SCHEMA, batch)}
            if statuses != {PublishStatus.ACCEPTED}:
                raise SystemExit(f"published: {statuses}")

    def publish_foreign_messages(self, server: PrivateRabbitMQ, jobs: int) -> None:
        """Publish with a plain driver, and properties of all kinds."""
        connection = server.address.driver()
        channel = connection.channel()
        for n in range(jobs):
            body = envelope(self._random, f"s{n}")
            channel.basic_publish("", f"mtj:default/{SCHEMA}", body, properties(self._random, f"s{n}"))
        connection.close()

    def consume(self, jobs: int, *reasons: str) -> list[str]:
        """Run them all, and return what is wrong; ``reasons`` are what a dead letter may have died of."""
        consumer = Checker()
        consumer.connect(self._orchestrator, poll_timeout_s=1.0)
        attempted = consumer.consume_until_empty()
        stats, counts = consumer.stats, self._orchestrator.counts(SCHEMA)
        letters = self._orchestrator.dead_letters(SCHEMA, limit=_LISTED)
        died_of = Counter(str(letter.reason) for letter in letters)
        print(f"  {attempted} attempted, {stats.done} done, {counts.dead} dead, of them {dict(died_of)}")
        consumer.close()
        wrong = [f"run: {job:.200}" for job in consumer.odd]
        wrong += [f"{jobs} were published"] * (stats.done + counts.dead != jobs)
        wrong += [f"{counts} is left"] * bool(counts.waiting or counts.in_flight)
        wrong += [f"dead of {reason}: {times}" for reason, times in died_of.items() if reason not in reasons]
        return wrong


def fuzz(name: str, folder: Path, jobs: int, seed: int) -> list[str]:
    """Fuzz one backend, and return what is wrong."""
    if name == "rabbitmq":
        return _fuzz_rabbitmq(PrivateRabbitMQ(folder), jobs, seed)
    if name in ("redis", "postgresql"):
        server = PrivateRedis(folder) if name == "redis" else PrivatePostgreSQL(folder, fsync="off")
        try:
            return _fuzz(server.start().client(retry_timeout_s=_RETRY_TIMEOUT_S), jobs, seed)
        finally:
            server.close()
    return _fuzz(LocalClient() if name == "memory" else SQLiteClient(folder / "jobs.db"), jobs, seed)


def _fuzz(client: OrchestratorBackend, jobs: int, seed: int) -> list[str]:
    with client:
        run = Fuzz(client, seed)
        run.publish(jobs)
        return run.consume(jobs, "malformed")


def _fuzz_rabbitmq(server: PrivateRabbitMQ, jobs: int, seed: int) -> list[str]:
    try:
        server.start()
        with server.client(prefetch=None, retry_timeout_s=_RETRY_TIMEOUT_S) as client:
            run = Fuzz(client, seed)
            run.publish(jobs - jobs // 2)
            run.publish_foreign_messages(server, jobs // 2)
            give_up = time.monotonic() + 60.0
            while client.counts(SCHEMA).ready < jobs and time.monotonic() < give_up:
                time.sleep(0.1)  # the driver's publishes aren't confirmed
            # A header that says how often a job killed its worker is believed, also from a foreign client.
            return run.consume(jobs, "malformed", "crash budget exhausted")
    finally:
        server.kill()


def main() -> int:
    """Fuzz each backend that is named, and return 1 if anything is wrong."""
    parser = argparse.ArgumentParser(prog="python -m fuzz", description=__doc__.split("\n")[0])
    parser.add_argument(
        "backends", nargs="*", metavar="BACKEND", help=f"of {', '.join(BACKENDS)}; all by default"
    )
    parser.add_argument("--jobs", type=int, default=100_000)
    parser.add_argument("--seed", type=int, default=1)
    options = parser.parse_args()
    if unknown := set(options.backends) - set(BACKENDS):
        parser.error(f"no backend {', '.join(sorted(unknown))}: choose of {', '.join(BACKENDS)}")
    logging.disable(logging.CRITICAL)
    failed = False
    for name in options.backends or BACKENDS:
        print(f"{name}: {options.jobs} envelopes, seed {options.seed}", flush=True)
        with tempfile.TemporaryDirectory(prefix="fuzz-") as folder:
            wrong = fuzz(name, Path(folder), options.jobs, options.seed)
        print(*(f"  WRONG {line}" for line in wrong[:20]), sep="\n")
        failed = failed or bool(wrong)
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
