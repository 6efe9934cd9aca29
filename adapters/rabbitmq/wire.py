"""The thread that does a client's I/O, and the lines to the server that it serves.

pika's connections may be touched by their own thread only. So all that speaks AMQP runs there, in short
callbacks; every other thread hands over what is to be done, and waits for the answer. No handler runs there,
so that heartbeats go on however long a job takes.
"""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from typing import Any

from pika import ConnectionParameters, SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

Answer = Callable[[Any], None]
Act = Callable[[Channel, Answer], None]

if (_pikas := logging.getLogger("pika")).level == logging.NOTSET:
    # It logs every failed try as an error, several times; ours tell of an outage once.
    _pikas.setLevel(logging.CRITICAL)


class LineBroken(Exception):
    """The connection, or its channel, broke before the answer came; ``cause`` says why."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause
        super().__init__(f"{type(cause).__name__}: {cause}")


class Unreachable(LineBroken):
    """No connection could be made: nothing was sent."""


class LineClosed(Exception):
    """The line was closed by its owner."""


class Io:
    """The I/O thread of one client."""

    def __init__(self) -> None:
        self.loop = IOLoop()
        self._closed = False
        self._lock = threading.Lock()
        self._thread = threading.Thread(target=self._run, name="mindtrace-jobs-rabbitmq", daemon=True)
        self._thread.start()

    def call(self, function: Callable[[], object]) -> None:
        """Run ``function`` on the thread, soon.

        Raises:
            LineClosed: the thread has ended.
        """
        with self._lock:
            if self._closed:
                raise LineClosed
            self.loop.add_callback_threadsafe(function)

    def close(self) -> None:
        """End the thread."""
        with self._lock:
            if self._closed:
                return
            self._closed = True
            self.loop.add_callback_threadsafe(self.loop.stop)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        try:
            self.loop.start()
        finally:
            self.loop.close()


class Line:
    """One connection with one channel, made when it is first needed and again after it broke.

    Subclasses add what the channel is for. Methods whose names begin with ``on_`` run on the I/O thread.
    """

    def __init__(self, io: Io, servers: Sequence[ConnectionParameters]) -> None:
        self._io = io
        self._servers = servers
        self._connection: SelectConnection | None = None
        self._channel: Channel | None = None
        self._opening = False
        self._closed = False
        self._backlog: list[tuple[Act, Future[Any]]] = []
        self._asked: set[Future[Any]] = set()
        self.blocked: str | None = None
        """Why the server takes no messages at present, where it doesn't."""

    @property
    def is_open(self) -> bool:
        """Whether it is, as far as is known here."""
        return self._channel is not None

    def ask(self, act: Act, timeout_s: float) -> Any:
        """Have ``act`` speak to the server, and return what it answers with; from any other thread.

        Args:
            act: Called with the open channel and the function to answer with.
            timeout_s: How long to wait; a line that is silent for longer counts as broken.

        Raises:
            Unreachable: no connection could be made.
            LineBroken: it broke meanwhile, or the server closed the channel: see its cause.
            LineClosed: the line is closed.
        """
        answer: Future[Any] = Future()
        self._io.call(lambda: self._begin(act, answer))
        try:
            return answer.result(timeout_s)
        except TimeoutError as error:
            answer.cancel()  # where it wasn't begun, it never is
            self.abandon()
            raise LineBroken(TimeoutError(f"no answer within {timeout_s:g} s")) from error

    def abandon(self) -> None:
        """Drop the connection without a word."""
        with suppress(LineClosed):
            self._io.call(self._drop)

    def close(self, timeout_s: float = 2.0) -> None:
        """Close the connection, politely where the server answers in time."""
        closed: Future[None] = Future()
        try:
            self._io.call(lambda: self._close(closed))
            closed.result(timeout_s)
        except (TimeoutError, LineClosed):
            self.abandon()

    # -- for subclasses, on the I/O thread --------------------------------------------------------

    def on_channel(self, channel: Channel, ready: Answer) -> None:
        """Set up a new channel, and call ``ready``."""
        ready(None)

    def on_broken(self, error: BaseException) -> None:
        """The channel is gone, with all that depended on it."""

    def on_blocked_changed(self) -> None:
        """The server began or ceased to refuse messages."""

    # -- opening ----------------------------------------------------------------------------------

    def _begin(self, act: Act, answer: "Future[Any]") -> None:
        if self._closed:
            answer.set_exception(LineClosed())
        elif self._channel is not None:
            self._act(self._channel, act, answer)
        else:
            self._backlog.append((act, answer))
            self._open()

    def _act(self, channel: Channel, act: Act, answer: "Future[Any]") -> None:
        if not answer.set_running_or_notify_cancel():
            return
        self._asked.add(answer)

        def finish(value: Any) -> None:
            self._asked.discard(answer)
            if not answer.done():
                answer.set_result(value)

        try:
            act(channel, finish)
        except Exception as error:  # a channel that is closing, mostly
            self._asked.discard(answer)
            if not answer.done():
                answer.set_exception(LineBroken(error))

    def _open(self) -> None:
        if self._opening:
            return
        self._opening = True
        if self._connection is not None:
            self._open_channel(self._connection)
            return
        SelectConnection.create_connection(
            self._servers, on_done=self._connected, custom_ioloop=self._io.loop
        )

    def _connected(self, outcome: Any) -> None:
        if isinstance(outcome, BaseException):
            self._opening = False
            self._fail_backlog(Unreachable(_root(outcome)))
            return
        connection: SelectConnection = outcome
        if self._closed:
            connection.close()
            return
        self._connection = connection
        connection.add_on_close_callback(self._connection_closed)
        connection.add_on_connection_blocked_callback(
            lambda _connection, frame: self._set_blocked(frame.method.reason or "a resource alarm")
        )
        connection.add_on_connection_unblocked_callback(lambda _connection, _frame: self._set_blocked(None))
        self._open_channel(connection)

    def _open_channel(self, connection: SelectConnection) -> None:
        def opened(channel: Channel) -> None:
            channel.add_on_close_callback(self._channel_closed)
            self.on_channel(channel, lambda _: self._ready(channel))

        try:
            connection.channel(on_open_callback=opened)
        except Exception as error:  # the connection is closing: its callback comes
            self._opening = False
            self._fail_backlog(LineBroken(error))

    def _ready(self, channel: Channel) -> None:
        self._channel = channel
        self._opening = False
        backlog, self._backlog = self._backlog, []
        for act, answer in backlog:
            self._act(channel, act, answer)

    # -- breaking ---------------------------------------------------------------------------------

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        if self._channel not in (None, channel):
            return
        self._channel = None
        self._opening = False
        self.on_broken(reason)
        broken = LineBroken(reason)
        asked, self._asked = self._asked, set()
        for answer in asked:
            if not answer.done():
                answer.set_exception(broken)
        self._fail_backlog(broken)

    def _connection_closed(self, connection: SelectConnection, reason: Exception) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        if self._opening:
            self._opening = False
            self._fail_backlog(LineBroken(reason))
        self._set_blocked(None)

    def _fail_backlog(self, error: Exception) -> None:
        backlog, self._backlog = self._backlog, []
        for _, answer in backlog:
            if not answer.done():
                answer.set_exception(error)

    def _set_blocked(self, reason: str | None) -> None:
        if reason != self.blocked:
            self.blocked = reason
            self.on_blocked_changed()

    def _drop(self) -> None:
        if self._connection is not None and (transport := self._connection._transport) is not None:
            with suppress(OSError):  # it is closed already
                # As if the network did so: pika's own close waits for an answer, without end.
                transport._sock.shutdown(socket.SHUT_RDWR)

    def _close(self, closed: "Future[None]") -> None:
        self._closed = True
        self._fail_backlog(LineClosed())
        if self._connection is None or not self._connection.is_open:
            closed.set_result(None)
            return
        self._connection.add_on_close_callback(lambda *_: closed.set_result(None))
        self._connection.close()


def _root(error: BaseException) -> BaseException:
    """What went wrong while connecting, out of pika's wrappings."""
    while inner := getattr(error, "exception", None) or (getattr(error, "exceptions", None) or [None])[-1]:
        error = inner
    return error
