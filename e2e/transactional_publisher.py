"""A publisher for tests that kill it: stores orders, and publishes their jobs, in transactions of its own.

Every second transaction is rolled back. The id of each is recorded before it begins. After an error of the
connection it makes another, and goes on with the next id: whether the last commit counted, the server knows.

A child does the work, and the test kills that one: another then goes on with the next id. To fork it takes no
time, as all is imported.
"""

import argparse
import asyncio
import os
import signal
import sys
import time
from collections.abc import Awaitable, Callable
from contextlib import suppress
from pathlib import Path
from typing import Any

import asyncpg
import psycopg
import sqlalchemy
from recording_worker import SCHEMA, Numbered

from job_audit import ExecutionRecord
from mindtrace.jobs import AsyncOrchestrator, Job, Orchestrator

INSERT = "INSERT INTO orders (id) VALUES ('{}')"


class BlockingAsyncpg:
    """A connection of asyncpg with the methods of psycopg's."""

    def __init__(self, url: str, jobs: Orchestrator) -> None:
        self._runner = asyncio.Runner()
        self._jobs = AsyncOrchestrator(jobs)
        self._driver = self._run(lambda: asyncpg.connect(url))

    def _run(self, call: Callable[[], Awaitable[Any]]) -> Any:
        async def run() -> Any:
            return await call()

        try:
            return self._runner.run(run())
        except (asyncpg.PostgresError, asyncpg.InterfaceError, OSError) as error:
            raise psycopg.OperationalError from error

    def _begin(self) -> None:
        if not self._driver.is_in_transaction():
            self._run(lambda: self._driver.execute("BEGIN"))

    def execute(self, statement: str) -> None:
        self._begin()
        self._run(lambda: self._driver.execute(statement))

    def publish(self, job: Job[Numbered]) -> None:
        self._begin()
        self._run(lambda: self._jobs.publish(SCHEMA, job, connection=self._driver))

    def commit(self) -> None:
        self._run(lambda: self._driver.execute("COMMIT"))

    def rollback(self) -> None:
        self._run(lambda: self._driver.execute("ROLLBACK"))

    def close(self) -> None:
        self._driver.terminate()
        self._runner.close()


def transact(connection: Any, execute: Any, jobs: Orchestrator, job: Job[Numbered], *, commits: bool) -> None:
    """Store an order and publish its job, in one order or the other; then commit, or not."""
    if job.payload.number % 3:
        execute(INSERT.format(job.id))
    if isinstance(connection, BlockingAsyncpg):
        connection.publish(job)
    else:
        jobs.publish(SCHEMA, job, connection=connection)
    if not job.payload.number % 3:
        execute(INSERT.format(job.id))
    (connection.commit if commits else connection.rollback)()


def work(url: str, jobs_url: str, kind: str, record: ExecutionRecord, numbers: range) -> None:
    """Try a transaction for each number."""
    attempts = record.writer()
    engine_url = sqlalchemy.make_url(url).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(engine_url, poolclass=sqlalchemy.NullPool)
    jobs = Orchestrator(jobs_url)
    jobs.attach(SCHEMA.name)
    connect = {
        "psycopg": lambda: psycopg.connect(url),
        "sqlalchemy": engine.connect,
        "asyncpg": lambda: BlockingAsyncpg(url, jobs),
    }
    connection: Any = None
    for number in numbers:
        job = Job(schema_name=SCHEMA.name, payload=Numbered(number=number), id=f"{kind}-{number}")
        record.write(attempts, job.id)
        try:
            if connection is None:
                connection = connect[kind]()
            execute = connection.exec_driver_sql if kind == "sqlalchemy" else connection.execute
            transact(connection, execute, jobs, job, commits=number % 2 == 0)
        except (psycopg.OperationalError, sqlalchemy.exc.DBAPIError):
            with suppress(psycopg.Error, sqlalchemy.exc.SQLAlchemyError):
                if connection is not None:
                    connection.close()
            connection = None
            time.sleep(0.1)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the database")
    parser.add_argument("jobs", help="of the queue, which is declared")
    parser.add_argument("attempts", type=Path, help="a file that gets a line before each transaction")
    parser.add_argument("kind", choices=("psycopg", "sqlalchemy", "asyncpg"))
    parser.add_argument("count", type=int)
    options = parser.parse_args()
    record = ExecutionRecord(options.attempts)
    while len(record) < options.count:
        child = os.fork()
        if not child:
            numbers = range(len(record), options.count)
            work(options.url, options.jobs, options.kind, record, numbers)
            os._exit(0)
        _, status = os.waitpid(child, 0)
        if status and os.waitstatus_to_exitcode(status) != -signal.SIGKILL:
            return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())
