"""The brokers as pytest fixtures; the ``conftest.py`` at the root names this module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager
from typing import Any

import pytest

from . import postgresql_server, rabbitmq_server, redis_server
from .pgbouncer import PrivatePgBouncer
from .postgresql_server import PrivatePostgreSQL
from .postgresql_standby import StandbyPostgreSQL
from .private_server import NoServer
from .rabbitmq_server import PrivateRabbitMQ
from .redis_server import PrivateRedis

StartRedis = Callable[..., PrivateRedis]
StartRabbitMQ = Callable[..., PrivateRabbitMQ]
StartPostgreSQL = Callable[..., PrivatePostgreSQL]
StartStandby = Callable[..., StandbyPostgreSQL]
StartPgBouncer = Callable[..., PrivatePgBouncer]


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
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[redis_server.Address]:
    """A Redis that all tests share: each keeps to a namespace of its own, and leaves the server as it is."""
    with fail_without_server(), redis_server.SHARED.open(tmp_path_factory.mktemp("redis")) as address:
        yield address


@pytest.fixture
def private_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartRedis]:
    """Start servers of one's own, to break: ``private_redis(appendonly="yes")``."""
    with ExitStack() as stack:
        yield _starter(PrivateRedis, tmp_path_factory, stack)


@pytest.fixture(scope="session")
def rabbitmq_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq_server.Address]:
    """A RabbitMQ that all tests share, as they do the Redis."""
    with fail_without_server(), rabbitmq_server.SHARED.open(tmp_path_factory.mktemp("rabbitmq")) as address:
        yield address


@pytest.fixture
def private_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartRabbitMQ]:
    """Start nodes of one's own, to break: ``private_rabbitmq(heartbeat=5)``."""
    with ExitStack() as stack:
        yield _starter(PrivateRabbitMQ, tmp_path_factory, stack)


@pytest.fixture(scope="session")
def postgresql_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[postgresql_server.Address]:
    """A PostgreSQL that all tests share: each keeps to a schema of its own."""
    with (
        fail_without_server(),
        postgresql_server.SHARED.open(tmp_path_factory.mktemp("postgresql")) as address,
    ):
        yield address


@pytest.fixture
def start_postgresql(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPostgreSQL]:
    """Start clusters of one's own, to break: ``start_postgresql(max_connections=10)``."""
    with ExitStack() as stack:
        yield _starter(PrivatePostgreSQL, tmp_path_factory, stack)


@pytest.fixture
def start_standby(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartStandby]:
    """Start standbys of a private cluster: ``start_standby(start_postgresql())``."""
    with ExitStack() as stack:
        yield _starter(StandbyPostgreSQL, tmp_path_factory, stack)


@pytest.fixture
def start_pgbouncer(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartPgBouncer]:
    """Start a pooler of one's own: ``start_pgbouncer(postgresql_address, default_pool_size=2)``."""
    with ExitStack() as stack:
        yield _starter(PrivatePgBouncer, tmp_path_factory, stack)
