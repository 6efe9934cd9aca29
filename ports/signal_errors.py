"""What tells an error that a signal handler has raised from one of the code that it interrupted."""

import signal
import threading
from collections.abc import Iterable, Iterator
from functools import partial
from types import CodeType, TracebackType


def raised_by_handler(error: BaseException, numbers: Iterable[int] | None = None) -> bool:
    """Whether the handler of a signal raised ``error``.

    Python runs it in the main thread, in the midst of whatever runs there. So an ``except Exception`` around
    work of ours catches what is meant for the program.

    Args:
        error: What was raised.
        numbers: Of which signals; None for all.
    """
    if threading.current_thread() is not threading.main_thread():
        return False
    asked = signal.valid_signals() if numbers is None else numbers
    handlers = {_code(signal.getsignal(number)) for number in asked} - {None}
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
