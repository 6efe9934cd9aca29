"""Lines to the server, and who does their I/O.

A connection of pika's may be touched by one thread at a time. So all that speaks AMQP runs in short callbacks
of its loop, and the loop is run by whoever waits for an answer, or by a thread for that purpose where nobody
does. No handler runs there.
"""

import logging
import re
import threading
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from time import monotonic, sleep
from typing import Any

from pika import ConnectionParameters
from pika.channel import Channel

from .connection import Connection, abort
from .loop import Loop
from .pika_log import driving

_BEAT_S = 0.2
"""How often the heart serves a line that nobody waits for; far below any heartbeat of the protocol."""
_BEAT_TURNS = 4
_CLOSE_S = 2.0
"""How long the server may take to say goodbye."""
_FAULT_S = 0.05
"""So that what fails each time doesn't do so without a pause."""
_OLDEST = (4, 0)
"""The first release whose quorum queues know priorities and count what comes back."""

_LOGGER = logging.getLogger(__name__)

Answer = Callable[[Any], None]
Act = Callable[[Channel, Answer], None]


class LineBroken(Exception):
    """The connection, or its channel, broke before the answer came; ``cause`` says why."""

    def __init__(self, cause: BaseException) -> None:
        self.cause = cause
        super().__init__(f"{type(cause).__name__}: {cause}")


class Unreachable(LineBroken):
    """No connection could be made: nothing was sent."""


class Unfit(LineBroken):
    """The server can't keep what is promised of it; ``cause`` says why."""


class LineClosed(Exception):
    """The line was closed by its owner."""


class Pending:
    """An answer that may not be there yet: set in the loop, awaited by :meth:`Io.wait`."""

    __slots__ = ("error", "is_given_up", "is_over", "value")

    def __init__(self) -> None:
        self.is_over = False
        self.is_given_up = False
        """Whether nobody waits for it any more: what wasn't begun by then never is."""
        self.value: Any = None
        self.error: Exception | None = None

    def set(self, value: Any) -> None:
        """Answer, unless that has been done."""
        if not self.is_over:
            self.value = value
            self.is_over = True

    def fail(self, error: Exception) -> None:
        """Answer with an error, unless there is an answer."""
        if not self.is_over:
            self.error = error
            self.is_over = True

    def result(self) -> Any:
        """Return what was answered, or raise it."""
        if self.error is not None:
            raise self.error
        return self.value


class Io:
    """The I/O of one line: whoever waits for it does it, and where nobody waits, the heart does.

    A thread of its own would cost two changes of threads a round trip, which is as much as the round trip.
    But no connection may be served by two at once: so one thread at a time has the loop, and the others wait
    for what they want, or for their turn.

    Args:
        on_fault: Called in the loop where something failed or was interrupted in it, so that nobody knows
            any more what was written and read.
    """

    def __init__(self, on_fault: Callable[[BaseException], None]) -> None:
        self.loop = Loop()
        self._on_fault = on_fault
        self._lock = threading.RLock()
        self._turns = threading.Condition(self._lock)
        self._driver: int | None = None
        """The thread that has the loop."""
        self._others = 0
        """How many wait for it."""
        self._todo: deque[Callable[[], object]] = deque()
        self.closed = False

    def run(self, function: Callable[[], object]) -> None:
        """Have ``function`` run in the loop: here and now, or else in the thread that has it, soon.

        What is to be run later is run later.

        Raises:
            LineClosed: the loop has ended.
        """
        self.wait(lambda: True, 0.0, first=function)

    def wait(
        self, over: Callable[[], object], timeout_s: float, *, first: Callable[[], object] | None = None
    ) -> bool:
        """Do I/O, or let another do it, until ``over`` or the timeout; say whether it is over.

        Args:
            over: Asked again and again, in any thread.
            timeout_s: How long to wait.
            first: To be run in the loop before.

        Raises:
            LineClosed: there is something to be run, and the loop has ended.
        """
        give_up = monotonic() + timeout_s
        mine = False
        try:
            with self._lock:
                if first is not None:
                    if self.closed:
                        raise LineClosed
                    self._todo.append(first)
                    if self._driver is not None:
                        self.loop.wake()
                elif over():
                    return True
                self._others += 1  # before it is asked: what comes to pass after that is told
                try:
                    while self._driver is not None:
                        if over():
                            return True
                        left_s = give_up - monotonic()
                        if left_s <= 0 or self.closed:
                            return False
                        self._turns.wait(left_s)
                finally:
                    self._others -= 1
                mine = True
                self._driver = threading.get_ident()
            with driving:
                return self._drive(over, give_up)
        finally:
            if mine:
                self._leave()

    def wake(self) -> None:
        """Have those who wait look again whether it is over; a signal's handler may do so too."""
        with self._lock:
            self._turns.notify_all()
            if self._driver is not None:
                self.loop.wake()

    def beat(self, turns: int = 2) -> None:
        """Do what I/O there is, unless somebody is at it: turn the loop until it finds nothing, or so often.

        Of a connection that broke, the last data may come first, and its end in the second turn.
        """
        with self._lock:
            if self._driver is not None or self.closed:
                return
            self._driver = threading.get_ident()
        left = turns

        def over() -> bool:
            nonlocal left
            left -= 1
            return left < 0 or (left < turns - 1 and self.loop.was_idle)

        try:
            with driving:
                self._drive(over, 0.0)
        finally:
            self._leave()

    def close(self) -> None:
        """End it: whoever waits is told, and what is to be run from now on isn't."""
        with self._lock:
            self.closed = True
            self.wake()
            self._turns.wait_for(lambda: self._driver is None, _CLOSE_S)
            if self._driver is None:
                self.loop.close()

    def _drive(self, over: Callable[[], object], give_up: float) -> bool:
        """Serve the loop, as the one that has it, until ``over``."""
        loop, todo = self.loop, self._todo
        while True:
            try:
                while todo:
                    todo.popleft()()
                if over():
                    return True
                if self.closed or 0.0 < give_up <= monotonic():
                    return False
                if self._others:
                    self._tell_others()
                loop.turn(give_up)
            except BaseException as error:
                self._on_fault(error)
                if not isinstance(error, Exception):
                    raise
                sleep(_FAULT_S)

    def _leave(self) -> None:
        """Give up the loop."""
        with self._lock:
            self._driver = None
            if self.closed:
                self.loop.close()
            if self._others or self.closed:
                self._turns.notify_all()

    def _tell_others(self) -> None:
        with self._lock:
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
                    io.beat(_BEAT_TURNS)
                except Exception:  # a fault of ours must not stop the other lines' heartbeats
                    self._logger.exception("a connection to RabbitMQ couldn't be served")


class Line:
    """One connection with one channel, made when it is first needed and again after it broke.

    Subclasses add what the channel is for. Methods whose names begin with ``on_`` run in the loop.
    """

    def __init__(self, heart: Heart, servers: Sequence[ConnectionParameters]) -> None:
        self._heart = heart
        self._servers = servers
        self.io = Io(self._on_fault)
        heart.serve(self.io)
        self._attempt: Any = None
        """What is under way to make a connection."""
        self._untried: deque[ConnectionParameters] = deque()
        """The servers to try after that."""
        self._connection: Connection | None = None
        self._channel: Channel | None = None
        self._opening = False
        self._closed: Pending | None = None
        """Set once it is closed; over once the connection is."""
        self._backlog: list[tuple[Act, Pending]] = []
        self._asked: set[Pending] = set()
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
        """Whether it is, as far as is known here."""
        return self._channel is not None

    @property
    def has_unread(self) -> bool:
        """Whether the loop has something to find out, such as the end of the connection."""
        connection = self._connection
        return connection is not None and (connection.has_unread or self.io.loop.has_calls)

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
        answer = Pending()
        if self._is_answered(act, answer, timeout_s):
            return answer.result()
        if self.io.closed:
            raise LineClosed
        self.abandon()
        raise no_answer(timeout_s)

    def _is_answered(self, act: Act, answer: Pending, timeout_s: float) -> bool:
        """Have ``act`` speak to the server, and say whether ``answer`` came in time."""
        try:
            return self.io.wait(lambda: answer.is_over, timeout_s, first=lambda: self._begin(act, answer))
        finally:
            answer.is_given_up = True

    def abandon(self) -> None:
        """Drop the connection without a word."""
        with suppress(LineClosed):
            self.io.run(self._drop)

    def close(self) -> None:
        """Close the connection, politely where the server answers in time; again is a no-op."""
        closed = Pending()
        with suppress(LineClosed):
            if not self.io.wait(lambda: closed.is_over, _CLOSE_S, first=lambda: self._close(closed)):
                self.abandon()
                self.io.wait(lambda: closed.is_over, _CLOSE_S)
        self._heart.leave(self.io)
        self.io.close()

    # -- for subclasses, in the loop ------------------------------------------------------------------

    def on_channel(self, channel: Channel, ready: Answer) -> None:
        """Set up a new channel, and call ``ready``."""
        ready(None)

    def on_broken(self, error: BaseException) -> None:
        """The channel is gone, with all that depended on it."""

    def on_blocked_changed(self) -> None:
        """The server began or ceased to refuse messages."""

    def _flush(self) -> None:
        """Write now what pika would write in the next turn of the loop, as the other side waits for it."""
        if self._connection is not None:
            self._connection.flush()

    # -- opening --------------------------------------------------------------------------------------

    def _begin(self, act: Act, answer: Pending) -> None:
        if self._closed is not None:
            answer.fail(LineClosed())
        elif self._channel is not None:
            self._act(self._channel, act, answer)
        else:
            self._backlog.append((act, answer))
            self._open()

    def _act(self, channel: Channel, act: Act, answer: Pending) -> None:
        if answer.is_given_up:
            return
        self._asked.add(answer)

        def finish(value: Any) -> None:
            self._asked.discard(answer)
            answer.set(value)

        try:
            act(channel, finish)
            self._flush()
        except Exception as error:  # a channel that is closing, mostly
            self._asked.discard(answer)
            answer.fail(LineBroken(error))

    def _open(self) -> None:
        if self._opening:
            return
        self._opening = True
        if self._connection is not None:
            self._open_channel(self._connection)
            return
        self._untried = deque(self._servers)
        self._try_next()

    def _try_next(self) -> None:
        # One at a time: of several, pika tries no more once the name of one isn't known.
        self._attempt = Connection.create_connection(
            [self._untried.popleft()], on_done=self._connected, custom_ioloop=self.io.loop
        )

    def _connected(self, outcome: Any) -> None:
        self._attempt = None
        if isinstance(outcome, BaseException):
            if self._untried and self._closed is None:
                self._try_next()
                return
            self._opening = False
            self._fail_backlog(Unreachable(_root(outcome)))
            self._gone()
            return
        connection: Connection = outcome
        self._connection = connection
        connection.add_on_close_callback(self._connection_closed)
        connection.add_on_connection_blocked_callback(
            lambda _connection, frame: self._set_blocked(frame.method.reason or "a resource alarm")
        )
        connection.add_on_connection_unblocked_callback(lambda _connection, _frame: self._set_blocked(None))
        about = connection.server_properties or {}
        self.frame_max = connection.params.frame_max
        self.server = f"{_text(about.get('product', 'it'))} {_text(about.get('version', ''))}".strip()
        unfit = _too_old(about)
        if unfit is not None:
            self._opening = False
            self._fail_backlog(Unfit(unfit))
        if unfit is not None or self._closed is not None:
            connection.close()
        else:
            self._open_channel(connection)

    def _open_channel(self, connection: Connection) -> None:
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

    # -- breaking -------------------------------------------------------------------------------------

    def _channel_closed(self, channel: Channel, reason: Exception) -> None:
        if self._channel not in (None, channel):
            return
        self._channel = None
        self._opening = False
        if self._connection is not None:
            self._connection.forget_consumers()
        self.on_broken(reason)
        broken = LineBroken(reason)
        asked, self._asked = self._asked, set()
        for answer in asked:
            answer.fail(broken)
        self._fail_backlog(broken)

    def _connection_closed(self, connection: Connection, reason: Exception) -> None:
        if connection is not self._connection:
            return
        self._connection = None
        if self._opening:
            self._opening = False
            self._fail_backlog(LineBroken(reason))
        self._set_blocked(None)
        self._gone()

    def _fail_backlog(self, error: Exception) -> None:
        backlog, self._backlog = self._backlog, []
        for _, answer in backlog:
            answer.fail(error)

    def _set_blocked(self, reason: str | None) -> None:
        if reason != self.blocked:
            self.blocked = reason
            self.last_blocked = reason or self.last_blocked
            self.on_blocked_changed()

    def _drop(self) -> None:
        if self._connection is not None:
            self._connection.drop()

    def _on_fault(self, error: BaseException) -> None:
        if isinstance(error, Exception):
            _LOGGER.error("a connection to RabbitMQ is given up after a fault", exc_info=error)
        self._drop()

    def _close(self, closed: Pending) -> None:
        first, self._closed = self._closed is None, closed
        self._fail_backlog(LineClosed())
        if self._attempt is not None:
            abort(self._attempt)
        elif self._connection is None:
            self._gone()
        elif first and self._connection.is_open:
            self._connection.close()

    def _gone(self) -> None:
        if self._closed is not None:
            self._closed.set(None)


class RequestLine(Line):
    """A connection that gives each request a channel of its own.

    The broker refuses a request by closing its channel. On a shared one that would fail the requests of other
    threads, with an error that isn't theirs.
    """

    def _act(self, channel: Channel, act: Act, answer: Pending) -> None:
        if answer.is_given_up:
            return
        self._asked.add(answer)

        def opened(own: Channel) -> None:
            own.add_on_close_callback(lambda _own, reason: self._end(answer, LineBroken(reason)))
            try:
                act(own, lambda value: finish(own, value))
                self._flush()
            except Exception as error:  # a channel that is closing, mostly
                self._end(answer, LineBroken(error))

        def finish(own: Channel, value: Any) -> None:
            answer.set(value)
            own.close()

        try:
            channel.connection.channel(on_open_callback=opened)
            self._flush()
        except Exception as error:  # a connection that is closing, mostly
            self._end(answer, LineBroken(error))

    def _end(self, answer: Pending, error: LineBroken) -> None:
        """Forget a request; fail it unless it was answered."""
        self._asked.discard(answer)
        answer.fail(error)


def no_answer(timeout_s: float) -> LineBroken:
    """What breaks a line that is silent for so long."""
    return LineBroken(TimeoutError(f"no answer within {timeout_s:g} s"))


def _root(error: BaseException) -> BaseException:
    """What went wrong while connecting, out of pika's wrappings."""
    while inner := getattr(error, "exception", None) or (getattr(error, "exceptions", None) or [None])[-1]:
        error = inner
    return error


def _text(said: object) -> str:
    return said.decode("utf-8", "replace") if isinstance(said, bytes) else str(said)


def _too_old(properties: Mapping[str, Any]) -> Exception | None:
    """Why a server can't be used, from what it says of itself; what doesn't say is believed."""
    version = _text(properties.get("version", ""))
    number = re.match(r"(\d+)\.(\d+)", version)
    if number is None or (int(number[1]), int(number[2])) >= _OLDEST:
        return None
    product = _text(properties.get("product", "it"))
    return RuntimeError(f"{product} {version} answers, and {_OLDEST[0]}.{_OLDEST[1]} or newer is needed")
