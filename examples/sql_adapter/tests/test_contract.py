"""The contract, on tables of SQLite."""

import sqlite3
import tempfile

from mindtrace_jobs_table import TableClient
from mindtrace_jobs_table.database import Database

from mindtrace.jobs import ConsumerBackend, OrchestratorBackend
from mindtrace.jobs.contract import Harness, contract_suite


class TableHarness(Harness):
    secrets = None  # a file has no password

    def __init__(self) -> None:
        self.folder = tempfile.TemporaryDirectory()

    def make(self, namespace: str) -> TableClient:
        return TableClient(f"{self.folder.name}/jobs.db", namespace=namespace)

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: the suite stops using it, so its leases end by themselves."""

    def sever(self, backend: OrchestratorBackend) -> None:
        break_connection(backend.database)  # type: ignore[attr-defined]

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        lose_next_reply(backend.database)  # type: ignore[attr-defined]
        return True

    def cut_request(self, backend: OrchestratorBackend) -> bool:
        lose_next_request(backend.database)  # type: ignore[attr-defined]
        return True

    def destroy(self, namespace: str) -> None:
        with self.make(namespace) as client:
            for queue in client.queues():
                client.delete(queue.name)

    def close(self) -> None:
        self.folder.cleanup()


def break_connection(database: Database) -> None:
    """Break the connection without telling: the next statement fails."""
    with database.lock:
        if database.connection is not None:
            database.connection.close()


def lose_next_reply(database: Database) -> None:
    """Let the database make the next commit, and break the connection before it says so."""

    def commit_and_break(db: sqlite3.Connection) -> None:
        del database.commit
        database.commit(db)
        break_connection(database)
        raise sqlite3.OperationalError("the reply is lost")

    database.commit = commit_and_break  # type: ignore[method-assign]


def lose_next_request(database: Database) -> None:
    """Break the connection before the next commit, so that the database rolls back what was to be made."""

    def break_and_commit(db: sqlite3.Connection) -> None:
        del database.commit
        break_connection(database)
        database.commit(db)  # raises, as the connection is closed

    database.commit = break_and_commit  # type: ignore[method-assign]


globals().update(contract_suite(TableHarness))
