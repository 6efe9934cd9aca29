"""Signal handlers of ours, and how a forked process gets rid of them."""

import os
import signal
import threading
from collections.abc import Callable, Mapping
from contextlib import suppress
from types import FrameType
from typing import Any

Handler = Callable[[int, FrameType | None], None]


class SignalHandlers:
    """Handles signals between :meth:`install` and :meth:`restore`.

    Afterwards they do what they did before; at once in a process that is forked, as ``multiprocessing`` does.

    Args:
        handlers: A handler for each signal.
        wakeup_fd: Where Python is to write the number of each signal that comes, if anywhere.
    """

    def __init__(self, handlers: Mapping[int, Handler], *, wakeup_fd: int | None = None) -> None:
        self.handlers = handlers
        self._wakeup_fd = wakeup_fd
        self._previous: dict[int, Any] = {}
        self._previous_wakeup = -1

    def install(self) -> None:
        """Handle the signals from here on. Only the main thread can do so."""
        _active.append(self)  # first, so that `restore` can undo an installation that was interrupted
        if self._wakeup_fd is not None:
            self._previous_wakeup = signal.set_wakeup_fd(self._wakeup_fd, warn_on_full_buffer=False)
        for number, handler in self.handlers.items():
            self._previous[number] = signal.signal(number, handler)

    def restore(self) -> None:
        """Restore what handled the signals before."""
        if self not in _active:  # restored already, in a process that was forked
            return
        _active.remove(self)
        for number, handler in self._previous.items():
            signal.signal(number, handler)
        if self._wakeup_fd is not None:
            signal.set_wakeup_fd(self._previous_wakeup)

    def pass_on(self, numbers: bytes) -> None:
        """Write the numbers of signals to where Python wrote them before, if anywhere."""
        if self._previous_wakeup >= 0:
            with suppress(OSError):  # full, or a socket on Windows
                os.write(self._previous_wakeup, numbers)


_active: list[SignalHandlers] = []
_forking = threading.local()


def _before_fork() -> None:
    """Hold signals back: Python drops those that come before a new process is set up."""
    numbers = {number for each in _active for number in each.handlers}
    _forking.mask = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)


def _after_fork() -> None:
    signal.pthread_sigmask(signal.SIG_SETMASK, _forking.mask)


def _after_fork_in_child() -> None:
    for each in reversed(_active.copy()):
        each.restore()
    _after_fork()


if hasattr(os, "register_at_fork"):  # else no process can be forked
    os.register_at_fork(before=_before_fork, after_in_parent=_after_fork, after_in_child=_after_fork_in_child)
