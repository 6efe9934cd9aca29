"""The folder of one queue, and the operations on its files, each of them atomic.

``ready/``    jobs that can be delivered, by their place in the order of arrival
``delayed/``  jobs that aren't due yet, by when they are
``leased/``   jobs that are with a consumer, by when its lease ends
``dead/``     jobs that were given up, by when that was
``tmp/``      files that are being written
``lock``      what ``QueueFolder.locked`` locks; it holds the last place that was given out
"""

import os
import shutil
import time
from collections.abc import Callable, Generator, Iterator
from contextlib import contextmanager, suppress
from enum import StrEnum
from fcntl import LOCK_EX, flock
from pathlib import Path
from secrets import token_hex
from typing import Any

from mindtrace.jobs.domain.errors import BackendUnavailable, JobsError, QueueNotFound

from .file_name import FileName, parse_all, time_ns
from .job_file import JobFile, pack, pack_note, read

_LEFTOVER_S = 3600.0
"""Seconds after which a temporary file counts as left by a process that died."""


class State(StrEnum):
    """Where a job is: the folder that its file is in."""

    READY = "ready"
    DELAYED = "delayed"
    LEASED = "leased"
    DEAD = "dead"


class QueueFolder:
    """The folder of one queue, whether it exists or not."""

    def __init__(self, home: Path, queue: str) -> None:
        self.queue = queue
        self._home = home
        self._path = home / f"{queue}.queue"  # a queue may be named ".."

    # -- the folder as a whole --------------------------------------------------------------------

    def create(self) -> None:
        """Create the folder unless it is there: made aside, it appears whole, by one rename."""
        with self._translated_errors():
            self._home.mkdir(parents=True, exist_ok=True)
            if self._path.is_dir():
                self._remove_leftovers()
                return
            draft = self._aside()
            for name in ("tmp", *State):
                (draft / name).mkdir(parents=True)
            try:
                draft.rename(self._path)
            except OSError:
                shutil.rmtree(draft)
                if not self._path.is_dir():  # else another process was faster
                    raise
            _sync(self._home)

    def remove(self) -> None:
        """Remove the folder: with all that is in it at once, by a rename; then file by file."""
        with self._translated_errors():
            doomed = self._path.rename(self._aside())
            _sync(self._home)
        shutil.rmtree(doomed, ignore_errors=True)

    def _aside(self) -> Path:
        return self._home / f"~{token_hex(8)}"

    def _remove_leftovers(self) -> None:
        for leftover in [*self._home.glob("~*"), *(self._path / "tmp").iterdir()]:
            with suppress(FileNotFoundError):
                if leftover.stat().st_mtime < time.time() - _LEFTOVER_S:
                    shutil.rmtree(leftover) if leftover.is_dir() else leftover.unlink()

    @contextmanager
    def locked(self) -> Generator[Callable[[], int]]:
        """Hold the queue's lock, for a step of several renames; yield a function that takes the next place.

        There are two such steps: to read the last place and write the next, and to write a failure into a
        leased job's file before moving it, while nobody else may end its lease. The kernel releases the lock
        of a process that dies.
        """
        with self._translated_errors():
            lock = os.open(self._path / "lock", os.O_RDWR | os.O_CREAT, 0o666)
            try:
                flock(lock, LOCK_EX)  # on a file opened anew, so that threads exclude each other as well
                last = int(os.read(lock, 20) or 0)

                def next_place() -> int:
                    nonlocal last
                    last = max(last + 1, time_ns())  # in order even if the clock was set back
                    return last

                yield next_place
                os.pwrite(lock, b"%020d" % last, 0)
            finally:
                os.close(lock)

    def sync(self) -> None:
        """Make sure that what was moved survives the machine's death."""
        with self._translated_errors(), suppress(FileNotFoundError):  # else the queue was deleted meanwhile
            for state in State:
                _sync(self._path / state)

    # -- its files --------------------------------------------------------------------------------

    def names(self, state: State) -> Iterator[FileName]:
        """The jobs in ``state``, in order."""
        with self._translated_errors():
            return parse_all(sorted(file.name for file in os.scandir(self._path / state)))

    def write(self, body: bytes) -> str:
        """Write a new job's file aside, and to the disk; return its token."""
        token = token_hex(8)
        with self._translated_errors(), (self._path / "tmp" / token).open("xb") as file:
            file.write(pack(body))
            file.flush()
            os.fsync(file.fileno())
        return token

    def admit(self, name: FileName, state: State) -> None:
        """Let the file appear that was written under ``name.token``."""
        with self._translated_errors():
            (self._path / "tmp" / name.token).rename(self._file(name, state))

    # Each of these says whether the file was there. Of several that try at once, one succeeds.

    def move(self, name: FileName, source: State, to: FileName, target: State) -> bool:
        """Rename a job's file."""
        with self._translated_errors(), suppress(FileNotFoundError):
            self._file(name, source).rename(self._file(to, target))
            return True
        return False

    def drop(self, name: FileName, state: State) -> bool:
        """Remove a job's file."""
        with self._translated_errors(), suppress(FileNotFoundError):
            self._file(name, state).unlink()
            return True
        return False

    def note(self, name: FileName, **note: Any) -> bool:
        """Add a line to a leased job's file; the lock must be held."""
        with (
            self._translated_errors(),
            suppress(FileNotFoundError),
            self._file(name, State.LEASED).open("r+b") as file,
        ):
            file.seek(0, os.SEEK_END)
            file.write(pack_note(note))
            file.flush()
            os.fsync(file.fileno())
            return True
        return False

    def read(self, name: FileName, state: State) -> JobFile | None:
        """Read a job's file; None where it isn't there any more."""
        with self._translated_errors(), suppress(FileNotFoundError):
            return read(self._file(name, state))
        return None

    def _file(self, name: FileName, state: State) -> Path:
        return self._path / state / str(name)

    @contextmanager
    def _translated_errors(self) -> Generator[None]:
        """Raise the operating system's errors as those of the ports."""
        try:
            yield
        except JobsError:
            raise
        except FileNotFoundError:
            raise QueueNotFound(f"queue {self.queue!r}: not declared, or deleted") from None
        except OSError as error:
            raise BackendUnavailable(f"queue {self.queue!r}: {error.strerror}") from error


def _sync(folder: Path) -> None:
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
