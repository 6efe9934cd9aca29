"""A connection that is written to and read past the driver."""

import socket
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from redis.connection import Connection

from mindtrace.jobs.adapters.redis.transport.channel import Channel


def test_the_installed_driver_has_the_private_names() -> None:
    """Else a newer release than those which were tested was allowed."""
    unconnected: Any = Connection(protocol=2)

    assert unconnected._sock is None
    assert callable(unconnected._parser.parse_error)


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(0.02)
        yield here, there


def channel_over(sock: socket.socket) -> Channel:
    driver: Any = SimpleNamespace(_sock=sock, _parser=SimpleNamespace(parse_error=str), can_read=bool)
    return Channel(driver)


def test_an_answer_that_does_not_come_is_a_timeout(pair: tuple[socket.socket, socket.socket]) -> None:
    """Also where the system measures the time."""
    here, there = pair
    channel = channel_over(here)

    with pytest.raises(TimeoutError, match="timed out"):
        channel.execute([("PING",)])

    there.sendall(b"+PONG\r\n")
    assert channel.execute([("PING",)]) == [b"PONG"]


def test_a_command_that_nobody_takes_is_a_timeout(pair: tuple[socket.socket, socket.socket]) -> None:
    with pytest.raises(TimeoutError, match="timed out"):
        channel_over(pair[0]).execute([("SET", "key", b"x" * 10_000_000)])
