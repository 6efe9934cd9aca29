"""How many processes a worker runs, by how long jobs wait."""

import json
import threading
from collections.abc import Callable, Iterable
from logging import Logger
from pathlib import Path

from ...domain.errors import JobsError
from .waiting_time import WaitingTimes

LOOK_S = 5.0
"""Seconds between two looks at the queues."""
LONG_S = 5.0
"""A job that has waited for so many seconds is one for which there are too few processes."""
SHORT_S = 1.0
"""If the next job has waited for less, there may be too many."""
CALM_LOOKS = 12
"""After so many such looks in a row one process ends. Each takes its time to start, so they end late."""


class ProcessCount:
    """How many processes there are to be: one more when jobs wait for long, one fewer when none does.

    Args:
        least: How many there are at least.
        most: How many there are at most.
    """

    def __init__(self, least: int, most: int) -> None:
        self.now = least
        """How many there are to be now."""
        self._least = least
        self._most = most
        self._calm_looks = 0

    def note(self, waiting_s: float) -> None:
        """Decide anew, with for how long a job has waited at this look."""
        self._calm_looks = self._calm_looks + 1 if waiting_s < SHORT_S else 0
        if waiting_s >= LONG_S:
            self.now = min(self.now + 1, self._most)
        elif self._calm_looks >= CALM_LOOKS:
            self._calm_looks = 0
            self.now = max(self.now - 1, self._least)


class WaitingFile:
    """Where one process writes what it saw of the queues, and its supervisor reads it."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self._last = ""

    def write(self, number: int, waiting_s: float) -> None:
        """Write what a look saw; the numbers tell one look from the next."""
        new = self.path.with_suffix(".new")
        new.write_text(json.dumps([number, waiting_s]), "utf-8")
        new.replace(self.path)

    def read(self) -> float | None:
        """Return for how long a job has waited; None if there was no look since the last call."""
        try:
            text = self.path.read_text("utf-8")
        except FileNotFoundError:
            return None
        if text == self._last:
            return None
        self._last = text
        waiting_s: float = json.loads(text)[1]
        return waiting_s


def report_waiting(
    file: WaitingFile, times: WaitingTimes, queues: Callable[[], Iterable[str]], logger: Logger
) -> None:
    """Write again and again for how long jobs wait, until the process ends.

    Args:
        file: Where to.
        times: Tells it of a queue.
        queues: Returns the names of the queues; none until the consumers are connected.
        logger: Where it tells that the queues can't be seen.
    """
    number, pause = 0, threading.Event()
    while not pause.wait(LOOK_S):
        number += 1
        try:
            waiting = [times.of(queue) for queue in queues()]
        except JobsError as error:
            logger.warning("the number of processes stays as it is: %s", error)
            continue
        if waiting:
            file.write(number, max(each or 0.0 for each in waiting))
