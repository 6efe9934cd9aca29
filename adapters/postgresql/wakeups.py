"""Wake-ups: each client has one connection that listens, for all its consumers and callers that wait."""

import logging
import os
import secrets
import selectors
import socket
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from time import monotonic
from typing import Protocol

from ...ports import PlaceWatch
from .connection import Connection, Statement, make_selector
from .errors import ConnectFailed, ConnectionBroke, RefusedByServer
from .schema import quoted
from .session import Session

READY, ENDED, PLACE = "r", "e", "p"
"""What a notification is about: ready jobs of a queue, ended jobs of a queue, or a watch that is next for a
place."""
_SLICE_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
ALL = "*"
"""A waiter is told this if it may have missed a notification."""
_MOST = 1000
"""The most wake-ups that a waiter keeps. Beyond it, the waiter forgets which jobs they named."""


class Listener(Protocol):
    """Is told of wake-ups."""

    def tell(self, what: str) -> None:
        """Pass on what a wake-up named, or :data:`ALL`."""
        ...


class PlaceListener:
    """Is told when a holder of a watch is next in line for a place of a limit (CRD-7).

    Args:
        tell: Told the key of the place; None if notifications may have been missed.
    """

    def __init__(self, tell: Callable[[str | None], None]) -> None:
        self._tell = tell

    def tell(self, what: str) -> None:
        """Pass on what a notification named: a ticket and a key."""
        self._tell(None if what == ALL else what.partition(" ")[2])


class Waiter:
    """Waits for wake-ups about one queue.

    Args:
        on_close: Called when it isn't needed any more.
    """

    def __init__(self, on_close: Callable[["Waiter"], None]) -> None:
        self._on_close = on_close
        self._condition = threading.Condition()
        self._told: list[str] = []

    def wait(self, timeout_s: float) -> list[str]:
        """Wait up to ``timeout_s`` seconds, and return what was told since the last call."""
        with self._condition:
            if not self._told:
                self._condition.wait(timeout_s)
            told, self._told = self._told, []
            return told

    def tell(self, what: str) -> None:
        """End the wait."""
        with self._condition:
            self._told.append(what)
            if len(self._told) > _MOST:
                self._told = [ALL]
            self._condition.notify_all()

    def close(self) -> None:
        """Wait no more."""
        self._on_close(self)


class Wakeups:
    """Listens on a thread of its own, from the first that waits until it is closed.

    It listens anew whenever the session reaches its server again: nothing is sent where it listens, so that
    nothing there tells that this server was demoted.

    Args:
        session: The way to the server.
        channel: The name to listen to, which is the schema's.
        logger: Logs at level DEBUG that listening isn't possible now. Waiters then look by themselves at
        times.
    """

    def __init__(self, session: Session, channel: str, logger: logging.Logger) -> None:
        self._connect = session.connect
        session.on_reached = self.renew
        self._listen = Statement(f"LISTEN {quoted(channel)}", 0)
        self._logger = logger
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiters: dict[tuple[int, str], list[Listener]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        self._is_listening = False

    def open_waiter(self, queue: int, what: str) -> Waiter:
        """Return a waiter for :data:`READY` or :data:`ENDED`; it is told as soon as it can miss nothing."""
        key = (queue, what)
        waiter = Waiter(lambda waiter: self._remove(key, waiter))
        if self._add(key, waiter):
            waiter.tell(ALL)
        return waiter

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        """Tell of places from now on, on the thread that listens."""
        number, listener = secrets.randbits(60), PlaceListener(tell)
        key = (number, PLACE)
        self._add(key, listener)
        return PlaceWatch(str(number), lambda: self._remove(key, listener))

    def _add(self, key: tuple[int, str], listener: Listener) -> bool:
        """Add a listener, and return whether it hears of every wake-up from now on."""
        if os.getpid() != self._pid:  # a parent process keeps what it opened
            self._begin()
        with self._lock:
            self._waiters[key] = [*self._waiters.get(key, ()), listener]
            thread = self._new_thread()
            is_listening = self._is_listening
        if thread is not None:
            thread.start()  # without the lock: a signal handler that runs meanwhile may need it
        return is_listening

    def _new_thread(self) -> threading.Thread | None:
        """Return a thread that is yet to be started; None if there is one, or this is closed."""
        if self._thread is not None or self._closed.is_set():
            return None
        self._pipe = socket.socketpair()
        for end in self._pipe:
            end.setblocking(False)
        self._thread = threading.Thread(
            target=self._run, args=(self._pipe[0],), name="mindtrace-jobs-wakeups", daemon=True
        )
        return self._thread

    def _remove(self, key: tuple[int, str], listener: Listener) -> None:
        with self._lock:
            self._waiters[key] = _all_but(listener, self._waiters.get(key, ()))
            if not self._waiters[key]:
                del self._waiters[key]

    def renew(self) -> None:
        """Listen over a new connection, soon; waits for nothing."""
        pipe = self._pipe
        if pipe is not None and os.getpid() == self._pid:
            with suppress(OSError):  # it is full of such calls, or closed
                pipe[1].send(b"x")

    def close(self) -> None:
        """End the thread, and all waits."""
        if os.getpid() != self._pid:
            self._begin()
        self._closed.set()
        with self._lock:
            thread, pipe = self._thread, self._pipe
            self._thread = self._pipe = None
        if pipe is not None:
            with suppress(BlockingIOError):  # then it is woken anyway
                pipe[1].send(b"x")
        if thread is not None and thread.ident is not None:  # else it ends as soon as it is started
            thread.join()
        if pipe is not None:
            pipe[0].close()
            pipe[1].close()
        self._tell_all()

    def _tell_all(self) -> None:
        with self._lock:
            waiters = [waiter for each in self._waiters.values() for waiter in each]
        for waiter in waiters:
            waiter.tell(ALL)

    def _tell(self, payload: str) -> None:
        for what in (READY, ENDED, PLACE):
            queue, found, told = payload.partition(what)
            if found and queue.isdecimal():
                for waiter in self._waiters.get((int(queue), what), ()):
                    waiter.tell(told or ALL)
                return

    def _run(self, pipe: socket.socket) -> None:
        pause_s = _FIRST_PAUSE_S
        while not self._closed.is_set():
            began = monotonic()
            try:
                _drain(pipe)  # what was asked for by now
                connection = self._connect()
            except ConnectFailed as error:
                self._logger.debug("can't listen now: %s", error)
            else:
                try:
                    connection.execute(self._listen, (), 5.0)
                    self._is_listening = True
                    self._tell_all()  # nobody heard of what was notified before
                    self._read(connection, pipe)
                except (ConnectionBroke, RefusedByServer) as error:
                    self._logger.debug("listening ended: %s", error)
                finally:
                    self._is_listening = False
                    connection.close()
            pause_s = (
                _FIRST_PAUSE_S
                if monotonic() - began > _LONGEST_PAUSE_S
                else min(2 * pause_s, _LONGEST_PAUSE_S)
            )
            self._closed.wait(pause_s)

    def _read(self, connection: Connection, pipe: socket.socket) -> None:
        selector = make_selector()
        selector.register(pipe, selectors.EVENT_READ)
        selector.register(connection.socket, selectors.EVENT_READ)
        is_asked = False
        while not (is_asked or self._closed.is_set()):
            for payload in connection.notifications():
                self._tell(payload.decode(errors="replace"))
            is_asked = any(key.fileobj is pipe for key, _ in selector.select(_SLICE_S))


def _drain(pipe: socket.socket) -> None:
    with suppress(BlockingIOError):
        pipe.recv(4096)


def _all_but(listener: Listener, listeners: Iterable[Listener]) -> list[Listener]:
    return [each for each in listeners if each is not listener]
