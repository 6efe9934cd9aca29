"""Reports to other processes: which of them is next in line for a place of a limit (CRD-7).

Each store that is told has a FIFO in the folder of the wake-ups, and reads lines from it: the number of a
watch, and the key of a place. A line is written in one piece. What a killed process leaves behind is removed
by the next store that makes such a FIFO.
"""

import errno
import os
import stat
import threading
from collections.abc import Callable, Iterable
from contextlib import suppress
from pathlib import Path
from time import time

from ...ports import PlaceWatch
from ..shared.place_watches import PlaceWatches
from .wakeups import make_fifo

_NAME = "{}-places"
_MOST_BYTES = 65_536
"""As much as a FIFO holds: one that was that full has lost reports."""
_NEARLY = 60_000
_YOUNG_S = 60.0
"""A FIFO of which nobody reads stays so long, as it may be about to be opened."""


def report(folder: Path, watches: Iterable[tuple[str, str]]) -> None:
    """Tell watches that one of their holders is next for a place, by their names, each with the key."""
    for name, key in watches:
        token, _, number = name.partition("-")
        with suppress(OSError):  # it has ended, or so many reports lie there that it asks for all
            fifo = _open_to_write(folder / _NAME.format(token))
            try:
                os.write(fifo, f"{number} {key}\n".encode())
            finally:
                os.close(fifo)


def _open_to_write(path: Path) -> int:
    """Open a FIFO of which somebody reads.

    Raises:
        OSError: nobody does, or it is none.
    """
    fifo = os.open(path, os.O_WRONLY | os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOFOLLOW)
    if not stat.S_ISFIFO(os.fstat(fifo).st_mode):
        os.close(fifo)
        raise OSError(f"{path} is no FIFO")
    return fifo


class PlaceReports:
    """Reads the reports for the watches of one store, on a thread that the first of them starts.

    Args:
        folder: Where the FIFOs of wake-ups are.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._lock = threading.Lock()
        self._begin()

    def _begin(self) -> None:
        self._pid = os.getpid()
        self._watches = PlaceWatches()
        self._path: Path | None = None

    def watch(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        """Tell of places from now on.

        Raises:
            OSError: the file system has no FIFOs, or no descriptors are left.
        """
        with self._lock:
            if self._pid != os.getpid():  # what a parent process opened stays with it
                self._begin()
            thread = self._new_thread() if self._path is None else None
            watch = self._watches.add(tell)
        if thread is not None:
            thread.start()  # without the lock: a signal handler that runs meanwhile may need it
        return watch

    def _new_thread(self) -> threading.Thread:
        """Make the FIFO, and return the thread that is to read it, which is yet to be started."""
        path = self._folder / _NAME.format(self._watches.token)
        make_fifo(path)
        self._remove_abandoned()
        fifo = os.open(path, os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW)
        self._path = path
        return threading.Thread(target=self._read, args=(fifo,), name="mindtrace-jobs-places", daemon=True)

    def _remove_abandoned(self) -> None:
        for path in self._folder.glob(_NAME.format("*")):
            with suppress(OSError):
                is_young = time() - path.stat().st_mtime < _YOUNG_S
                try:
                    os.close(_open_to_write(path))
                except OSError as error:
                    if error.errno == errno.ENXIO and not is_young:
                        path.unlink()

    def _read(self, fifo: int) -> None:
        try:
            self._tell_what_comes(fifo)
        finally:
            os.close(fifo)

    def _tell_what_comes(self, fifo: int) -> None:
        """Tell each watch of its reports, until :meth:`close` writes an empty line."""
        while b"\n\n" not in b"\n" + (lines := os.read(fifo, _MOST_BYTES)):
            for line in lines.splitlines():
                number, _, key = line.decode(errors="replace").partition(" ")
                self._watches.tell(number, key)
            if len(lines) > _NEARLY:
                self._watches.tell_of_missed()

    def close(self) -> None:
        """Remove the FIFO, and end the thread."""
        with self._lock:
            path, self._path = self._path, None
            if path is None or self._pid != os.getpid():
                return
            self._watches.clear()
            with suppress(OSError):
                fifo = _open_to_write(path)
                try:
                    os.write(fifo, b"\n")
                finally:
                    os.close(fifo)
            with suppress(OSError):
                path.unlink()
