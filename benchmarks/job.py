"""The jobs that every library runs, and the record of when each began.

Workers import this in their own environments, so it needs the standard library only.
"""

import asyncio
import mmap
import os
import time
from itertools import count
from pathlib import Path

KINDS = ("no_op", "wait", "spin")
X, Y = 1.5, 2.5
WAIT_S = 0.001
SPINS = 20_000
"""A sum that takes a processor about a millisecond."""
CAPACITY = 1 << 22
"""How many beginnings of each kind a record holds. The file is sparse: what isn't used takes no room."""


class Record:
    """When jobs began, by a clock that all processes of a machine share, in a file that they share."""

    def __init__(self, path: Path) -> None:
        if not path.exists():
            with path.open("wb") as file:
                file.truncate(len(KINDS) * CAPACITY * 8)
        with path.open("r+b") as file:
            self._moments = memoryview(mmap.mmap(file.fileno(), 0)).cast("d")
        self._next = [count(number * CAPACITY).__next__ for number in range(len(KINDS))]

    def note(self, kind: int) -> None:
        """Note that a job begins, in the one process that runs jobs."""
        self._moments[self._next[kind]()] = time.perf_counter()

    def moment(self, kind: str, number: int) -> float:
        """When a job of a kind began, the first being 1; 0 where it hasn't."""
        return self._moments[KINDS.index(kind) * CAPACITY + number - 1]

    def moments(self, kind: str, number: int, *, after: int = 0) -> list[float]:
        """When the first so many jobs of a kind began, without those before ``after``."""
        first = KINDS.index(kind) * CAPACITY
        return sorted(self._moments[first + after : first + number])


_record = Record(Path(os.environ["BENCH_RECORD"])) if "BENCH_RECORD" in os.environ else None


def no_op(x: float, y: float) -> None:
    _record.note(0)


def wait(x: float, y: float) -> None:
    _record.note(1)
    time.sleep(WAIT_S)


async def wait_in_a_loop(x: float, y: float) -> None:
    _record.note(1)
    await asyncio.sleep(WAIT_S)


def spin(x: float, y: float) -> None:
    _record.note(2)
    total = 0
    for number in range(SPINS):
        total += number * number
