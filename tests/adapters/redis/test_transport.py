"""Which way to the server is chosen: the fast one, or the driver's public methods."""

import logging
import socket
from collections.abc import Iterator
from threading import Event
from types import SimpleNamespace
from typing import Any

import pytest

from mindtrace.jobs.adapters.redis.transport import connections, redis_py_private
from mindtrace.jobs.adapters.redis.transport.connections import choose_channel
from mindtrace.jobs.adapters.redis.transport.redis_py_private import PrivateChannel, find_missing_names
from mindtrace.jobs.adapters.redis.transport.redis_py_public import PublicChannel

VARIABLE = "MINDTRACE_JOBS_PUBLIC_REDIS_PY"


@pytest.fixture(autouse=True)
def unset(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(VARIABLE, raising=False)


def test_the_fast_way_is_chosen_where_the_driver_has_what_it_needs() -> None:
    assert find_missing_names() == []
    assert choose_channel() is PrivateChannel


def test_the_public_methods_can_be_asked_for(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(VARIABLE, "1")

    assert choose_channel() is PublicChannel


PARSER = SimpleNamespace(parse_error=str)


@pytest.mark.parametrize(
    ("driver", "named"),
    [
        (SimpleNamespace(_parser=PARSER), "Connection._sock"),
        (SimpleNamespace(_sock=None), "Connection._parser.parse_error"),
        (SimpleNamespace(_sock=None, _parser=None), "Connection._parser.parse_error"),
        (SimpleNamespace(), "Connection._sock, Connection._parser.parse_error"),
    ],
    ids=str,
)
def test_a_driver_that_lacks_a_private_name_is_used_by_its_public_methods_and_that_is_told(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, driver: object, named: str
) -> None:
    monkeypatch.setattr(redis_py_private, "Connection", lambda protocol: driver)
    with caplog.at_level(logging.WARNING, logger=connections.__name__):
        assert choose_channel() is PublicChannel
    assert f"redis-py lacks {named}: its public methods are used" in caplog.text


@pytest.fixture
def pair() -> Iterator[tuple[socket.socket, socket.socket]]:
    here, there = socket.socketpair()
    with here, there:
        here.settimeout(0.02)
        yield here, there


def channel_over(sock: socket.socket) -> PrivateChannel:
    driver: Any = SimpleNamespace(_sock=sock, _parser=PARSER, can_read=bool)
    return PrivateChannel(driver, Event())


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
