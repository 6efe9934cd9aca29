"""A PostgreSQL that can't be connected to: the error says why, and how to fix just that."""

import socket
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress

import psycopg
import pytest

from brokers.fixtures import StartPostgreSQL
from brokers.postgresql_server import PrivatePostgreSQL
from brokers.private_server import free_port
from conditions import LIMIT_S
from mindtrace.jobs import PostgreSQLClient
from mindtrace.jobs.adapters.postgresql import session
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import AccessDenied, BackendUnavailable
from mindtrace.jobs.ports import Message

from .postgresql_tries import three_tries

SOON_S = 0.3
"""The retry timeout where no answer ever comes."""


@contextmanager
def other_server(greeting: bytes | None) -> Iterator[int]:
    """A server of another kind, on a port of its own. It sends each client some bytes, or nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener, ExitStack() as stack:

        def serve() -> None:
            while True:
                try:
                    client = stack.enter_context(listener.accept()[0])
                except OSError:
                    return
                client.recv(1024)
                if greeting is not None:
                    client.sendall(greeting)
                    client.close()

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield listener.getsockname()[1]
        listener.shutdown(socket.SHUT_RDWR)
        thread.join()


def error_of(port: int, host: str = "127.0.0.1", *, retry_timeout_s: float = LIMIT_S, **libpq: str) -> str:
    """What a call raises."""
    with (
        three_tries(),
        PostgreSQLClient(
            host, port, username="postgres", retry_timeout_s=retry_timeout_s, libpq=libpq
        ) as client,
        pytest.raises(BackendUnavailable) as raised,
    ):
        client.queues()
    return str(raised.value)


@pytest.mark.parametrize(
    ("greeting", "words"),
    [
        (b"-ERR unknown command\r\n", "does another server listen there? Check the port"),
        (b"HTTP/1.1 400 Bad Request\r\n\r\n", "does another server listen there? Check the port"),
        (b"", "does another server listen there? Check the port"),
        (None, "whether the server hangs"),
    ],
    ids=["Redis", "HTTP", "closes", "silent"],
)
@pytest.mark.parametrize("sslmode", ["disable", "prefer", "require"])
def test_a_port_of_another_server_is_told(greeting: bytes | None, words: str, sslmode: str) -> None:
    with other_server(greeting) as port:
        told = error_of(port, retry_timeout_s=SOON_S if greeting is None else LIMIT_S, sslmode=sslmode)
    assert told.endswith(words) or words in told
    assert "systemctl" not in told


def test_a_port_that_nobody_listens_on_is_told() -> None:
    assert "on this port? Correct the port, or start it" in error_of(free_port())


def test_a_host_that_nobody_knows_is_told() -> None:
    assert error_of(5432, "no-such-host.invalid").endswith("correct the host's name")


def test_a_server_without_tls_is_told(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql(fsync="off")
    told = error_of(server.address.port, sslmode="require")
    assert told.endswith("set ssl = on there, or connect with sslmode=prefer")


def test_a_server_that_admits_only_encrypted_connections_is_told(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql(fsync="off")
    rules = server.data / "pg_hba.conf"
    rules.write_text(rules.read_text("utf-8").replace("host ", "hostssl "), "utf-8")
    server.restart("immediate")
    with (
        server.client(retry_timeout_s=LIMIT_S) as client,
        pytest.raises(AccessDenied, match="encrypt with sslmode=verify-full"),
    ):
        client.queues()


def test_a_server_without_a_free_connection_is_told(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql(fsync="off", max_connections=10)
    with ExitStack() as stack:
        with suppress(psycopg.OperationalError):
            while True:
                stack.enter_context(server.connect())
        assert error_of(server.address.port).endswith("raise max_connections, or run fewer workers")


def test_a_server_that_goes_on_answering_nothing_is_told(start_postgresql: StartPostgreSQL) -> None:
    """One that it is connected to already: it hangs, or something holds it up."""
    server: PrivatePostgreSQL = start_postgresql(fsync="off")
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        client._session.retry_timeout_s = SOON_S
        server.pause()
        (outcome,) = client.publish("jobs", [Message("a", b"{}")])
        server.resume()
    assert isinstance(outcome.error, BackendUnavailable)
    assert "whether the server hangs" in str(outcome.error)


def test_a_server_that_lacks_a_setting_serves_all_the_same(
    start_postgresql: StartPostgreSQL, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On some systems it can't look whether a client is still there."""
    monkeypatch.setattr(session, "_END_WHAT_IS_GIVEN_UP", "SET no_such_setting = '1s'")
    with start_postgresql().client() as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("a", b"{}")])

        assert client.counts("jobs").ready == 1
