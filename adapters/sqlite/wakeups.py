"""Wake-ups between processes: a waiter learns at once that something changed, without asking all the time.

A wake-up is a FIFO in a folder beside the file, made by the first process that waits for it. To wake the
others, a process writes a byte. Nobody reads it: each waiter has an epoll of its own, which reports each
write once (EPOLLET). So a process that is killed takes no wake-up from another, and leaves nothing behind. A
wake-up is lost if a process is killed between its commit and its write; so nobody waits long without looking.
"""

import os
import select
import stat
import threading
import time
from collections.abc import Callable
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from ...ports import EndedJobs
from .filesystem import mode_of

SUFFIX = "-wakeups"
"""The folder's name is that of the file and this."""
READY = "ready"
"""Sent when a queue that had no ready job has one, and when a job is due earlier than all before."""
ENDED = "ended"
"""Sent when jobs have ended."""

LOOK_S = 0.25
"""The longest time that anyone waits without looking."""
_POLL_S = (0.001, 0.03)
"""Without FIFOs: the first pause between two looks, and the longest, to which it grows."""


def wake(folder: Path, queue: int, what: str) -> None:
    """Wake all who wait for an event, such as :data:`READY`, of a queue."""
    try:
        fifo = _open(_path(folder, queue, what))
    except OSError:  # nobody has waited yet
        return
    try:
        # Emptied first, so that it never is too full, and each byte is news.
        with suppress(BlockingIOError):
            os.read(fifo, 65536)
        with suppress(BlockingIOError):
            os.write(fifo, b"!")
    finally:
        os.close(fifo)


def remove_wakeups(folder: Path, queue: int) -> None:
    """Remove the FIFOs of a deleted queue; wake those who wait for them before."""
    for what in (READY, ENDED):
        with suppress(OSError):
            _path(folder, queue, what).unlink()


def _path(folder: Path, queue: int, what: str) -> Path:
    return folder / f"{queue}-{what}"


def make_fifo(path: Path) -> None:
    """Make a FIFO and its folder for the users who may use the file, whatever the umask.

    Raises:
        OSError: the folder is none or a link, or the file system has no FIFOs.
    """
    folder = path.parent
    mode = mode_of(Path(str(folder).removesuffix(SUFFIX)))
    with suppress(FileExistsError):
        folder.mkdir(0o700)
        _grant(folder, mode | (mode & 0o444) >> 2)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise NotADirectoryError(f"{folder} is no folder")
    with suppress(FileExistsError):
        os.mkfifo(path, 0o600)
        _grant(path, mode)


def _grant(path: Path, mode: int) -> None:
    """Set the mode of what was made just now, unless a link has taken its place.

    Raises:
        OSError: it can't be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _open(path: Path) -> int:
    """Open a FIFO, and nothing else: neither the target of a link nor a file put in its place.

    Raises:
        OSError: it isn't there, or no FIFO.
    """
    descriptor = os.open(path, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{path} is no FIFO")
    return descriptor


class Waiter(Protocol):
    """One thread's waiting; the other methods may be called from any thread."""

    def wait(self, seconds: float) -> None:
        """Wait for a wake-up, for :meth:`wake`, or for up to ``seconds``; may end early."""

    def wake(self) -> None:
        """End the present wait, or else the next."""

    def close(self) -> None:
        """Close its descriptors, once no wait is under way."""


def make_waiter(folder: Path, queue: int, what: str) -> Waiter:
    """Make a waiter for an event of ``queue``; where there can be no FIFO, one that waits briefly."""
    if hasattr(select, "epoll"):
        with suppress(OSError):
            return FifoWaiter(folder, queue, what)
    return PollingWaiter()


class FifoWaiter:
    """Waits for writes to a FIFO.

    Raises:
        OSError: the file system has no FIFOs, or no descriptors are left.
    """

    def __init__(self, folder: Path, queue: int, what: str) -> None:
        path = _path(folder, queue, what)
        make_fifo(path)
        self._waiting = threading.Lock()
        self._open = threading.Lock()
        self._closed = False
        self._descriptors: list[int] = []
        try:
            self._descriptors.append(_open(path))
            self._woken = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._descriptors.append(self._woken)
            self._epoll = select.epoll(sizehint=2)
            self._epoll.register(self._descriptors[0], select.EPOLLIN | select.EPOLLET)
            self._epoll.register(self._woken, select.EPOLLIN)
        except OSError:
            for descriptor in self._descriptors:
                os.close(descriptor)
            raise

    def wait(self, seconds: float) -> None:
        with self._waiting:
            if self._closed:
                return
            if self._woken in dict(self._epoll.poll(max(0.0, seconds))):
                os.eventfd_read(self._woken)

    def wake(self) -> None:
        with self._open:
            if not self._closed:
                os.eventfd_write(self._woken, 1)

    def close(self) -> None:
        self.wake()
        with self._waiting, self._open:
            if self._closed:
                return
            self._closed = True
            self._epoll.close()
            for descriptor in self._descriptors:
                os.close(descriptor)


class PollingWaiter:
    """Waits briefly, each time a little longer: it sees soon what comes soon, and costs little while idle."""

    def __init__(self) -> None:
        self._woken = threading.Event()
        self._pause_s, self._longest_s = _POLL_S
        self._ended_s = 0.0

    def wait(self, seconds: float) -> None:
        if time.monotonic() - self._ended_s > self._longest_s:  # there was work to do meanwhile
            self._pause_s = _POLL_S[0]
        self._woken.wait(max(0.0, min(seconds, self._pause_s)))
        self._woken.clear()
        self._pause_s = min(self._longest_s, self._pause_s * 1.5)
        self._ended_s = time.monotonic()

    def wake(self) -> None:
        self._woken.set()

    def close(self) -> None:
        self.wake()


class SQLiteEndedJobs(EndedJobs):
    """Woken when jobs have ended; it isn't told which.

    Args:
        waiter: Waits for the wake-up.
        on_close: Called with the waiter when it isn't needed any more.
        look_s: The longest time, in seconds, of one wait.
    """

    def __init__(self, waiter: Waiter, on_close: Callable[[Waiter], None], look_s: float) -> None:
        super().__init__()
        self._waiter = waiter
        self._on_close = on_close
        self._look_s = look_s

    def wait(self, timeout_s: float) -> None:
        self._waiter.wait(min(timeout_s, self._look_s))

    def close(self) -> None:
        self._on_close(self._waiter)
