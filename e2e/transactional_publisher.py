"""A publisher for tests that kill it: stores orders, and publishes their jobs, in transactions of its own.

Every second transaction is rolled back. The id of each is written to a file before it begins. After an error
of the connection it makes another, and goes on with the next id: whether the last commit counted, only the
server knows.
"""

import argparse
import os
import time
from contextlib import suppress
from typing import Any

import psycopg
import sqlalchemy
from recording_worker import SCHEMA, Numbered

from mindtrace.jobs import Job, Orchestrator

INSERT = "INSERT INTO orders (id) VALUES ('{}')"


def transact(connection: Any, execute: Any, jobs: Orchestrator, job: Job[Numbered], *, commits: bool) -> None:
    """Store an order and publish its job, in one order or the other; then commit, or not."""
    if job.payload.number % 3:
        execute(INSERT.format(job.id))
    jobs.publish(SCHEMA, job, connection=connection)
    if not job.payload.number % 3:
        execute(INSERT.format(job.id))
    (connection.commit if commits else connection.rollback)()


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("url", help="of the database")
    parser.add_argument("jobs", help="of the queue")
    parser.add_argument("attempts", help="a file that gets a line before each transaction")
    parser.add_argument("kind", choices=("psycopg", "sqlalchemy"))
    parser.add_argument("first", type=int)
    parser.add_argument("end", type=int)
    options = parser.parse_args()
    attempts = os.open(options.attempts, os.O_WRONLY | os.O_APPEND)
    url = sqlalchemy.make_url(options.url).set(drivername="postgresql+psycopg")
    engine = sqlalchemy.create_engine(url, poolclass=sqlalchemy.NullPool)
    jobs = Orchestrator(options.jobs)
    jobs.register(SCHEMA)

    connection: Any = None
    for number in range(options.first, options.end):
        job = jobs.job(SCHEMA, Numbered(number=number), id=f"{options.kind}-{number}")
        os.write(attempts, f"{job.id}\n".encode())
        try:
            if connection is None and options.kind == "psycopg":
                connection = psycopg.connect(options.url)
            elif connection is None:
                connection = engine.connect()
            execute = connection.execute if options.kind == "psycopg" else connection.exec_driver_sql
            transact(connection, execute, jobs, job, commits=number % 2 == 0)
        except (psycopg.OperationalError, sqlalchemy.exc.DBAPIError):
            with suppress(psycopg.Error, sqlalchemy.exc.SQLAlchemyError):
                if connection is not None:
                    connection.close()
            connection = None
            time.sleep(0.1)


if __name__ == "__main__":
    main()
