"""The targets of the fault matrix: backends, and the faults that can be injected into each."""

import os
import sqlite3
import threading
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import Any, ClassVar, NamedTuple, Protocol

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.proxy import Proxy
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis
from job_audit import ExecutionRecord
from mindtrace.jobs import (
    LocalClient,
    Orchestrator,
    OrchestratorBackend,
    PostgreSQLClient,
    RabbitMQClient,
    RedisClient,
)
from mindtrace.jobs.adapters.postgresql.connection import Statement
from mindtrace.jobs.adapters.postgresql.statements import Statements
from mindtrace.jobs.adapters.redis.scripts import PUBLISH, SETTLE_AND_TAKE
from mindtrace.jobs.adapters.sqlite import SQLiteClient

from ..recording_worker import SCHEMA, Worker
from ..worker_process import WorkerProcess, eventually

LIMIT_S = 90.0
"""How long a test waits for what must happen; only a failing test waits that long."""


class ExecutionRecords(NamedTuple):
    """The records that the workers of an experiment write."""

    received: ExecutionRecord
    started: ExecutionRecord
    finished: ExecutionRecord


class RunningWorker(Protocol):
    """A worker that was started, as a process or as a thread."""

    pid: int

    @property
    def has_ended(self) -> bool: ...

    def kill(self) -> None: ...

    def end(self) -> dict[str, int]: ...


class Target(ABC):
    """A backend that a test has to itself.

    Its tests share it, one after the other, each in a namespace of its own.
    """

    name: ClassVar[str]
    lease_s: ClassVar[float] = 3.0
    """How short a lease may be where a test has to wait for its end: one that a busy machine can keep."""

    @abstractmethod
    def client(self, namespace: str, *, retry_timeout_s: float = LIMIT_S) -> OrchestratorBackend:
        """Connect a client; its calls give up after ``retry_timeout_s`` if there is a server to wait for."""

    @abstractmethod
    def worker(
        self, namespace: str, records: ExecutionRecords, *, via: Proxy | None = None, **options: Any
    ) -> RunningWorker:
        """Start a worker, if need be through a proxy; ``options`` as those of ``recording_worker.py``."""

    def ensure_running(self) -> None:  # noqa: B027 - a backend without a server has none to start
        """Start it again if the last test left it down."""

    def close(self) -> None:  # noqa: B027 - nor an end
        """End it."""


class ProcessTarget(Target):
    """A backend that outlives the processes that use it: its workers are processes, and can be killed."""

    @abstractmethod
    def url(self, namespace: str, via: Proxy | None = None) -> str:
        """Return its URL, for a process."""

    @abstractmethod
    def out_of_space(self, client: OrchestratorBackend) -> AbstractContextManager[None]:
        """Leave it no space for anything that ``client`` publishes."""

    def worker(
        self, namespace: str, records: ExecutionRecords, *, via: Proxy | None = None, **options: Any
    ) -> WorkerProcess:
        files = {"finished": records.finished.path, "received": records.received.path}
        return WorkerProcess(self.url(namespace, via), records.started, **files, **options)


class ServerTarget(ProcessTarget):
    """A backend behind a server of its own, and a network."""

    server: PrivateRedis | PrivateRabbitMQ | PrivatePostgreSQL
    settle_bytes: ClassVar[bytes]
    """The bytes that identify a request that settles jobs."""
    publish_bytes: ClassVar[bytes]
    """The bytes that identify a request that publishes jobs."""

    @abstractmethod
    def close_connections(self) -> None:
        """Close every connection at the server."""

    def proxy(self, **pace: Any) -> Proxy:
        """Start a proxy to it."""
        return Proxy(self.host, self.port, **pace)

    @property
    def host(self) -> str:
        return self.server.address.host

    @property
    def port(self) -> int:
        return self.server.address.port

    def client(self, namespace: str, *, retry_timeout_s: float = LIMIT_S) -> OrchestratorBackend:
        return self.server.client(namespace, retry_timeout_s=retry_timeout_s)

    @abstractmethod
    def client_via(self, namespace: str, proxy: Proxy, *, retry_timeout_s: float) -> OrchestratorBackend:
        """Connect a client through a proxy."""

    def restart(self) -> None:
        """Shut the server down gracefully and start it again."""
        self.server.restart()

    def sync_metadata(self) -> None:
        """Wait until a queue that was just declared would survive the death of the server."""

    def ensure_running(self) -> None:
        if not self.server.answers():
            self.server.kill()
            self.server.start()

    def close(self) -> None:
        self.server.kill()


# -- one for each backend ----------------------------------------------------------------------


class LocalTarget(Target):
    """Queues in memory; its workers are threads."""

    name = "Local"

    def __init__(self, folder: Path) -> None:
        del folder

    def client(self, namespace: str, *, retry_timeout_s: float = LIMIT_S) -> LocalClient:
        return LocalClient(namespace)

    def worker(
        self, namespace: str, records: ExecutionRecords, *, via: Proxy | None = None, **options: Any
    ) -> "ThreadWorker":
        return ThreadWorker(self.client(namespace), records, **options)


class ThreadWorker:
    """The worker of ``recording_worker.py`` on a thread of this process."""

    def __init__(
        self,
        client: LocalClient,
        records: ExecutionRecords,
        *,
        job_s: float = 0.001,
        lease_s: float = 30.0,
        prefetch: int | None = None,
    ) -> None:
        self.pid = os.getpid()
        self._orchestrator = Orchestrator(client)
        self._orchestrator.register(SCHEMA)
        self._worker = Worker(
            str(records.started.path), job_s, str(records.finished.path), str(records.received.path)
        )
        self._worker.connect(self._orchestrator, lease_s=lease_s, prefetch=prefetch)
        self.error: BaseException | None = None
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self._thread.start()

    def _consume(self) -> None:
        try:
            self._worker.consume()
        except BaseException as error:
            self.error = error

    @property
    def has_ended(self) -> bool:
        return not self._thread.is_alive()

    def kill(self) -> None:
        """A thread can't be killed: stop it if it runs."""
        if not self.has_ended:
            self.end()

    def end(self) -> dict[str, int]:
        self._worker.stop()
        self._thread.join(LIMIT_S)
        assert self.has_ended, "the worker doesn't stop"
        stats = self._worker.stats
        self._worker.close()
        self._orchestrator.close()
        assert self.error is None, repr(self.error)
        return {"done": stats.done, "lost": stats.lost}


class SQLiteTarget(ProcessTarget):
    """A file."""

    name = "SQLite"
    lease_s = 4.0  # a sync may take a good part of it, where the disk has other work

    def __init__(self, folder: Path) -> None:
        self._path = folder / "jobs.db"

    def client(self, namespace: str, *, retry_timeout_s: float = LIMIT_S) -> SQLiteClient:
        return SQLiteClient(self._path, namespace=namespace)

    def url(self, namespace: str, via: Proxy | None = None) -> str:
        return f"sqlite:///{self._path}?namespace={namespace}"

    @contextmanager
    def out_of_space(self, client: OrchestratorBackend) -> Iterator[None]:
        """As a quota on the file does, for this client alone."""
        assert isinstance(client, SQLiteClient)
        session = client._session
        connection = session._connection
        assert connection is not None
        (pages,) = connection.execute("PRAGMA page_count").fetchone()
        connect = session._connect

        def connect_limited() -> sqlite3.Connection:
            limited = connect()
            limited.execute(f"PRAGMA max_page_count = {pages}").fetchone()
            return limited

        session._drop()
        session._connect = connect_limited  # type: ignore[method-assign]
        try:
            yield
        finally:
            session._drop()
            session._connect = connect  # type: ignore[method-assign]


class RedisTarget(ServerTarget):
    """A Redis that syncs each write."""

    name = "Redis"
    settle_bytes = SETTLE_AND_TAKE.sha.encode()
    publish_bytes = PUBLISH.sha.encode()

    def __init__(self, folder: Path) -> None:
        self.server: PrivateRedis = PrivateRedis(folder, appendonly="yes", appendfsync="always")
        self.server.start()

    def client_via(self, namespace: str, proxy: Proxy, *, retry_timeout_s: float) -> RedisClient:
        return RedisClient("127.0.0.1", proxy.port, namespace=namespace, retry_timeout_s=retry_timeout_s)

    def url(self, namespace: str, via: Proxy | None = None) -> str:
        return f"redis://127.0.0.1:{via.port if via else self.port}/0?namespace={namespace}"

    def close_connections(self) -> None:
        with self.server.admin() as admin:
            admin.client_kill_filter(_type="normal", skipme=True)

    def forget_scripts(self) -> None:
        """Empty the cache of scripts, as an administrator or a failover does."""
        with self.server.admin() as admin:
            admin.script_flush()

    @contextmanager
    def out_of_space(self, client: OrchestratorBackend) -> Iterator[None]:
        with self.configured(maxmemory="1mb"):
            yield

    @contextmanager
    def configured(self, **settings: str) -> Iterator[None]:
        """Change settings of the server for a while; underscores stand for dashes."""
        names = {name.replace("_", "-"): value for name, value in settings.items()}
        with self.server.admin() as admin:
            before = {name: admin.config_get(name)[name] for name in names}
            for name, value in names.items():
                admin.config_set(name, value)
            try:
                yield
            finally:
                for name, value in before.items():
                    admin.config_set(name, value)


class RabbitMQTarget(ServerTarget):
    """A RabbitMQ node; results aren't kept, so that the workers' record alone tells what is done."""

    name = "RabbitMQ"
    settle_bytes = b"\x00\x3c\x00\x50"  # Basic.Ack
    publish_bytes = b"\x00\x3c\x00\x28"  # Basic.Publish

    def __init__(self, folder: Path) -> None:
        self.server: PrivateRabbitMQ = PrivateRabbitMQ(folder)
        self.server.start()

    def client_via(self, namespace: str, proxy: Proxy, *, retry_timeout_s: float) -> RabbitMQClient:
        return RabbitMQClient("127.0.0.1", proxy.port, namespace=namespace, retry_timeout_s=retry_timeout_s)

    def url(self, namespace: str, via: Proxy | None = None) -> str:
        who = f"{self.server.address.username}:{self.server.address.password}"
        port = via.port if via else self.port
        return f"amqp://{who}@127.0.0.1:{port}/%2F?namespace={namespace}&heartbeat_s=2"

    def close_connections(self) -> None:
        self.server.control("close_all_connections", "a test")

    def restart(self) -> None:
        """Shut down and start all but its virtual machine, which takes longer than RabbitMQ itself."""
        self.server.control("eval", "rabbit:stop(), rabbit:start().")
        eventually(self.server.answers, LIMIT_S, "the node serves again")

    def sync_metadata(self) -> None:
        """Have RabbitMQ write it down: by itself, its Raft library does so after about 0.5 s."""
        self.server.control("eval", "[dets:sync(Table) || Table <- dets:all()].")

    @contextmanager
    def out_of_space(self, client: OrchestratorBackend) -> Iterator[None]:
        self.server.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            eventually(
                lambda: "memory" in self.server.control("eval", "rabbit_alarm:get_alarms()."),
                LIMIT_S,
                "an alarm",
            )
            yield
        finally:
            self.server.control("set_vm_memory_high_watermark", "0.6")


def _bytes_that_run(statement: Statement) -> bytes:
    """The bytes that identify a request to run a statement: the formats and the number of its parameters."""
    count = statement.parameters.to_bytes(2, "big")
    return count + b"\x00\x01" * statement.parameters + count


class PostgreSQLTarget(ServerTarget):
    """A PostgreSQL that syncs each commit."""

    name = "PostgreSQL"
    server: PrivatePostgreSQL
    settle_bytes = _bytes_that_run(Statements("any").settle_and_take)
    publish_bytes = _bytes_that_run(Statements("any").publish)

    def __init__(self, folder: Path) -> None:
        self.server = PrivatePostgreSQL(folder)
        self.server.start()

    def client_via(self, namespace: str, proxy: Proxy, *, retry_timeout_s: float) -> PostgreSQLClient:
        return self.server.client(namespace, port=proxy.port, retry_timeout_s=retry_timeout_s)

    def url(self, namespace: str, via: Proxy | None = None) -> str:
        port = via.port if via else self.port
        return f"postgresql://postgres@127.0.0.1:{port}/postgres?namespace={namespace}"

    def close_connections(self) -> None:
        with self.server.connect() as admin:
            admin.execute(
                "SELECT pg_terminate_backend(pid) FROM pg_stat_activity"
                " WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()"
            )

    @contextmanager
    def out_of_space(self, client: OrchestratorBackend) -> Iterator[None]:
        """Refuse every new job as the server does where the table can't grow."""
        assert isinstance(client, PostgreSQLClient)
        table = f'"{client._namespace}".job'
        with self.server.connect() as admin:
            admin.execute(
                "CREATE OR REPLACE FUNCTION refuse_for_want_of_space() RETURNS trigger LANGUAGE plpgsql AS"
                " $$ BEGIN RAISE 'could not extend file' USING ERRCODE = 'disk_full'; END $$"
            )
            refuse = "FOR EACH ROW EXECUTE FUNCTION refuse_for_want_of_space()"
            admin.execute(f"CREATE TRIGGER is_full BEFORE INSERT ON {table} {refuse}")
            try:
                yield
            finally:
                admin.execute(f"DROP TRIGGER is_full ON {table}")

    def close(self) -> None:
        self.server.close()


TARGETS: dict[str, type[Target]] = {
    target.name: target
    for target in (LocalTarget, SQLiteTarget, RedisTarget, RabbitMQTarget, PostgreSQLTarget)
}
