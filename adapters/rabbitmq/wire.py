"""Lines to the server, and who does their I/O.

A connection of pika's may be touched by one thread at a time. So all that speaks AMQP runs in short callbacks
of its loop, and the loop is run by whoever waits for an answer, or by a thread for that purpose where nobody
does. No handler runs there.
"""

import logging
import socket
import threading
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from contextlib import suppress
from time import monotonic
from typing import Any

from pika import ConnectionParameters, SelectConnection
from pika.adapters.select_connection import IOLoop
from pika.channel import Channel

_BEAT_S = 0.2
"""How often the heart serves a line that nobody waits for; far below any heartbeat of the protocol."""
_BEAT_TURNS = 4
_CLOSE_S = 2.0
"""How long the server may take to say goodbye."""

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
    """The I/O of one line: whoever waits for it does it, and where nobody waits, the heart does.

    A thread of its own would cost two changes of threads a round trip, which is as much as the round trip.
    But no connection may be served by two at once: so one thread at a time has the loop, and the others wait
    for what they want, or for their turn.
    """

    def __init__(self) -> None:
        self.loop = IOLoop()
        self.loop.activate_poller()
        self._turns = threading.Condition()
        self._taken = False
        self._closed = False

    def run(self, function: Callable[[], object]) -> None:
        """Run ``function`` where the loop is: here and now, or else in the thread that has it, soon.

        Raises:
            LineClosed: the loop has ended.
        """
        with self._turns:
            if self._closed:
                raise LineClosed
            if self._taken:
                self.loop.add_callback_threadsafe(function)
                return
            self._taken = True
        try:
            function()
        finally:
            self._give_up_turn()

    def wait(self, over: Callable[[], object], timeout_s: float) -> bool:
        """Do I/O, or let another do it, until ``over`` or the timeout; say whether it is over."""
        give_up = monotonic() + timeout_s
        while True:
            with self._turns:
                if over():
                    return True
                left_s = give_up - monotonic()
                if left_s <= 0 or self._closed:
                    return False
                if self._taken:
                    self._turns.wait(left_s)
                    continue
                self._taken = True
            try:
                self.loop.process_timeouts()
                if not over():
                    self._poll(left_s)
            finally:
                self._give_up_turn()

    def wake(self) -> None:
        """Have those who wait look again whether it is over."""
        with self._turns:
            self._turns.notify_all()
            if self._taken:
                self.loop.add_callback_threadsafe(_nothing)

    def beat(self) -> None:
        """Do what I/O there is, unless somebody is at it."""
        with self._turns:
            if self._taken or self._closed:
                return
            self._taken = True
        try:
            for _ in range(_BEAT_TURNS):
                self._poll(0.0)
                self.loop.process_timeouts()
        finally:
            self._give_up_turn()

    def close(self) -> None:
        """End it: whoever waits is told, and what is to be run from now on isn't."""
        self.wake()
        with self._turns:
            self._closed = True
            self._turns.wait_for(lambda: not self._taken, _CLOSE_S)
            if not self._taken:
                self.loop.close()

    def _poll(self, seconds: float) -> None:
        alarm = self.loop.call_later(seconds, _nothing)
        self.loop.poll()
        self.loop.remove_timeout(alarm)

    def _give_up_turn(self) -> None:
        with self._turns:
            self._taken = False
            self._turns.notify_all()


class Heart:
    """Serves lines that nobody waits for, so that heartbeats go on however long a job takes."""

    def __init__(self, logger: logging.Logger) -> None:
        self._logger = logger
        self._served: set[Io] = set()
        self._lock = threading.Lock()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mindtrace-jobs-rabbitmq", daemon=True)
        self._thread.start()

    def serve(self, io: Io) -> None:
        """Begin with ``io``."""
        with self._lock:
            self._served.add(io)

    def leave(self, io: Io) -> None:
        """Cease with ``io``."""
        with self._lock:
            self._served.discard(io)

    def stop(self) -> None:
        """End the thread."""
        self._over.set()
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def _run(self) -> None:
        while not self._over.wait(_BEAT_S):
            with self._lock:
                served = list(self._served)
            for io in served:
                try:
                    io.beat()
                except Exception:  # a fault of ours must not stop the other lines' heartbeats
                    self._logger.exception("a connection to RabbitMQ couldn't be served")


class Line:
    """One connection with one channel, made when it is first needed and again after it broke.

    Subclasses add what the channel is for. Methods whose names begin with ``on_`` run in the loop.
    """

    def __init__(self, heart: Heart, servers: Sequence[ConnectionParameters]) -> None:
        self._heart = heart
        self._servers = servers
        self.io = Io()
        heart.serve(self.io)
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
        answer = self.begin(act)
        if not self.io.wait(answer.done, timeout_s):
            answer.cancel()  # where it wasn't begun, it never is
            self.abandon()
            raise LineBroken(TimeoutError(f"no answer within {timeout_s:g} s"))
        return answer.result()

    def begin(self, act: Act) -> "Future[Any]":
        """Have ``act`` speak to the server, and don't wait for the answer; otherwise as :meth:`ask`.

        What is begun later is said later.
        """
        answer: Future[Any] = Future()
        self.io.run(lambda: self._begin(act, answer))
        return answer

    def abandon(self) -> None:
        """Drop the connection without a word."""
        with suppress(LineClosed):
            self.io.run(self._drop)

    def close(self) -> None:
        """Close the connection, politely where the server answers in time; again is a no-op."""
        closed: Future[None] = Future()
        with suppress(LineClosed):
            self.io.run(lambda: self._close(closed))
            if not self.io.wait(closed.done, _CLOSE_S):
                self.abandon()
                self.io.wait(closed.done, _CLOSE_S)
        self._heart.leave(self.io)
        self.io.close()

    # -- for subclasses, in the loop --------------------------------------------------------

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
        SelectConnection.create_connection(self._servers, on_done=self._connected, custom_ioloop=self.io.loop)

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


def _nothing() -> None:
    pass
