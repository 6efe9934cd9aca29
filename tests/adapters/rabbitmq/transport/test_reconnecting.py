"""The states of a connection that comes back: which follow on which, and none other."""

from collections.abc import Iterator
from typing import Any, cast

import pytest

from mindtrace.jobs.adapters.rabbitmq.transport import connection as connection_module
from mindtrace.jobs.adapters.rabbitmq.transport.broker import Broker
from mindtrace.jobs.adapters.rabbitmq.transport.connection import Connection, State
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ClosedByClient, ConnectionBroken, Unreachable
from mindtrace.jobs.adapters.rabbitmq.transport.request import Request

SERVERS = ["first", "second"]


class NoHeartbeat:
    def register(self, loop: object) -> None:
        pass

    unregister = register


class NoBroker:
    heartbeat = NoHeartbeat()
    servers = SERVERS


class FakeChannel:
    def __init__(self) -> None:
        self.lost: Any = None

    def add_on_close_callback(self, callback: Any) -> None:
        self.lost = callback


class FakeDriver:
    """As far as a connection asks it; what is to come back is called by the test."""

    def __init__(self, version: str = "4.1.0") -> None:
        self.server_properties = {"product": "RabbitMQ", "version": version}
        self.params = self
        self.frame_max = 4096
        self.is_open = True
        self.channels: list[Any] = []
        self.lost: Any = None

    def add_on_close_callback(self, callback: Any) -> None:
        self.lost = callback

    def add_on_connection_blocked_callback(self, callback: Any) -> None:
        pass

    add_on_connection_unblocked_callback = add_on_connection_blocked_callback

    def channel(self, on_open_callback: Any) -> None:
        self.channels.append(on_open_callback)

    def close(self) -> None:
        self.is_open = False

    def flush(self) -> None:
        pass

    def forget_channel(self) -> None:
        pass

    drop = flush


class Trial:
    """A connection, and what it was told to do."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.tried: list[str] = []
        self.aborted = 0
        self.connected: Any = None
        monkeypatch.setattr(connection_module, "connect", self._connect)
        monkeypatch.setattr(connection_module, "abort", self._abort)
        self.connection = Connection(cast(Broker, NoBroker()))

    def _connect(self, server: str, _loop: object, on_done: Any) -> object:
        self.tried.append(server)
        self.connected = on_done
        return object()

    def _abort(self, _attempt: object, _loop: object) -> None:
        self.aborted += 1

    @property
    def state(self) -> State:
        return self.connection.state

    def begin(self) -> Request:
        request = Request(lambda _channel, reply: reply("done"))
        self.connection.loop.call(lambda: self.connection._begin(request))
        return request

    def open(self) -> tuple[FakeDriver, FakeChannel]:
        self.begin()
        driver, channel = FakeDriver(), FakeChannel()
        self.connected(driver)
        driver.channels[-1](channel)
        return driver, channel


@pytest.fixture
def trial(monkeypatch: pytest.MonkeyPatch) -> Iterator[Trial]:
    made = Trial(monkeypatch)
    yield made
    made.connection.loop.close()


def test_a_request_connects_opens_and_is_answered(trial: Trial) -> None:
    assert trial.state is State.DISCONNECTED
    request = trial.begin()
    assert trial.state is State.CONNECTING
    driver = FakeDriver()
    trial.connected(driver)
    assert trial.state is State.OPENING
    assert not request.is_over
    driver.channels[0](FakeChannel())
    assert (trial.state, request.result()) == (State.OPEN, "done")


def test_each_server_is_tried_before_it_fails(trial: Trial) -> None:
    request = trial.begin()
    trial.connected(OSError("no"))
    assert (trial.state, trial.tried) == (State.CONNECTING, SERVERS)
    trial.connected(OSError("neither"))
    assert trial.state is State.DISCONNECTED
    with pytest.raises(Unreachable, match="neither"):
        request.result()


def test_a_lost_channel_is_opened_anew_by_the_next_request(trial: Trial) -> None:
    driver, channel = trial.open()
    channel.lost(channel, RuntimeError("404"))
    assert trial.state is State.CHANNEL_LOST
    request = trial.begin()
    assert trial.state is State.OPENING
    driver.channels[-1](FakeChannel())
    assert (trial.state, request.result(), len(trial.tried)) == (State.OPEN, "done", 1)


def test_a_lost_connection_fails_what_waits_and_the_next_request_connects(trial: Trial) -> None:
    driver, channel = trial.open()
    channel.lost(channel, RuntimeError("gone"))
    waiting = trial.begin()
    driver.lost(driver, RuntimeError("gone"))
    assert trial.state is State.DISCONNECTED
    with pytest.raises(ConnectionBroken):
        waiting.result()
    trial.begin()
    assert (trial.state, len(trial.tried)) == (State.CONNECTING, 2)


def test_an_unsuitable_server_is_left(trial: Trial) -> None:
    request = trial.begin()
    driver = FakeDriver("3.13.0")
    trial.connected(driver)
    assert (trial.state, driver.is_open) == (State.CHANNEL_LOST, False)
    with pytest.raises(ConnectionBroken, match=r"4\.0 or newer"):
        request.result()
    driver.lost(driver, RuntimeError("closed"))
    assert trial.state is State.DISCONNECTED


@pytest.mark.parametrize("outcome", [OSError("aborted"), FakeDriver()], ids=["aborted", "too late"])
def test_closing_gives_up_the_attempt(trial: Trial, outcome: Any) -> None:
    """Which may have succeeded this moment."""
    request = trial.begin()
    trial.connection._close()
    assert (trial.state, trial.aborted) == (State.CLOSING, 1)
    with pytest.raises(ClosedByClient):
        request.result()
    trial.connected(outcome)
    if isinstance(outcome, FakeDriver):
        assert (trial.state, outcome.is_open, outcome.channels) == (State.CLOSING, False, [])
        outcome.lost(outcome, RuntimeError("closed"))
    assert (trial.state, trial.tried) == (State.CLOSED, SERVERS[:1])


def test_closing_while_the_channel_opens_ends_as_closed(trial: Trial) -> None:
    trial.begin()
    driver, channel = FakeDriver(), FakeChannel()
    trial.connected(driver)
    trial.connection._close()
    driver.channels[0](channel)
    channel.lost(channel, RuntimeError("closed"))
    assert (trial.state, driver.is_open) == (State.CLOSING, False)
    driver.lost(driver, RuntimeError("closed"))
    assert trial.state is State.CLOSED


def test_what_was_never_used_closes_at_once_and_refuses(trial: Trial) -> None:
    trial.connection._close()
    trial.connection._close()
    assert trial.state is State.CLOSED
    with pytest.raises(ClosedByClient):
        trial.begin().result()
