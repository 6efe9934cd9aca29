"""Our outage is told once, by us, and what pika logs of a program's own connections is left alone."""

import logging
import socket
from collections.abc import Iterator
from typing import Any

import pika
import pytest

from mindtrace.jobs import RabbitMQClient
from mindtrace.jobs.domain.errors import BackendUnavailable

UNKNOWN = "unknown.invalid"


@pytest.fixture
def port() -> Iterator[int]:
    """A port where nobody listens."""
    with socket.socket() as bound:
        bound.bind(("127.0.0.1", 0))
        yield bound.getsockname()[1]


@pytest.fixture
def logged(monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture) -> pytest.LogCaptureFixture:
    """With a name that no server of names knows, and without asking one."""
    resolve = socket.getaddrinfo

    def getaddrinfo(host: str, *args: Any, **options: Any) -> Any:
        if host == UNKNOWN:
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        return resolve(host, *args, **options)

    monkeypatch.setattr(socket, "getaddrinfo", getaddrinfo)
    caplog.set_level(logging.INFO)
    return caplog


def by_pika(logged: pytest.LogCaptureFixture) -> list[str]:
    return [record.getMessage() for record in logged.records if record.name.partition(".")[0] == "pika"]


@pytest.mark.parametrize("host", ["127.0.0.1", UNKNOWN])
def test_an_outage_is_told_once_and_not_by_pika(
    host: str, port: int, logged: pytest.LogCaptureFixture
) -> None:
    """However often it is tried, and whatever thread looks up the host."""
    with RabbitMQClient(host, port, retry_timeout_s=0.5) as client, pytest.raises(BackendUnavailable):
        client.counts("points")

    assert by_pika(logged) == []
    assert sum("is out of reach" in record.getMessage() for record in logged.records) == 1


def test_pika_logs_a_programs_own_connections(port: int, logged: pytest.LogCaptureFixture) -> None:
    """As it would without us."""
    parameters = pika.ConnectionParameters(UNKNOWN, port, connection_attempts=1)
    with pytest.raises(socket.gaierror):
        pika.BlockingConnection(parameters)

    assert any("Address resolution failed" in message for message in by_pika(logged))
    assert any("connection" in message.lower() for message in by_pika(logged))
    assert logging.getLogger("pika").level == logging.NOTSET


def test_who_debugs_pika_sees_our_connections_too(
    port: int, logged: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(logging.getLogger("pika"), "level", logging.DEBUG)
    with RabbitMQClient("127.0.0.1", port, retry_timeout_s=0.1) as client, pytest.raises(BackendUnavailable):
        client.counts("points")

    assert by_pika(logged)
