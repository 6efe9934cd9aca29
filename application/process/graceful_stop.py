"""Graceful stop on SIGINT and SIGTERM, and what tells a stop from an error of the code that a job runs."""

import signal
import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from types import FrameType

from ...ports.signal_errors import raised_by_handler
from .handlers import SignalHandlers
from .watcher import signal_watcher

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


class SecondSignal(KeyboardInterrupt):
    """A second SIGINT or SIGTERM came: stop at once."""


@contextmanager
def stopping_on_signals(stop: Callable[[], None], *, raises: bool = False) -> Iterator[None]:
    """Call ``stop`` on the first SIGINT or SIGTERM, and raise :class:`SecondSignal` on the second.

    Only the main thread can do so; elsewhere, and for a signal that the program handles itself, nothing
    changes.

    Args:
        stop: Must wait for nothing: a signal handler calls it, or the thread that passes signals on.
        raises: Whether to raise at the end what the signal stands for, since the caller would otherwise take
            the work for complete: KeyboardInterrupt for SIGINT, and ``SystemExit(143)`` for SIGTERM.
    """
    in_main_thread = threading.current_thread() is threading.main_thread()
    unhandled = [number for number in _SIGNALS if signal.getsignal(number) in _DEFAULTS]
    if not in_main_thread or not unhandled:
        yield
        return
    signals = _StopSignals(unhandled, stop)
    try:
        signals.install()
        yield
    finally:
        signals.restore()
    if raises and signals.first is not None:
        raise KeyboardInterrupt if signals.first == signal.SIGINT else SystemExit(128 + signals.first)


class _StopSignals:
    """Handles signals, and calls ``stop`` as soon as the first has come."""

    def __init__(self, numbers: Sequence[int], stop: Callable[[], None]) -> None:
        self._numbers = numbers
        self._stop = stop
        self.first: int | None = None
        """The signal that came first, once Python has called its handler."""
        self._is_told = False
        self._handlers: SignalHandlers | None = None

    def install(self) -> None:
        """Handle the signals, until :meth:`restore`; a handler of the program may raise meanwhile."""
        wakeup_fd = signal_watcher.begin(self._came)
        self._handlers = SignalHandlers(dict.fromkeys(self._numbers, self._on_signal), wakeup_fd=wakeup_fd)
        self._handlers.install()

    def restore(self) -> None:
        """Leave the signals to what handled them before."""
        if self._handlers is not None:
            self._handlers.restore()
        signal_watcher.end()

    def _on_signal(self, number: int, frame: FrameType | None) -> None:
        if self.first is not None:
            raise SecondSignal
        self.first = number
        self._tell()  # too, as an event loop of the program may have taken the descriptor

    def _came(self, numbers: bytes) -> None:
        if self._handlers is not None:
            self._handlers.pass_on(numbers)
        if not set(self._numbers).isdisjoint(numbers):
            self._tell()

    def _tell(self) -> None:
        if not self._is_told:
            self._is_told = True
            self._stop()


def raised_by_signal(error: BaseException) -> bool:
    """Whether a signal's handler raised ``error``, of whatever signal; see :func:`asks_to_stop`."""
    return isinstance(error, SecondSignal) or raised_by_handler(error)


def asks_to_stop(error: BaseException) -> bool:
    """Whether a signal's handler raised ``error``: ours, or the program's own for SIGINT or SIGTERM.

    Python runs those in the main thread, in the midst of whatever runs there. An error that code of a job
    raises by itself asks for nothing, KeyboardInterrupt and SystemExit included.
    """
    return isinstance(error, SecondSignal) or raised_by_handler(error, _SIGNALS)
