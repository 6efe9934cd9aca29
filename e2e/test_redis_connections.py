"""The seam to Redis: no command reads an answer that was another's, whatever became of that one.

Each test runs past the driver, and by the driver's public methods.
"""

import os
import signal
import socket
import threading
import time
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from types import FrameType
from typing import Any, Self

import pytest
from redis.connection import Connection
from redis.exceptions import ConnectionError as Broken
from redis.exceptions import ResponseError

from background import Background
from brokers.fixtures import StartRedis
from brokers.proxy import Disruption, Proxy
from brokers.redis_server import PrivateRedis
from conditions import eventually
from mindtrace.jobs.adapters.redis import RedisClient
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.scripts import DECLARE
from mindtrace.jobs.adapters.redis.transport.channel import _leave_timeout_to_system
from mindtrace.jobs.adapters.redis.transport.connections import (
    ConnectionBroke,
    Connections,
    make_connections,
)
from mindtrace.jobs.domain import Queue


@pytest.fixture
def server(private_redis: StartRedis) -> PrivateRedis:
    return private_redis()


@pytest.fixture
def connections(server: PrivateRedis) -> Iterator[Connections]:
    connections = make_connections(host=server.address.host, port=server.address.port, socket_timeout=60.0)
    yield connections
    connections.close()


def client_id(connections: Connections) -> int:
    (number,) = connections.execute(("CLIENT", "ID"))
    assert isinstance(number, int)
    return number


class Chatty:
    """A server that answers OK to each request, and says more where a request asks for ``more``."""

    def __init__(self) -> None:
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port: int = self._listener.getsockname()[1]
        self.met = 0
        """How many connections it had."""

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, daemon=True).start()
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.close()

    def _accept(self) -> None:
        with suppress(OSError):
            while True:
                connection, _ = self._listener.accept()
                self.met += 1
                threading.Thread(target=self._serve, args=[connection], daemon=True).start()

    def _serve(self, connection: socket.socket) -> None:
        with connection, suppress(OSError):
            while request := connection.recv(65_536):
                count = request.count(b"*") + request.count(b"more")
                connection.sendall(b"+OK\r\n" * count)


def test_commands_are_answered_in_order_and_an_error_is_the_answer_of_its_own(
    connections: Connections,
) -> None:
    before = client_id(connections)
    first, error, last = connections.execute(("ECHO", "a"), ("INCR",), ("ECHO", "b"))

    assert (first, last) == (b"a", b"b")
    assert isinstance(error, ResponseError)
    assert client_id(connections) == before


def test_an_error_of_a_parsed_command_is_raised_and_its_connection_is_used_again(
    connections: Connections,
) -> None:
    before = client_id(connections)
    with pytest.raises(ResponseError):
        connections.execute_parsed("INCR")

    assert connections.execute_parsed("HGETALL", "nothing") == {}
    assert client_id(connections) == before


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.TRUNCATE])
def test_an_answer_that_was_cut_off_is_nobody_elses_beginning(server: PrivateRedis, how: Disruption) -> None:
    proxy = Proxy(server.address.host, server.address.port)
    with proxy:
        connections = make_connections(host="127.0.0.1", port=proxy.port, socket_timeout=60.0)
        connections.execute(("SET", "long", "x" * 1000))
        proxy.disrupt_next(b"long", how)
        with pytest.raises(Broken):
            connections.execute(("ECHO", "a"), ("GET", "long"))

        assert connections.execute(("ECHO", "b")) == [b"b"]
        connections.close()


def test_an_answer_that_nobody_asked_for_is_nobody_elses() -> None:
    with Chatty() as server:
        connections = make_connections(host="127.0.0.1", port=server.port, socket_timeout=60.0)
        assert connections.execute(("ECHO", "more")) == [b"OK"]
        assert connections.execute(("ECHO", "b")) == [b"OK"]
        assert server.met == 2
        connections.close()


def test_an_interrupt_leaves_no_answer_behind(server: PrivateRedis, connections: Connections) -> None:
    interrupted: list[bool] = []

    def interrupt(_signal: int, _frame: FrameType | None) -> None:
        if not interrupted:
            interrupted.append(True)
            raise KeyboardInterrupt

    def interrupt_the_wait() -> None:
        """Send it until it is handled: one that comes just before a wait is handled only after it."""
        eventually(lambda: admin.info("clients")["blocked_clients"] == 1, "it waits")
        while not interrupted:
            signal.pthread_kill(threading.main_thread().ident or 0, signal.SIGUSR1)
            time.sleep(0.05)

    connections.execute(("ECHO", "a"))
    before = signal.signal(signal.SIGUSR1, interrupt)
    with server.admin() as admin:
        interrupting = threading.Thread(target=interrupt_the_wait)
        interrupting.start()
        try:
            with pytest.raises(KeyboardInterrupt):
                connections.execute(("BLPOP", "nothing", 0))
        finally:
            interrupting.join()
            signal.signal(signal.SIGUSR1, before)
        admin.rpush("nothing", "the answer")

    assert connections.execute(("ECHO", "b")) == [b"b"]


def test_a_connection_that_the_server_closed_meanwhile_is_replaced_unseen(
    server: PrivateRedis, connections: Connections
) -> None:
    before = client_id(connections)
    with server.admin() as admin:
        admin.client_kill_filter(_id=str(before))

    assert client_id(connections) != before


def test_idle_connections_that_are_dropped_are_replaced(connections: Connections) -> None:
    before = client_id(connections)
    connections.drop_idle()

    assert client_id(connections) != before


class ClosedMeanwhile:
    """A socket that another thread closes while it reads: over TLS, what was read need not be decrypted."""

    def __init__(self, connection: Connection) -> None:
        self._connection = connection
        self._socket: Any = connection._sock

    def recv_into(self, buffer: bytearray) -> int:
        count: int = self._socket.recv_into(buffer)
        self._connection.disconnect()  # type: ignore[no-untyped-call]
        return count

    def __getattr__(self, name: str) -> Any:
        return getattr(self._socket, name)


def test_what_is_read_while_the_connection_is_closed_is_no_answer(connections: Connections) -> None:
    connections.execute(("ECHO", "a"))
    (kept,) = connections._idle
    kept._socket = ClosedMeanwhile(kept.connection)
    kept.connection._sock = kept._socket
    with pytest.raises(Broken):
        connections.execute(("ECHO", "b"))

    assert connections.execute(("ECHO", "c")) == [b"c"]


def test_closing_ends_a_command_that_is_under_way(server: PrivateRedis, connections: Connections) -> None:
    """On whichever thread; whether it ran is not known."""
    with Background() as thread, server.admin() as admin:
        waiting = thread.submit(connections.execute, ("BLPOP", "nothing", 0))
        eventually(lambda: admin.info("clients")["blocked_clients"] == 1, "it waits")
        connections.close()
        assert isinstance(waiting.exception(60), ConnectionBroke)


def test_closing_closes_a_connection_that_is_being_made(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else nobody ever would: the thread that reads reports may just have begun when its client is closed."""
    connect, begun, closed = Connection.connect, threading.Event(), threading.Event()

    def connect_slowly(connection: Connection) -> None:
        begun.set()
        assert closed.wait(60)
        connect(connection)  # type: ignore[no-untyped-call]

    monkeypatch.setattr(Connection, "connect", connect_slowly)
    with Background() as background:
        late = background.submit(connections.execute, ("ECHO", "a"))
        assert begun.wait(60)
        connections.close()
        closed.set()
        with pytest.raises(Broken):
            late.result(60)

    pool: Any = connections._pool
    assert [each._sock for each in pool._available_connections] == [None]


def test_an_answer_that_does_not_come_in_time_leaves_open_whether_the_command_ran(
    connections: Connections,
) -> None:
    connections.execute(("ECHO", "a"))
    (kept,) = connections._idle
    kept.connection._sock.settimeout(0.2)  # and connections to come have a minute
    _leave_timeout_to_system(kept.connection._sock)
    with pytest.raises(ConnectionBroke):
        connections.execute(("BLPOP", "nothing", 0))

    assert connections.execute(("ECHO", "b")) == [b"b"]


def test_a_connection_that_is_closed_before_its_first_use_is_said_to_be_broken(
    connections: Connections, monkeypatch: pytest.MonkeyPatch
) -> None:
    pool = connections._pool
    get_connection = pool.get_connection

    def closed_at_once() -> Connection:
        connection = get_connection()
        connection._sock.close()
        return connection

    monkeypatch.setattr(pool, "get_connection", closed_at_once)
    with pytest.raises(Broken):
        connections.execute(("ECHO", "a"))

    monkeypatch.undo()
    assert connections.execute(("ECHO", "b")) == [b"b"]


def test_a_wait_at_a_server_that_was_demoted_is_not_repeated_there(server: PrivateRedis) -> None:
    client = RedisClient(server.address.host, server.address.port, retry_timeout_s=60.0)
    redis, keys = client._redis, QueueKeys("default", "demoted")
    client.declare(Queue("demoted"))
    with server.admin() as admin:
        admin.replicaof("127.0.0.1", 1)
    declare = (DECLARE, keys.of(DECLARE), ["fifo", "1"])
    redis.wait([(keys.wake, "0-0")], 0.05)
    assert len(redis._waits._idle) == 1

    assert redis.wait([(keys.wake, "0-0")], 0.05, declare) == ({}, None)
    assert not redis._waits._idle
    client.close()


def test_callers_at_the_same_time_each_get_their_own_answers(connections: Connections) -> None:
    def echoes(number: int) -> bool:
        words = [f"{number}.{each}" for each in range(100)]
        return all(connections.execute(("ECHO", word)) == [word.encode()] for word in words)

    with Background() as threads:
        assert all(threads.map(echoes, range(8)))


def test_a_forked_process_makes_connections_of_its_own(connections: Connections, tmp_path: Path) -> None:
    before, told = client_id(connections), tmp_path / "id"
    child = os.fork()
    if child == 0:
        told.write_text(str(client_id(connections)))
        os._exit(0)
    os.waitpid(child, 0)

    assert int(told.read_text()) != before
    assert client_id(connections) == before
