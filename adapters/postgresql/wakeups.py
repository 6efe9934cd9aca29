"""Wake-ups: one connection a client that listens, however many of its consumers and callers wait."""

import logging
import os
import selectors
import socket
import threading
from collections.abc import Callable
from time import monotonic

from .connection import Connection, Statement, make_selector
from .errors import ConnectFailed, ConnectionBroke, RefusedByServer
from .schema import quoted

READY, ENDED = "r", "e"
"""What is told: jobs of a queue are ready for others, or have ended."""
_SLICE_S = 30.0
_FIRST_PAUSE_S, _LONGEST_PAUSE_S = 0.05, 2.0
ALL = "*"
"""What a waiter is told that may have missed something."""
_MOST = 1000
"""How many wake-ups a waiter keeps before it forgets which jobs they named."""


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

    Args:
        connect: Opens a connection.
        channel: The name to listen to, which is the schema's.
        logger: Logs at level DEBUG that listening isn't possible now: a look now and then stands in for it.
    """

    def __init__(self, connect: Callable[[], Connection], channel: str, logger: logging.Logger) -> None:
        self._connect = connect
        self._listen = Statement(f"LISTEN {quoted(channel)}", 0)
        self._logger = logger
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._waiters: dict[tuple[int, str], list[Waiter]] = {}
        self._thread: threading.Thread | None = None
        self._closed = threading.Event()
        self._pipe: tuple[socket.socket, socket.socket] | None = None
        self._is_listening = False

    def open_waiter(self, queue: int, what: str) -> Waiter:
        """Return what waits for :data:`READY` or :data:`ENDED`; told once it misses nothing any more."""
        if os.getpid() != self._pid:  # what a parent process opened stays with it
            self._begin()
        key = (queue, what)
        waiter = Waiter(lambda waiter: self._remove(key, waiter))
        with self._lock:
            self._waiters[key] = [*self._waiters.get(key, ()), waiter]
            if self._is_listening:
                waiter.tell(ALL)
            if self._thread is None and not self._closed.is_set():
                self._pipe = socket.socketpair()
                self._thread = threading.Thread(
                    target=self._run, args=(self._pipe[0],), name="mindtrace-jobs-wakeups", daemon=True
                )
                self._thread.start()
        return waiter

    def _remove(self, key: tuple[int, str], waiter: Waiter) -> None:
        with self._lock:
            left = [each for each in self._waiters.get(key, ()) if each is not waiter]
            if left:
                self._waiters[key] = left
            else:
                self._waiters.pop(key, None)

    def close(self) -> None:
        """End the thread, and all waits."""
        if os.getpid() != self._pid:
            self._begin()
        self._closed.set()
        with self._lock:
            thread, pipe = self._thread, self._pipe
            self._thread = self._pipe = None
        if pipe is not None:
            pipe[1].send(b"x")
        if thread is not None:
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
        for what in (READY, ENDED):
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
                connection = self._connect()
            except ConnectFailed as error:
                self._logger.debug("can't listen now: %s", error)
            else:
                try:
                    connection.execute(self._listen, (), 5.0)
                    self._is_listening = True
                    self._tell_all()  # what came before, nobody was told
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
        while not self._closed.is_set():
            for payload in connection.notifications():
                self._tell(payload.decode(errors="replace"))
            selector.select(_SLICE_S)
