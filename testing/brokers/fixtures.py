"""The brokers as pytest fixtures; the ``conftest.py`` at the root names this module."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from . import rabbitmq_server
from .rabbitmq_server import NoRabbitMQ, PrivateRabbitMQ, shared_rabbitmq
from .redis_server import Address, NoRedis, PrivateRedis, shared_redis

StartRedis = Callable[..., PrivateRedis]
StartRabbitMQ = Callable[..., PrivateRabbitMQ]


@pytest.fixture(scope="session")
def redis_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Address]:
    """A Redis that all tests share: each keeps to a namespace of its own, and leaves the server as it is.

    Where there is none, the tests that need it fail: a guarantee that nobody tried is none.
    """
    with ExitStack() as stack:
        try:
            address = stack.enter_context(shared_redis(tmp_path_factory.mktemp("redis")))
        except NoRedis as error:
            pytest.fail(str(error), pytrace=False)
        yield address


@pytest.fixture
def private_redis(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartRedis]:
    """Start servers of one's own, to break: ``private_redis(appendonly="yes")``."""
    with ExitStack() as stack:

        def start(**options: Any) -> PrivateRedis:
            try:
                server = PrivateRedis(tmp_path_factory.mktemp("redis"), **options)
            except NoRedis as error:
                pytest.fail(str(error), pytrace=False)
            stack.callback(server.kill)
            return server.start()

        yield start


@pytest.fixture(scope="session")
def rabbitmq_address(tmp_path_factory: pytest.TempPathFactory) -> Iterator[rabbitmq_server.Address]:
    """A RabbitMQ that all tests share, as they do the Redis."""
    with ExitStack() as stack:
        try:
            address = stack.enter_context(shared_rabbitmq(tmp_path_factory.mktemp("rabbitmq")))
        except NoRabbitMQ as error:
            pytest.fail(str(error), pytrace=False)
        yield address


@pytest.fixture
def private_rabbitmq(tmp_path_factory: pytest.TempPathFactory) -> Iterator[StartRabbitMQ]:
    """Start nodes of one's own, to break: ``private_rabbitmq(heartbeat=5)``."""
    with ExitStack() as stack:

        def start(**settings: str | int) -> PrivateRabbitMQ:
            try:
                server = PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"), **settings)
            except NoRabbitMQ as error:
                pytest.fail(str(error), pytrace=False)
            stack.callback(server.kill)
            return server.start()

        yield start
