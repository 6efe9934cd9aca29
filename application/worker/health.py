"""Health as a date: when every consumer had last fetched or polled.

A file carries it as its time of modification, so that any tool can compare it with the clock. A handler that
hangs stops its consumer's polls, and so makes the date old.
"""

import os
import threading
import time
from collections.abc import Iterable
from pathlib import Path

from ...ports import Observer


class LastPolls(Observer):
    """Remembers when each consumer of this process has polled last.

    Args:
        consumers: How many there are, each on a thread of its own.
    """

    def __init__(self, consumers: int = 1) -> None:
        self.consumers = consumers
        """How many there are."""
        self._beats: dict[int, float] = {}

    def polled(self, queue: str, received: int) -> None:
        """Note it for this thread."""
        self._beats[threading.get_ident()] = time.time()

    def oldest_s(self) -> float | None:
        """When the consumer that polled longest ago did, in seconds since 1970; None before all have."""
        beats = list(self._beats.values())
        return min(beats) if len(beats) >= self.consumers else None


class HealthFile:
    """A file whose date says when all was well last.

    Raises:
        OSError: it can't be written.
    """

    def __init__(self, path: Path) -> None:
        self.path = path

    def write(self, moment_s: float) -> None:
        """Say that all was well at ``moment_s``, in seconds since 1970."""
        try:
            os.utime(self.path, (moment_s, moment_s))
        except FileNotFoundError:  # only then: for a moment the file says that all is well now
            self.path.touch()
            os.utime(self.path, (moment_s, moment_s))

    def read(self) -> float | None:
        """When all was well, in seconds since 1970; None where that was never said."""
        try:
            return self.path.stat().st_mtime
        except FileNotFoundError:
            return None

    def remove(self) -> None:
        """Say nothing any more."""
        self.path.unlink(missing_ok=True)


def oldest(files: Iterable[HealthFile]) -> float | None:
    """When all were well last; None where one never was."""
    moments = [file.read() for file in files]
    known = [moment for moment in moments if moment is not None]
    return min(known) if known and len(known) == len(moments) else None
