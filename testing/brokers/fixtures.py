"""The brokers as pytest fixtures; the ``conftest.py`` at the root names this module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from . import postgresql_server, rabbitmq_server, redis_server
from .pgbouncer import PrivatePgBouncer
from .postgresql_pair import PostgreSQLPair
from .postgresql_server import PrivatePostgreSQL
from .private_server import NoServer
from .rabbitmq_cluster import RabbitMQCluster
from .rabbitmq_server import PrivateRabbitMQ
from .redis_server import PrivateRedis
from .run_servers import RunServers, servers_folder

StartRedis = Callable[..., PrivateRedis]
StartRabbitMQ = Callable[..., PrivateRabbitMQ]
StartPostgreSQL = Callable[..., PrivatePostgreSQL]
StartPgBouncer = Callable[..., PrivatePgBouncer]

_CLOSE = pytest.StashKey[ExitStack]()
"""What is closed when the session ends."""


@contextmanager
def fail_without_server() -> Iterator[None]:
    """Fail the tests that need a server if there is none: an untested guarantee is none."""
    try:
        yield
    except NoServer as error:
        pytest.fail(str(error), pytrace=False)


def _starter(
    kind: Callable[..., Any], folders: pytest.TempPathFactory, stack: ExitStack
) -> Callable[..., Any]:
    def start(*arguments: Any, **options: Any) -> Any:
        with fail_without_server():
            server = kind(folders.mktemp("server"), *arguments, **options)
        stack.callback(server.close)
        return server.start()

    return start


@pytest.fixture(scope="session")
def run_servers(request: pytest.FixtureRequest) -> RunServers:
    """The servers that all processes of this run share, until its last test is over."""
    servers = RunServers(servers_folder(request.config))
    request.config.stash[_CLOSE].callback(servers.close)
    return servers


def pytest_configure(config: pytest.Config) -> None:
    """Make a list of what to close when the session ends."""
    config.stash[_CLOSE] = ExitStack()


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Close the servers here: a fixture's end is part of a test, whose time is limited, and this may wait.

    It is the last to be called: where a test was interrupted, pytest ends its fixtures in this hook.
    """
    session.config.stash[_CLOSE].close()


@pytest.fixture(scope="session")
def redis_address(run_servers: RunServers) -> redis_server.Address:
    """A Redis that all tests share: each keeps to a namespace of its own, and leaves the server as it is."""
    with fail_without_server():
        address: redis_server.Address = run_servers.address(redis_server.SHARED)
    return address


@pytest.fixture
def private_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartRedis]:
    """Start servers of one's own, to break: ``private_redis(appendonly="yes")``."""
    with ExitStack() as stack:
        yield _starter(PrivateRedis, tmp_path_factory, stack)


@pytest.fixture(scope="session")
def rabbitmq_address(run_servers: RunServers) -> rabbitmq_server.Address:
    """A RabbitMQ that all tests share, as they do the Redis."""
    with fail_without_server():
        address: rabbitmq_server.Address = run_servers.address(rabbitmq_server.SHARED)
    return address


@pytest.fixture
def private_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartRabbitMQ]:
    """Start nodes of one's own, to break: ``private_rabbitmq(heartbeat=5)``."""
    with ExitStack() as stack:
        yield _starter(PrivateRabbitMQ, tmp_path_factory, stack)


@pytest.fixture
def rabbitmq_cluster(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RabbitMQCluster]:
    """Three nodes of one's own, to break."""
    with ExitStack() as stack:
        yield _starter(RabbitMQCluster, tmp_path_factory, stack)()


@pytest.fixture(scope="session")
def postgresql_address(run_servers: RunServers) -> postgresql_server.Address:
    """A PostgreSQL that all tests share: each keeps to a schema of its own."""
    with fail_without_server():
        address: postgresql_server.Address = run_servers.address(postgresql_server.SHARED)
    return address


@pytest.fixture
def start_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPostgreSQL]:
    """Start clusters of one's own, to break: ``start_postgresql(max_connections=10)``."""
    with ExitStack() as stack:
        yield _starter(PrivatePostgreSQL, tmp_path_factory, stack)


@pytest.fixture
def postgresql_pair(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PostgreSQLPair]:
    """A primary and its synchronous standby of one's own, to break."""
    with ExitStack() as stack:
        yield _starter(PostgreSQLPair, tmp_path_factory, stack)()


@pytest.fixture
def start_pgbouncer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPgBouncer]:
    """Start a pooler of one's own: ``start_pgbouncer(postgresql_address, default_pool_size=2)``."""
    with ExitStack() as stack:
        yield _starter(PrivatePgBouncer, tmp_path_factory, stack)
