"""A worker whose jobs run until the test says a word: limited, unique, chained or plain ones.

It writes down each start and end of a job, and each place that the store gave it.
"""

import argparse
import os
import sys
import threading
import time
from pathlib import Path
from typing import NamedTuple

from job_audit import ExecutionRecord
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Limit, Orchestrator, RetryPolicy, Then, Unique
from place_audit import PlaceLog

LIMIT = 2
CONCURRENCY = 6
LINKS = 4
"""How many jobs a chain has."""
GO = b"go\n"
"""What ends the jobs that run, and has later ones end at once."""


class Keyed(JobInput):
    key: str = "only"
    number: int = 0


RETRY = RetryPolicy(max_crashes=100)
PLAIN = JobSchema("plain", Keyed, retry=RETRY)
LIMITED = JobSchema("limited", Keyed, retry=RETRY, concurrency_limit=Limit(LIMIT, by="key"))
UNIQUE = JobSchema("unique", Keyed, retry=RETRY, unique=Unique(by=("key",)))
CHAINED = JobSchema("chained", Keyed, retry=RETRY)
SCHEMAS = {schema.name: schema for schema in (PLAIN, LIMITED, UNIQUE, CHAINED)}


def links_of(first: str) -> list[str]:
    """Return the ids of a chain's jobs, by that of the first."""
    return [first, *(f"{first}.{number}" for number in range(1, LINKS))]


class Files(NamedTuple):
    """What the workers of an experiment write."""

    started: Path
    finished: Path
    moments: Path
    """A line for each start and end: which, the job, the monotonic clock of the machine."""
    places: Path

    @classmethod
    def within(cls, folder: Path) -> "Files":
        """Return those of a folder, all of which exist."""
        files = cls(*(folder / name for name in cls._fields))
        for file in files:
            file.touch()
        return files


class Work(Consumer[Keyed]):
    """Runs each job until the word has come."""

    def __init__(self, schema: JobSchema, files: Files, go: threading.Event) -> None:
        super().__init__(schema.name)  # registered by then
        self._go = go
        self._started = ExecutionRecord(files.started).writer()
        self._finished = ExecutionRecord(files.finished).writer()
        self._moments = os.open(files.moments, os.O_WRONLY | os.O_APPEND)

    def run(self, job: Job[Keyed]) -> Then | None:
        self._note("start", job)
        ExecutionRecord.write(self._started, job.id)
        self._go.wait()
        ExecutionRecord.write(self._finished, job.id)
        self._note("end", job)
        return self._next(job) if job.schema_name == CHAINED.name else None

    def _next(self, job: Job[Keyed]) -> Then | None:
        links = links_of(job.id.partition(".")[0])
        number = links.index(job.id) + 1
        return Then(CHAINED, job.payload, id=links[number]) if number < LINKS else None

    def _note(self, what: str, job: Job[Keyed]) -> None:
        os.write(self._moments, f"{what} {job.id} {time.monotonic()!r}\n".encode())


def wait_for_word(go: threading.Event) -> None:
    if sys.stdin.buffer.readline() == GO:
        go.set()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url")
    parser.add_argument("schema", choices=SCHEMAS)
    parser.add_argument("folder", type=Path)
    parser.add_argument("lease_s", type=float)
    options = parser.parse_args()
    files, go = Files.within(options.folder), threading.Event()
    schema = SCHEMAS[options.schema]
    with Orchestrator(options.url) as orchestrator:
        PlaceLog(files.places).watch(orchestrator.backend.coordination)
        orchestrator.register(schema)
        with Work(schema, files, go) as consumer:
            consumer.connect(
                orchestrator, lease_s=options.lease_s, concurrency=CONCURRENCY, prefetch=CONCURRENCY
            )
            threading.Thread(target=wait_for_word, args=(go,), daemon=True).start()
            print("ready", flush=True)
            consumer.consume()


if __name__ == "__main__":
    main()
