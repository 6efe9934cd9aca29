"""Which leases a client protects on a new connection, and how often."""

from collections.abc import Sequence
from typing import Any

import pytest

from mindtrace.jobs.adapters.redis.transport import on_connect
from mindtrace.jobs.adapters.redis.transport.on_connect import OnConnect

SHORT, LONG = ("short",), ("long",)


class Server:
    """A server that is the same all the time, and the queues whose leases were protected there, by moment."""

    def __init__(self) -> None:
        self.now = 0.0
        self.protected: list[tuple[float, str]] = []

    def execute(self, *commands: object) -> list[Any]:
        return [b"redis_version:7.4.0\r\nrun_id:one\r\n" for _ in commands]

    def evaluate(self, _execute: Any, _script: Any, keys: Sequence[str], arguments: Sequence[str]) -> int:
        if arguments[-1] == "1":
            self.protected.append((self.now, *keys))
        return 1

    def connect(self, client: OnConnect, moment: float) -> None:
        self.now = moment
        client(self.execute)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Server:
    server = Server()
    monkeypatch.setattr(on_connect, "evaluate", server.evaluate)
    monkeypatch.setattr(on_connect, "monotonic", lambda: server.now)
    return server


@pytest.fixture
def client(server: Server) -> OnConnect:
    client = OnConnect("somewhere")
    server.connect(client, 0.0)
    client.protect_leases(server.execute, SHORT, 6_000)
    client.protect_leases(server.execute, LONG, 3_600_000)
    return client


def test_an_outage_protects_short_leases_once_though_longer_ones_need_it_much_later(
    server: Server, client: OnConnect
) -> None:
    """A client that only reads makes a connection for each call until then."""
    client.note_failure(1.0)
    for moment in (2.0, 10.0, 11.0, 500.0, 1300.0, 1301.0):
        server.connect(client, moment)

    assert server.protected == [(10.0, "short"), (1300.0, "long")]
    assert client.unwritten_since is None


def test_a_later_outage_protects_short_leases_again(server: Server, client: OnConnect) -> None:
    client.note_failure(1.0)
    server.connect(client, 10.0)
    client.note_failure(100.0)
    server.connect(client, 101.0)
    server.connect(client, 110.0)

    assert server.protected == [(10.0, "short"), (110.0, "short")]


def test_a_queue_that_gets_a_consumer_in_an_outage_is_protected_from_all_of_it(
    server: Server, client: OnConnect
) -> None:
    client.note_failure(1.0)
    client.protect_leases(server.execute, ("new",), 30_000)
    server.connect(client, 10.0)
    server.connect(client, 12.0)

    assert server.protected == [(10.0, "short"), (12.0, "new")]


def test_after_a_write_no_lease_needs_protection(server: Server, client: OnConnect) -> None:
    client.note_failure(1.0)
    client.note_write()
    server.connect(client, 9000.0)

    assert server.protected == []
