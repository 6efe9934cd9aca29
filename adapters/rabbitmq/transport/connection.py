"""A connection to RabbitMQ that comes back after it broke."""

import logging
import re
from collections import deque
from collections.abc import Callable, Mapping
from contextlib import suppress
from enum import Enum, auto
from functools import partial
from typing import Any

from pika import ConnectionParameters
from pika.channel import Channel

from ....ports.signal_errors import raised_by_handler
from .broker import Broker
from .connect import abort, connect
from .driver_connection import DriverConnection, shut_down
from .errors import ClosedByClient, ConnectionBroken, Unreachable, Unsuitable, no_answer
from .leader_follower_loop import CLOSE_TIMEOUT_S, LeaderFollowerLoop
from .request import Action, Reply, Request

_OLDEST = (4, 0)
"""The first release whose quorum queues know priorities and count what comes back."""

_LOGGER = logging.getLogger(__name__)


class State(Enum):
    """Where a connection is; ``_NEXT`` has the ways from one to another."""

    DISCONNECTED = auto()
    """There is none; the next request connects."""
    CONNECTING = auto()
    """One server after the other is tried. Requests wait."""
    OPENING = auto()
    """The connection stands, its channel is being opened. Requests wait."""
    OPEN = auto()
    """Requests are sent."""
    CHANNEL_LOST = auto()
    """The connection stands, or is going; its channel is gone. The next request opens another."""
    CLOSING = auto()
    """The owner closed it, and the server hasn't said goodbye yet. Requests fail."""
    CLOSED = auto()
    """It is gone for good. Requests fail."""


_NEXT = {
    State.DISCONNECTED: {State.CONNECTING, State.CLOSED},
    State.CONNECTING: {State.OPENING, State.CHANNEL_LOST, State.DISCONNECTED, State.CLOSING},
    State.OPENING: {State.OPEN, State.CHANNEL_LOST, State.DISCONNECTED, State.CLOSING},
    State.OPEN: {State.CHANNEL_LOST, State.DISCONNECTED, State.CLOSING},
    State.CHANNEL_LOST: {State.OPENING, State.DISCONNECTED, State.CLOSING},
    State.CLOSING: {State.CLOSED},
    State.CLOSED: set[State](),
}


class Connection:
    """One connection with one channel, made when it is first needed and again after it broke.

    Subclasses add what the channel is for. Methods whose names begin with ``on_`` run in the loop.
    """

    def __init__(self, broker: Broker) -> None:
        self._heartbeat = broker.heartbeat
        self._servers = broker.servers
        self.loop = LeaderFollowerLoop(self._on_fault)
        self._heartbeat.register(self.loop)
        self.state = State.DISCONNECTED
        self._attempt: Any = None
        """What is under way to connect."""
        self._untried: deque[ConnectionParameters] = deque()
        """The servers to try after that."""
        self._driver: DriverConnection | None = None
        self._dropped: DriverConnection | None = None
        """What was dropped after a fault last."""
        self._channel: Channel | None = None
        self._waiting: list[Request] = []
        """Requests that wait for the channel."""
        self._sent: set[Request] = set()
        self.server = ""
        """What the server calls itself, once it has answered."""
        self.frame_max = 0
        """The longest frame that the server takes, in bytes, once it has answered."""
        self.last_blocked: str | None = None
        """Why the server took no messages last, whatever became of the connection."""
        self.blocked: str | None = None
        """Why the server takes no messages at present, where it doesn't."""

    @property
    def is_open(self) -> bool:
        """Whether it is open, as far as is known here."""
        return self._channel is not None

    @property
    def has_unread(self) -> bool:
        """Whether the loop has something to find out, such as the end of the connection."""
        driver = self._driver
        return driver is not None and (driver.has_unread or self.loop.io.has_calls)

    def request(self, action: Action, timeout_s: float) -> Any:
        """Have ``action`` speak to the server, and return what it replies; for any thread outside the loop.

        Args:
            action: Called with the open channel and the function to reply with.
            timeout_s: How long to wait; a connection that is silent for longer counts as broken.

        Raises:
            Unreachable: no connection could be made.
            ConnectionBroken: it broke meanwhile, or the server closed the channel: see its cause.
            ClosedByClient: the connection is closed.
        """
        request = Request(action)
        if self._is_answered(request, timeout_s):
            return request.result()
        if self.loop.closed:
            raise ClosedByClient
        is_connected = self._driver is not None
        self.drop()
        raise no_answer(timeout_s, is_connected=is_connected)

    def _is_answered(
        self, request: Request, timeout_s: float, is_enough: Callable[[], bool] = lambda: False
    ) -> bool:
        """Make a request, and return whether the answer came in time, or ``is_enough`` held."""
        begin = partial(self._begin, request)
        try:
            return self.loop.wait(lambda: request.is_over or is_enough(), timeout_s, first=begin)
        finally:
            request.is_abandoned = True

    def drop(self) -> None:
        """Break the connection without a word."""
        with suppress(ClosedByClient):
            self.loop.call(self._drop)

    def close(self) -> None:
        """Close the connection, politely where the server answers in time; again is a no-op."""
        with suppress(ClosedByClient):
            if not self.loop.wait(self._is_closed, CLOSE_TIMEOUT_S, first=self._close):
                self.drop()
                self.loop.wait(self._is_closed, CLOSE_TIMEOUT_S)
        self._heartbeat.unregister(self.loop)
        self.loop.close()

    # -- for subclasses, in the loop ------------------------------------------------------------------

    def on_channel(self, channel: Channel, ready: Reply) -> None:
        """Set up a new channel, and call ``ready``."""
        ready(None)

    def on_channel_lost(self, error: BaseException) -> None:
        """Forget the channel, and all that depended on it."""

    def on_blocked_changed(self) -> None:
        """The server began or ceased to refuse messages."""

    def _flush(self) -> None:
        if self._driver is not None:
            self._driver.flush()

    # -- requests -------------------------------------------------------------------------------------

    def _begin(self, request: Request) -> None:
        match self.state:
            case State.OPEN if self._channel is not None:
                self._send(self._channel, request)
            case State.CLOSING | State.CLOSED:
                request.fail(ClosedByClient())
            case State.DISCONNECTED:
                self._waiting.append(request)
                self._enter(State.CONNECTING)
                self._untried = deque(self._servers)
                self._try_next()
            case State.CHANNEL_LOST if self._driver is not None:
                self._waiting.append(request)
                self._open_channel(self._driver)
            case _:
                self._waiting.append(request)

    def _send(self, channel: Channel, request: Request) -> None:
        if request.is_abandoned:
            return
        self._sent.add(request)

        def reply(value: Any) -> None:
            self._sent.discard(request)
            request.answer(value)

        try:
            request.action(channel, reply)
            self._flush()
        except Exception as error:  # a channel that is closing, mostly
            if raised_by_handler(error):
                raise
            self._sent.discard(request)
            request.fail(ConnectionBroken(error))

    def _fail_waiting(self, error: Exception) -> None:
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            request.fail(error)

    # -- states ---------------------------------------------------------------------------------------

    def _enter(self, state: State) -> None:
        """Go to another state. Once it is closing, it goes nowhere else than to CLOSED."""
        if self.state is not State.CLOSING or state is State.CLOSED:
            assert state in _NEXT[self.state], f"from {self.state} to {state}"  # noqa: S101 - a fault of ours
            self.state = state

    def _is_closed(self) -> bool:
        return self.state is State.CLOSED

    def _try_next(self) -> None:
        def done(outcome: DriverConnection | BaseException) -> None:
            if self._attempt is attempt:
                self._connected(outcome)
            elif isinstance(outcome, DriverConnection):  # of an attempt that was forgotten
                outcome.close()

        self._attempt = attempt = connect(self._untried.popleft(), self.loop.io, done)

    def _connected(self, outcome: DriverConnection | BaseException) -> None:
        self._attempt = None
        if isinstance(outcome, BaseException):
            if self._untried and self.state is State.CONNECTING:
                self._try_next()
            else:
                self._gone()
                self._fail_waiting(Unreachable(_root(outcome)))
            return
        self._driver = driver = outcome
        driver.add_on_close_callback(self._connection_closed)
        driver.add_on_connection_blocked_callback(
            lambda _connection, frame: self._set_blocked(frame.method.reason or "a resource alarm")
        )
        driver.add_on_connection_unblocked_callback(lambda _connection, _frame: self._set_blocked(None))
        about = driver.server_properties or {}
        self.frame_max = driver.params.frame_max
        self.server = f"{_text(about.get('product', 'it'))} {_text(about.get('version', ''))}".strip()
        if (unsuitable := _too_old(about)) is not None:
            self._enter(State.CHANNEL_LOST)
            self._fail_waiting(Unsuitable(unsuitable))
        if unsuitable is not None or self.state is State.CLOSING:
            driver.close()
        else:
            self._open_channel(driver)

    def _open_channel(self, driver: DriverConnection) -> None:
        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(self._channel_closed)
            self.on_channel(channel, lambda _: self._ready(channel))

        self._enter(State.OPENING)
        try:
            driver.channel(on_open_callback=opened)
        except Exception as error:  # the connection is closing: its callback comes
            if raised_by_handler(error):
                raise
            self._enter(State.CHANNEL_LOST)
            self._fail_waiting(ConnectionBroken(error))

    def _ready(self, channel: Channel) -> None:
        self._channel = channel
        self._enter(State.OPEN)
        waiting, self._waiting = self._waiting, []
        for request in waiting:
            self._send(channel, request)

    def _channel_closed(self, channel: Channel | None, reason: BaseException) -> None:
        if self._channel not in (None, channel):
            return
        self._channel = None
        if self.state in (State.OPENING, State.OPEN):
            self._enter(State.CHANNEL_LOST)
        if self._driver is not None:
            self._driver.forget_channel()
        self.on_channel_lost(reason)
        broken = ConnectionBroken(reason)
        sent, self._sent = self._sent, set()
        for request in sent:
            request.fail(broken)
        self._fail_waiting(broken)

    def _connection_closed(self, driver: DriverConnection, reason: Exception) -> None:
        if driver is not self._driver:
            return
        self._driver = None
        self._gone()
        self._fail_waiting(ConnectionBroken(reason))
        self._set_blocked(None)

    def _gone(self) -> None:
        self._enter(State.CLOSED if self.state is State.CLOSING else State.DISCONNECTED)

    def _close(self) -> None:
        if self.state in (State.CLOSING, State.CLOSED):
            return
        self._fail_waiting(ClosedByClient())
        if self.state is State.DISCONNECTED:
            self._enter(State.CLOSED)
            return
        self._enter(State.CLOSING)
        if self._attempt is not None:
            abort(self._attempt, self.loop.io)
        elif self._driver is not None and self._driver.is_open:
            self._driver.close()

    # -- faults ---------------------------------------------------------------------------------------

    def _set_blocked(self, reason: str | None) -> None:
        if reason != self.blocked:
            self.blocked = reason
            self.last_blocked = reason or self.last_blocked
            self.on_blocked_changed()

    def _drop(self) -> None:
        if self._driver is not None:
            self._driver.drop()

    def _on_fault(self, error: BaseException) -> None:
        # Pika sees to the end of what is dropped, but not while it connects, and not if that fails as well.
        # Nor was all forgotten, if that was interrupted.
        is_ours_to_end = self._driver is None or self._driver is self._dropped
        if is_ours_to_end or self.state in (State.CONNECTING, State.CLOSING):
            if self.state not in (State.DISCONNECTED, State.CLOSED):
                self._forget(error)
        else:
            self._drop()
            self._dropped = self._driver
        if isinstance(error, Exception) and not raised_by_handler(error):
            _LOGGER.error("a connection to RabbitMQ is given up after a fault", exc_info=error)

    def _forget(self, error: BaseException) -> None:
        """Have nothing more to do with the connection, or with what is under way to make it."""
        shut_down(self.loop.io.sockets)
        self.loop.io.forget()
        self._attempt = self._driver = None
        self._fail_waiting(Unreachable(error))
        self._channel_closed(self._channel, error)
        self._set_blocked(None)
        self._gone()


def _root(error: BaseException) -> BaseException:
    """Return what went wrong while connecting, out of pika's wrappings."""
    while inner := getattr(error, "exception", None) or (getattr(error, "exceptions", None) or [None])[-1]:
        error = inner
    return error


def _text(said: object) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _too_old(properties: Mapping[str, Any]) -> Exception | None:
    """Return why a server can't be used, from what it says of itself; what doesn't say is believed."""
    version = _text(properties.get("version", ""))
    number = re.match(r"(\d+)\.(\d+)", version)
    if number is None or (int(number[1]), int(number[2])) >= _OLDEST:
        return None
    product = _text(properties.get("product", "it"))
    return RuntimeError(f"{product} {version} answers, and {_OLDEST[0]}.{_OLDEST[1]} or newer is needed")
