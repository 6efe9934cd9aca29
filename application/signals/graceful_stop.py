"""Graceful stop on SIGINT and SIGTERM, and what tells a stop from an error of the code that a job runs."""

import signal
import socket
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from types import CodeType, FrameType, TracebackType

from .handlers import SignalHandlers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)
_END = 0
"""No signal: the watcher is to end."""


class SecondSignal(KeyboardInterrupt):
    """A second SIGINT or SIGTERM came: stop at once."""


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on the first SIGINT or SIGTERM, and raise :class:`SecondSignal` on the second.

    Only the main thread can do so; elsewhere, and for a signal that the program handles itself, nothing
    changes.

    Args:
        stop: Must wait for nothing: a signal handler calls it, or the thread that passes signals on.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    unhandled = [number for number in _SIGNALS if signal.getsignal(number) in _DEFAULTS]
    if not in_main_thread or not unhandled:
        yield
        return
    watcher = _Watcher(unhandled, stop)
    try:
        watcher.start()
        yield
    finally:
        watcher.end()


class _Watcher:
    """Handles signals, and calls ``stop`` as soon as the first has come.

    Python runs a handler in the main thread, once that executes code: where the signal comes just before
    the thread begins to wait for a lock, that is after the wait. But the signal's number is written to a
    descriptor at once, and the watcher reads it there.
    """

    def __init__(self, numbers: Sequence[int], stop: Callable[[], None]) -> None:
        self._numbers = frozenset(numbers)
        self._stop = stop
        self._asked = self._is_told = False
        self._receiver, self._sender = socket.socketpair()
        self._sender.setblocking(False)  # as Python demands of what it writes to
        handlers = dict.fromkeys(numbers, self._on_signal)
        self._handlers = SignalHandlers(handlers, wakeup_fd=self._sender.fileno())
        self._thread = threading.Thread(target=self._watch, name="mindtrace-jobs-signals", daemon=True)

    def start(self) -> None:
        """Handle the signals, until :meth:`end`."""
        self._handlers.install()
        self._thread.start()

    def end(self) -> None:
        """Leave the signals to what handled them before."""
        self._handlers.restore()
        if self._thread.is_alive():  # not in a process that was forked: what that sends, its parent receives
            self._sender.send(bytes([_END]))
            self._thread.join()
        self._receiver.close()
        self._sender.close()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self._asked:
            raise SecondSignal
        self._asked = True
        self._tell()  # too, as an event loop of the program may have taken the descriptor

    def _watch(self) -> None:
        came = b""
        while _END not in came:
            came = self._receiver.recv(4096)
            self._handlers.pass_on(came)
            if not self._numbers.isdisjoint(came):
                self._tell()

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._stop()


def asks_to_stop(error: BaseException) -> bool:
    """Whether a signal's handler raised ``error``: ours, or the program's own for SIGINT or SIGTERM.

    Python runs those in the main thread, in the midst of whatever runs there. An error that code of a job
    raises by itself asks for nothing, KeyboardInterrupt and SystemExit included.
    """
    if isinstance(error, SecondSignal):
        return True
    if threading.current_thread() is not threading.main_thread():
        return False
    handlers = {_code(signal.getsignal(number)) for number in _SIGNALS} - {None}
    return bool(handlers) and any(code in handlers for code in _codes(error.__traceback__))


def _code(handler: object) -> CodeType | None:
    """Return the code of a function or method, such as handles a signal."""
    while isinstance(handler, partial):
        handler = handler.func
    if callable(handler) and not hasattr(handler, "__code__"):
        handler = type(handler).__call__
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _codes(traceback: TracebackType | None) -> Iterator[CodeType]:
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next
