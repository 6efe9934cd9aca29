"""How to make, break and clean up each of the project's own adapters."""

import shutil
import sqlite3
import tempfile
from collections.abc import Iterator, Sequence
from contextlib import closing, contextmanager
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

from mindtrace.jobs import ConsumerBackend, JobStatus, LocalClient, OrchestratorBackend
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.sqlite import SQLiteClient
from mindtrace.jobs.contract import Harness
from mindtrace.jobs.errors import InvalidInput
from mindtrace.jobs.ports import Capabilities, Message, PublishOutcome, PublishStatus

NEVER_S = 3600.0
"""How often a client polls that is to do so never."""
_LIVE = (JobStatus.WAITING, JobStatus.RUNNING, JobStatus.FAILED)


class LocalHarness(Harness):
    """Queues in memory, on a clock that stands still."""

    lease_s = 10.0
    wake_s = 0.2
    secrets = None
    virtual_time = True

    client: ClassVar[type[LocalClient]] = LocalClient

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.clients: dict[str, LocalClient] = {}

    def make(self, namespace: str) -> OrchestratorBackend:
        """Connect a client; the first is kept, so that the namespace lasts until it is destroyed."""
        client = self.client(namespace, clock=self.clock)
        self.clients.setdefault(namespace, LocalClient(namespace))
        return client

    make_without_polling = make
    """Nobody polls: who waits is told."""

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: a consumer that is never heard of again is dead."""

    def sever(self, backend: OrchestratorBackend) -> None:
        """Nothing to do: there is no connection."""

    def count_stored(self, backend: OrchestratorBackend) -> int:
        """Count what the queues hold: jobs, consumers, ends, and those who wait."""
        assert isinstance(backend, LocalClient)
        assert backend._namespace is not None
        stored = 0
        for queue in backend._namespace._queues.values():
            jobs = (queue._order, queue._delayed, queue._live, queue._dead)
            others = (queue._tables, queue._results._results, queue._results._ended_ids, queue._ends.told)
            stored += sum(map(len, (*jobs, *others))) + len(queue._receivers) + len(queue._ends.waits)
        return stored

    def destroy(self, namespace: str) -> None:
        """Let go of the namespace."""
        if client := self.clients.pop(namespace, None):
            client.close()

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.clock.advance(seconds)

    def now(self) -> float:
        """The clock's time."""
        return self.clock.now()


class Transaction:
    """A caller's transaction on queues in memory, for the suite's own tests: publishes when it commits."""

    def __init__(self) -> None:
        self._messages: list[tuple[LocalClient, str, Message]] = []

    def add(self, client: LocalClient, queue: str, message: Message) -> PublishStatus:
        """Publish a message once this commits, unless its id is live by now."""
        here = any((name, each.id) == (queue, message.id) for _, name, each in self._messages)
        if here or client.status(queue, message.id) in _LIVE:
            return PublishStatus.DUPLICATE
        self._messages.append((client, queue, message))
        return PublishStatus.ACCEPTED

    def commit(self) -> None:
        """Publish."""
        messages, self._messages = self._messages, []
        for client, queue, message in messages:
            client.publish(queue, [message])

    def rollback(self) -> None:
        """Forget what was to be published."""
        self._messages.clear()

    close = rollback


class TransactionalLocalClient(LocalClient):
    """Queues in memory that join such transactions, so that those who do it wrong can be tried."""

    @property
    def capabilities(self) -> Capabilities:
        """Those of queues in memory, and this."""
        return replace(super().capabilities, transactional_publish=True)

    def publish_in(self, connection: object, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Publish once the transaction commits."""
        if not isinstance(connection, Transaction):
            raise InvalidInput("connection: pass a Transaction")
        self.counts(queue)  # raises QueueNotFound
        return [PublishOutcome(each.id, connection.add(self, queue, each)) for each in messages]


class TransactionalLocalHarness(LocalHarness):
    """Queues in memory, with every capability there is."""

    client = TransactionalLocalClient

    def open_connection(self, backend: OrchestratorBackend) -> Transaction:
        """Begin a transaction."""
        return Transaction()


class ShortTimeoutHarness(TransactionalLocalHarness):
    """For adapters that are broken: what one doesn't do within a second, it never does."""

    timeout_s = 1.0


class SQLiteHarness(Harness):
    """Queues in one file, with a namespace for each check."""

    secrets = None
    wake_s = 0.1  # less than the quarter of a second after which a waiter looks by itself
    lease_s = 0.6  # a sync may take half of it, where the disk has other work

    def __init__(self) -> None:
        self.folder = Path(tempfile.mkdtemp(prefix="mindtrace-jobs-"))
        self.path = self.folder / "jobs.db"

    def make(self, namespace: str) -> OrchestratorBackend:
        """Open the file once more, with connections of its own."""
        return SQLiteClient(self.path, namespace=namespace)

    def make_without_polling(self, namespace: str) -> OrchestratorBackend:
        """Open it as a client that looks by itself once an hour."""
        client = SQLiteClient(self.path, namespace=namespace)
        client._settings = replace(client._settings, look_s=NEVER_S)
        return client

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: one that is never heard of again is dead. The end-to-end tests truly kill some."""

    def sever(self, backend: OrchestratorBackend) -> None:
        """Nothing to do: there is no connection that could break."""

    def count_stored(self, backend: OrchestratorBackend) -> int:
        """Count the rows of all tables; other namespaces' stay as they are meanwhile."""
        with closing(sqlite3.connect(self.path)) as db:
            tables = db.execute("SELECT name FROM sqlite_master WHERE type = 'table'").fetchall()
            return sum(db.execute(f'SELECT count(*) FROM "{name}"').fetchone()[0] for (name,) in tables)

    @contextmanager
    def refuse(self, backend: OrchestratorBackend) -> Iterator[None]:
        """Have SQLite write nothing over the connections of a client and of its consumers."""
        assert isinstance(backend, SQLiteClient)
        sessions = [backend._session, *(consumer._session for consumer in backend._consumers)]
        for session in sessions:
            session.read(lambda db, _clock: db.execute("PRAGMA query_only = ON"))
        try:
            yield
        finally:
            for session in sessions:
                session.read(lambda db, _clock: db.execute("PRAGMA query_only = OFF"))

    def destroy(self, namespace: str) -> None:
        """Delete every queue of the namespace, as a user would."""
        if not self.path.exists():
            return
        with closing(sqlite3.connect(self.path)) as db:
            rows = db.execute("SELECT name FROM queue WHERE namespace = ?", (namespace,)).fetchall()
        with SQLiteClient(self.path, namespace=namespace) as client:
            for (name,) in rows:
                client.delete(name)

    def close(self) -> None:
        """Remove the folder."""
        shutil.rmtree(self.folder)
