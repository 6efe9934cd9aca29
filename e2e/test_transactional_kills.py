"""Of transactions that store an order and publish its job, exactly the committed ones run (PUB-7).

Publishers, or their server, are killed at random moments.

The variable ``MINDTRACE_JOBS_TEST_TRANSACTIONS`` says how many transactions to try, 1,000 by default.
"""

import os
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import count
from pathlib import Path
from random import Random

import pytest

from brokers.fixtures import StartPostgreSQL
from brokers.postgresql_server import PrivatePostgreSQL
from conditions import eventually
from job_audit import ExecutionRecord
from mindtrace.jobs import Orchestrator, QueueCounts

from .recording_worker import SCHEMA
from .worker_process import WorkerProcess

PROGRAM = Path(__file__).with_name("transactional_publisher.py")
KINDS = ("psycopg", "sqlalchemy", "asyncpg")
TRANSACTIONS = int(os.environ.get("MINDTRACE_JOBS_TEST_TRANSACTIONS", "1000"))
KILLS = max(4, TRANSACTIONS // 50)
"""How often a child of each publisher is killed."""
SERVER_KILLS = 2
LIMIT_S = 240.0 + TRANSACTIONS / 2

pytestmark = [pytest.mark.long, pytest.mark.timeout(2 * LIMIT_S + 600)]


class Publisher:
    """``transactional_publisher.py`` as a process, whose child is killed, and replaced by another."""

    def __init__(self, server: PrivatePostgreSQL, folder: Path, kind: str) -> None:
        self.attempts = ExecutionRecord(folder / f"{kind}.txt")
        words = [server.url(), server.url("jobs"), self.attempts.path, kind, TRANSACTIONS // len(KINDS)]
        command = [sys.executable, str(PROGRAM), *map(str, words)]
        environment = os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}
        self._process = subprocess.Popen(command, env=environment)

    def kill_child(self) -> None:
        """Kill the child that began the last transaction."""
        with suppress(ProcessLookupError):
            os.kill(self.attempts.runs()[-1].pid, signal.SIGKILL)

    def finish(self) -> None:
        """Demand that it has ended well."""
        assert self._process.wait(LIMIT_S) == 0

    def kill(self) -> None:
        """End it; a no-op where it has ended."""
        if self._process.poll() is None:
            self._process.kill()
            self._process.wait()
            self.kill_child()


def run_publishers(server: PrivatePostgreSQL, folder: Path, kill: Callable[[Publisher], None]) -> None:
    """Have all transactions tried, with kills at random moments."""
    random = Random(52)
    share = TRANSACTIONS // len(KINDS)
    with server.connect() as admin:
        admin.execute("CREATE TABLE orders (id text PRIMARY KEY)")
    with Orchestrator(server.url("jobs")) as jobs:
        jobs.register(SCHEMA)
    publishers = [Publisher(server, folder, kind) for kind in KINDS]
    try:
        for moment in sorted(random.sample(range(1, share), KILLS)):
            for publisher in publishers:
                has_come = partial(_has_begun, publisher, moment)
                eventually(has_come, f"transaction {moment} begins", LIMIT_S)
                kill(publisher)
        for publisher in publishers:
            publisher.finish()
    finally:
        for publisher in publishers:
            publisher.kill()
    assert [len(publisher.attempts) for publisher in publishers] == [share] * len(KINDS)


def _has_begun(publisher: Publisher, moment: int) -> bool:
    return len(publisher.attempts) >= moment


def committed(server: PrivatePostgreSQL) -> set[str]:
    """The ids of the orders that are there."""
    with server.connect() as admin:
        return {row[0] for row in admin.execute("SELECT id FROM orders")}


def check(server: PrivatePostgreSQL, worker: WorkerProcess, record: ExecutionRecord) -> None:
    """Demand that exactly the jobs of the orders run, each once, and that they are about half."""
    orders = committed(server)
    eventually(lambda: len(record) >= len(orders), f"{len(orders)} jobs run", LIMIT_S)
    worker.end()
    runs = Counter(run.job_id for run in record.runs())
    print(f"{TRANSACTIONS} transactions, {len(orders)} committed, {len(runs)} jobs ran, {runs.total()} times")
    assert runs.keys() == orders
    assert set(runs.values()) == {1}
    with Orchestrator(server.url("jobs")) as jobs:
        assert jobs.backend.counts(SCHEMA.name) == QueueCounts(ready=0, delayed=0, in_flight=0, dead=0)
    assert TRANSACTIONS // 4 <= len(orders) <= TRANSACTIONS // 2


def test_of_publishers_that_are_killed_exactly_the_committed_jobs_run(
    start_postgresql: StartPostgreSQL, tmp_path: Path
) -> None:
    """Also while a worker runs them."""
    server = start_postgresql()
    record = ExecutionRecord(tmp_path / "record.txt")
    worker = WorkerProcess(server.url("jobs"), record)

    try:
        run_publishers(server, tmp_path, Publisher.kill_child)
        check(server, worker, record)
    finally:
        worker.kill()


def test_of_a_server_that_is_killed_exactly_the_committed_jobs_run(
    start_postgresql: StartPostgreSQL, tmp_path: Path
) -> None:
    """Its publishers are in the middle of a transaction, or wait for a commit whose answer never comes."""
    server = start_postgresql()

    kills = count()

    def kill(publisher: Publisher) -> None:
        if next(kills) % (KILLS * len(KINDS) // SERVER_KILLS) == 1:
            server.kill()
            server.start()

    run_publishers(server, tmp_path, kill)
    record = ExecutionRecord(tmp_path / "record.txt")
    worker = WorkerProcess(server.url("jobs"), record)
    try:
        check(server, worker, record)
    finally:
        worker.kill()
