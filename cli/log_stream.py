"""Log lines on standard error, which stop no worker if nobody reads them."""

import os
import select
import stat
import sys
from time import monotonic
from typing import TextIO

_PATIENCE_S = 1.0
"""For how long a line waits for room. Those after it wait for none, until there is some."""
_PIPE_BUF = 4096
"""As many bytes a pipe that has room takes at once."""


class LogStream:
    """Writes lines to a descriptor, and drops those for which it has no room for a second.

    A pipe that nobody reads is full after 64 KiB. A thread that wrote to it would wait for ever, also in the
    midst of stopping. How many lines were dropped is said in the next that is written.

    Args:
        descriptor: Where to write.
    """

    def __init__(self, descriptor: int) -> None:
        self._descriptor = descriptor
        self._own, self._identity = _reopened(descriptor)
        self._dropped = 0
        self._is_cut = False
        """Whether only the beginning of the last line was written."""

    def write(self, text: str) -> None:
        """Write a line, or drop it."""
        line = text.encode("utf-8", "backslashreplace")
        if self._dropped:
            told = f"{self._dropped} log lines were dropped: nobody read them\n".encode()
            line = (b"\n" if self._is_cut else b"") + told + line
        written = self._write(line, 0.0 if self._dropped else _PATIENCE_S)
        if written == len(line):
            self._dropped, self._is_cut = 0, False
        else:
            self._dropped += 1
            self._is_cut = self._is_cut if written == 0 else True

    def flush(self) -> None:
        """Do nothing: each line is written at once."""

    def _write(self, line: bytes, patience_s: float) -> int:
        """Write as much of ``line`` as there is room for, and return how many bytes that is."""
        give_up_s = monotonic() + patience_s
        written = 0
        descriptor = self._own_descriptor()
        while written < len(line):
            if not _has_room(descriptor, max(0.0, give_up_s - monotonic())):
                break
            try:
                written += os.write(descriptor, line[written : written + _PIPE_BUF])
            except BlockingIOError:  # another process was faster
                continue
            except OSError:  # the reader is gone, or the disk is full
                break
        return written

    def _own_descriptor(self) -> int:
        """Return ours, unless a handler has closed it: its number may be that of another file by now."""
        if self._own != self._descriptor and _identity(self._own) != self._identity:
            self._own = self._descriptor
        return self._own


def log_stream() -> LogStream | TextIO:
    """Return standard error as a stream for a log handler."""
    try:
        return LogStream(sys.stderr.fileno())
    except (OSError, ValueError, AttributeError):  # it is no file, or there is none
        return sys.stderr


def _reopened(descriptor: int) -> tuple[int, tuple[int, int]]:
    """Open a pipe or terminal once more, so that writes don't wait, and return what it is.

    The descriptor itself is shared with other processes, for which it must stay as it is. Where it can't be
    opened, a write may wait if another process fills the pipe just before it.
    """
    identity = _identity(descriptor)
    mode = os.fstat(descriptor).st_mode
    if stat.S_ISFIFO(mode) or stat.S_ISCHR(mode):  # a file has a position, which must stay shared
        try:
            own = os.open(
                f"/proc/self/fd/{descriptor}", os.O_WRONLY | os.O_NONBLOCK | os.O_NOCTTY | os.O_CLOEXEC
            )
        except OSError:
            return descriptor, identity
        return own, identity
    return descriptor, identity


def _identity(descriptor: int) -> tuple[int, int]:
    try:
        found = os.fstat(descriptor)
    except OSError:
        return (0, 0)
    return (found.st_dev, found.st_ino)


def _has_room(descriptor: int, timeout_s: float) -> bool:
    poll = select.poll()
    poll.register(descriptor, select.POLLOUT)
    return bool(poll.poll(timeout_s * 1000))
