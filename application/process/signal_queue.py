"""Signals as messages: they are waited for, and handled where nothing else is under way."""

import os
import signal
from collections.abc import Sequence
from contextlib import suppress
from typing import Self

from .handlers import SignalHandlers
from .readable import is_readable

WAKE = 0
"""No signal: something else has happened that is to be looked at."""
OVERDUE = 254
"""No signal: a handler goes on long after its time limit, and nothing but the end of the process ends it."""
REPLACE = 253
"""No signal: once the jobs that run have ended, another process takes the place of this one."""
BEGIN = 252
"""No signal: the process whose place this one takes has ended."""
STOP = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)
"""What stops a worker gracefully."""
AT_ONCE = signal.SIGQUIT
"""What stops a process of a worker at once. A second SIGTERM doesn't: systemd sends one to all processes, and
the supervisor passes its own on."""


class SignalQueue:
    """Collects signals, and what other threads post, for the main thread to wait for.

    Args:
        signals: Those to collect, in place of what they do otherwise, for as long as the context lasts.
    """

    def __init__(self, signals: Sequence[int] = (*STOP, AT_ONCE)) -> None:
        self._read, self._write = os.pipe()
        for descriptor in (self._read, self._write):
            os.set_blocking(descriptor, False)
        # Python itself writes the signal's number into the pipe; a handler only has to be there.
        self._handlers = SignalHandlers(dict.fromkeys(signals, _do_nothing), wakeup_fd=self._write)

    def __enter__(self) -> Self:
        self._handlers.install()
        return self

    def __exit__(self, *_: object) -> None:
        self._handlers.restore()
        read, write = self._read, self._write
        self._read = (
            self._write
        ) = -1  # a thread that posts late must not write into what gets the number next
        os.close(read)
        os.close(write)

    def post(self, number: int = WAKE) -> None:
        """Put a signal's number in, as if it had come; from any thread."""
        with suppress(OSError):  # full: the reader has enough to wake for; closed: it is gone
            os.write(self._write, bytes([number]))

    def wait(self, timeout_s: float) -> list[int]:
        """Return what came since, waiting up to ``timeout_s`` seconds for the first."""
        if not is_readable(self._read, max(0.0, timeout_s)) and not is_readable(self._read, 0.0):
            return []
        return list(os.read(self._read, 4096))


def _do_nothing(number: int, frame: object) -> None:
    """Leave it to the pipe."""
