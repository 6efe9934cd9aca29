"""Graceful stop on SIGINT and SIGTERM."""

import signal
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import FrameType

_SIGNALS = (signal.SIGINT, signal.SIGTERM)
_DEFAULTS = (signal.SIG_DFL, signal.default_int_handler)


@contextmanager
def stopping_on_signals(stop: Callable[[], None]) -> Iterator[None]:
    """Call ``stop`` on the first SIGINT or SIGTERM, and raise KeyboardInterrupt on the second.

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
            raise KeyboardInterrupt
        asked = True
        # A handler interrupts the main thread anywhere, even while it holds a lock that `stop` needs.
        threading.Thread(target=stop, name="mindtrace-jobs-stop", daemon=True).start()

    previous = {number: signal.getsignal(number) for number in _SIGNALS}
    replaced = [number for number in _SIGNALS if previous[number] in _DEFAULTS]
    for number in replaced:
        signal.signal(number, on_signal)
    try:
        yield
    finally:
        for number in replaced:
            signal.signal(number, previous[number])
