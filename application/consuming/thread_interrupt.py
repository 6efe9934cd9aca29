"""Raising an error in another thread, as Python allows it: when that thread next runs Python code."""

import ctypes
import logging
import sys
import threading
from contextlib import suppress
from time import sleep
from typing import Any

from ...domain.errors import JobTimedOut
from ..process.thread_start import start_thread

_set_error = ctypes.pythonapi.PyThreadState_SetAsyncExc
_RLOCK = type(threading.RLock())
_STARTS = (threading.Thread.start.__code__, start_thread.__code__)


def starts_another(thread_id: int) -> bool:
    """Whether a thread is about to start another one.

    On Python 3.11 the new thread has the id of its creator for a moment. It could get the error in place of
    that, and die of it. Its creator would wait for ever until it runs.
    """
    frame = sys._current_frames().get(thread_id)
    while frame is not None:
        if frame.f_code in _STARTS:
            return True
        frame = frame.f_back
    return False


def raise_timed_out(thread_id: int) -> None:
    """Have :class:`JobTimedOut` raised in a thread, unless that has ended."""
    _set_error(ctypes.c_ulong(thread_id), ctypes.py_object(JobTimedOut))


class _TakenBack(BaseException):
    """Replaces an error that isn't to be raised any more."""


def take_back() -> None:
    """Have nothing raised in this thread, where that hasn't happened yet.

    The error is replaced by one that is caught here. To set none would do that as well. But CPython 3.11 then
    looks for an error at each later call, and the first call under a profiler or a debugger never ends.
    """
    with suppress(_TakenBack):
        _set_error(ctypes.c_ulong(threading.get_ident()), ctypes.py_object(_TakenBack))
        sleep(0)  # it is raised when a call returns, so here at the latest


def release_log_locks() -> None:
    """Release the locks of the logging that this thread was interrupted in taking or releasing.

    Before Python 3.13 they are taken by a call, and an error may come between that and the ``try``. Every
    thread that logs would wait for it.
    """
    handlers = [reference() for reference in list(logging._handlerList)]  # type: ignore[attr-defined]
    locks = [logging._lock, *(handler.lock for handler in handlers if handler is not None)]  # type: ignore[attr-defined]
    for lock in locks:
        if isinstance(lock, _RLOCK):
            _release(lock)


def _release(lock: Any) -> None:
    while lock._is_owned():
        lock.release()
