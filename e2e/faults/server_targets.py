"""The targets of the fault matrix that are servers, and all targets by their names."""

from abc import abstractmethod
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, ClassVar
from urllib.parse import quote

from brokers.postgresql_server import PrivatePostgreSQL
from brokers.private_server import PrivateServer
from brokers.proxy import Proxy
from brokers.rabbitmq_server import PrivateRabbitMQ
from brokers.redis_server import PrivateRedis
from conditions import eventually
from mindtrace.jobs import OrchestratorBackend, PostgreSQLClient, RabbitMQClient, RedisClient
from mindtrace.jobs.adapters.postgresql.connection import Statement
from mindtrace.jobs.adapters.postgresql.statements import Statements
from mindtrace.jobs.adapters.redis.scripts import PUBLISH, SETTLE_AND_TAKE, TAKE_PLACES

from .targets import RETRY_TIMEOUT_S, LocalTarget, ProcessTarget, SQLiteTarget, Target


class ServerTarget(ProcessTarget):
    """A backend behind a server of its own, and a network."""

    place_bytes: ClassVar[bytes]
    """The bytes that identify a request for places."""

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

    def client(self, namespace: str, *, retry_timeout_s: float = RETRY_TIMEOUT_S) -> OrchestratorBackend:
        return self.server.client(namespace, retry_timeout_s=retry_timeout_s)

    @abstractmethod
    def client_via(self, namespace: str, proxy: Proxy, *, retry_timeout_s: float) -> OrchestratorBackend:
        """Connect a client through a proxy."""

    def restart(self) -> None:
        """Shut the server down gracefully and start it again."""
        self.server.restart()

    def sync_metadata(self) -> None:
        """Wait until a queue that was just declared would survive the death of the server."""

    @property
    def store_server(self) -> PrivateServer:
        """The server that keeps the coordination store."""
        return self.server

    def crash(self) -> None:
        """Kill all its servers, and start them again."""
        servers = dict.fromkeys((self.server, self.store_server))
        for server in servers:
            server.kill()
        for server in servers:
            server.start()

    def store_proxy(self) -> Proxy:
        """Start a proxy to the server of the coordination store."""
        return self.proxy()

    def ensure_running(self) -> None:
        if not self.server.answers():
            self.server.kill()
            self.server.start()

    def close(self) -> None:
        self.server.kill()


class RedisTarget(ServerTarget):
    """A Redis that syncs each write."""

    name = "Redis"
    settle_bytes = SETTLE_AND_TAKE.sha.encode()
    publish_bytes = PUBLISH.sha.encode()
    place_bytes = TAKE_PLACES.sha.encode()

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
    place_bytes = TAKE_PLACES.sha.encode()

    def __init__(self, folder: Path) -> None:
        self.server: PrivateRabbitMQ = PrivateRabbitMQ(folder)
        self.server.start()
        self._store_folder = folder / "store"
        self._store: PrivateRedis | None = None

    @property
    def store_server(self) -> PrivateRedis:
        """A Redis that syncs each write, started for the first row that needs it."""
        if self._store is None:
            self._store_folder.mkdir()
            self._store = PrivateRedis(self._store_folder, appendonly="yes", appendfsync="always")
            self._store.start()
        return self._store

    def store_proxy(self) -> Proxy:
        return Proxy(self.store_server.address.host, self.store_server.address.port)

    def url_with_store(self, namespace: str, via: Proxy | None = None) -> str:
        port = via.port if via else self.store_server.address.port
        store = f"redis://127.0.0.1:{port}/0?namespace={namespace}"
        return f"{self.url(namespace)}&store={quote(store, safe='')}"

    def ensure_running(self) -> None:
        super().ensure_running()
        if self._store is not None and not self._store.answers():
            self._store.kill()
            self._store.start()

    def close(self) -> None:
        super().close()
        if self._store is not None:
            self._store.kill()

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
        eventually(self.server.answers, "the node serves again")

    def sync_metadata(self) -> None:
        """Have RabbitMQ write it down: by itself, its Raft library does so after about 0.5 s."""
        self.server.control("eval", "[dets:sync(Table) || Table <- dets:all()].")

    @contextmanager
    def out_of_space(self, client: OrchestratorBackend) -> Iterator[None]:
        self.server.control("set_vm_memory_high_watermark", "absolute", "1MB")
        try:
            eventually(
                lambda: "memory" in self.server.control("eval", "rabbit_alarm:get_alarms()."),
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
    place_bytes = _bytes_that_run(Statements("any").take_places)

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
