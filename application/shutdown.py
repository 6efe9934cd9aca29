"""Graceful stop on SIGINT and SIGTERM, and what tells a stop from an error of the code that a job runs."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import CodeType, FrameType, TracebackType

from .signals import SignalHandlers

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class SecondSignal(KeyboardInterrupt):
    """A second SIGINT or SIGTERM came: stop at once."""


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on the first SIGINT or SIGTERM, and raise :class:`SecondSignal` on the second.

    Only the main thread can do so; elsewhere, and for a signal that the program handles itself, nothing
    changes.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    asked = False

    def on_signal(number: int, frame: FrameType | None) -> None:
        nonlocal asked
        if asked:
            raise SecondSignal
        asked = True
        # A handler interrupts the main thread anywhere, even while it holds a lock that `stop` needs.
        threading.Thread(target=stop, name="mindtrace-jobs-stop", daemon=True).start()

    unhandled = [number for number in _SIGNALS if signal.getsignal(number) in _DEFAULTS]
    with SignalHandlers(dict.fromkeys(unhandled, on_signal)):
        yield


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
    code = getattr(handler, "__code__", None)
    return code if isinstance(code, CodeType) else None


def _codes(traceback: TracebackType | None) -> Iterator[CodeType]:
    while traceback is not None:
        yield traceback.tb_frame.f_code
        traceback = traceback.tb_next
