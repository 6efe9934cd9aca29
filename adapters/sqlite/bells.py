"""How one process tells the others that something changed, without anyone asking all the time.

A bell is a FIFO in a folder beside the file, made by the first who waits for it. To ring it is to write a
byte. Nobody reads it: each who waits has an epoll of its own that reports each write once (EPOLLET), so a
process that is killed takes no ring from another and leaves nothing behind. A ring may still be lost, with a
process that is killed between its commit and its ring; hence nobody waits for long without looking.
"""

import os
import select
import stat
import threading
import time
from contextlib import suppress
from pathlib import Path
from typing import Protocol

from .filesystem import mode_of

SUFFIX = "-bells"
"""What the folder of a file's bells is called, after the file."""
READY = "ready"
"""Rung when a queue that had no ready job has one, and when one is due earlier than was known."""
ENDED = "ended"
"""Rung when jobs have ended."""

LOOK_S = 0.25
"""The longest that anyone waits without looking."""
_POLL_S = (0.001, 0.03)
"""Where there are no bells: the first pause between two looks, and the longest, which it grows to."""


def ring(folder: Path, queue: int, what: str) -> None:
    """Wake all who wait for this of a queue."""
    try:
        bell = _open(_bell(folder, queue, what))
    except OSError:  # nobody has waited yet
        return
    try:
        # Emptied first, so that it never is too full, and each byte is news.
        with suppress(BlockingIOError):
            os.read(bell, 65536)
        with suppress(BlockingIOError):
            os.write(bell, b"!")
    finally:
        os.close(bell)


def remove_bells(folder: Path, queue: int) -> None:
    """Remove what a queue that is gone had; who waits for it is to be woken before."""
    for what in (READY, ENDED):
        with suppress(OSError):
            _bell(folder, queue, what).unlink()


def _bell(folder: Path, queue: int, what: str) -> Path:
    return folder / f"{queue}-{what}"


def _make(bell: Path) -> None:
    """Make a bell and its folder for those who may use the file, whose jobs these are, whatever the umask.

    Raises:
        OSError: the folder is none or a link, or the file system has no FIFOs.
    """
    folder = bell.parent
    mode = mode_of(Path(str(folder).removesuffix(SUFFIX)))
    with suppress(FileExistsError):
        folder.mkdir(0o700)
        _grant(folder, mode | (mode & 0o444) >> 2)
    if not stat.S_ISDIR(folder.lstat().st_mode):
        raise NotADirectoryError(f"{folder} is no folder")
    with suppress(FileExistsError):
        os.mkfifo(bell, 0o600)
        _grant(bell, mode)


def _grant(path: Path, mode: int) -> None:
    """Set the mode of what was just made, unless a link has taken its place.

    Raises:
        OSError: it can't be opened.
    """
    descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)


def _open(bell: Path) -> int:
    """Open a bell, and nothing else: not what a link leads to, nor a file that somebody put in its place.

    Raises:
        OSError: it isn't there, or no FIFO.
    """
    descriptor = os.open(bell, os.O_RDWR | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(descriptor).st_mode):
        os.close(descriptor)
        raise OSError(f"{bell} is no FIFO")
    return descriptor


class Waiter(Protocol):
    """One thread's waiting; the other methods may be called from any thread."""

    def wait(self, seconds: float) -> None:
        """Wait until the bell rings, :meth:`wake` is called, or ``seconds`` have passed, or for less."""

    def wake(self) -> None:
        """End the present wait, or else the next."""

    def close(self) -> None:
        """Give back what it holds, once no wait is under way."""


def make_waiter(folder: Path, queue: int, what: str) -> Waiter:
    """Wait for a bell of ``queue`` or, where there can be none, for a moment at a time."""
    if hasattr(select, "epoll"):
        with suppress(OSError):
            return BellWaiter(folder, queue, what)
    return PollingWaiter()


class BellWaiter:
    """Waits for a bell.

    Raises:
        OSError: the file system has no FIFOs, or no descriptors are left.
    """

    def __init__(self, folder: Path, queue: int, what: str) -> None:
        bell = _bell(folder, queue, what)
        _make(bell)
        self._waiting = threading.Lock()
        self._open = threading.Lock()
        self._closed = False
        self._descriptors: list[int] = []
        try:
            self._descriptors.append(_open(bell))
            self._alarm = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
            self._descriptors.append(self._alarm)
            self._epoll = select.epoll(sizehint=2)
            self._epoll.register(self._descriptors[0], select.EPOLLIN | select.EPOLLET)
            self._epoll.register(self._alarm, select.EPOLLIN)
        except OSError:
            for descriptor in self._descriptors:
                os.close(descriptor)
            raise

    def wait(self, seconds: float) -> None:
        with self._waiting:
            if self._closed:
                return
            for descriptor, _ in self._epoll.poll(max(0.0, seconds)):
                if descriptor == self._alarm:
                    os.eventfd_read(self._alarm)

    def wake(self) -> None:
        with self._open:
            if not self._closed:
                os.eventfd_write(self._alarm, 1)

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
    """Waits a moment, each time a little longer: what comes soon is seen soon, and idling costs little."""

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
