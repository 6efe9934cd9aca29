"""The one thread of a process that looks whether handlers have run for too long."""

import threading
from heapq import heapify, heappop, heappush
from itertools import count
from time import monotonic
from typing import Protocol

from ...ports.signal_safe_event import SignalSafeEvent
from ..process.forks import start_anew_in_children
from ..process.thread_start import start_thread

_MANY_ENDED = 64
"""How many runs may have ended before they are looked for among those that go on."""


class Limited(Protocol):
    """What may run for so long, and then is to end."""

    @property
    def has_ended(self) -> bool:
        """Whether it needs to be looked at no more."""

    def expire(self) -> float | None:
        """Do what is due; return in how many seconds there is more to do, or None. It raises nothing."""


_Entry = tuple[float, int, Limited]
"""When a run is over, a number that no other has, and the run."""


class Deadlines:
    """Calls what is due, on a thread that is started with the first."""

    def __init__(self) -> None:
        self.start_anew()
        start_anew_in_children(self)

    def start_anew(self) -> None:
        """Forget all, as a forked child does: neither the handlers nor the thread are there."""
        self._lock = threading.Lock()
        self._changed = SignalSafeEvent()
        self._heap: list[_Entry] = []
        self._numbers = count()
        self._ended = 0
        """How many runs have ended since those that ended were last dropped."""
        self._thread: threading.Thread | None = None

    def add(self, run: Limited, after_s: float) -> None:
        """Have ``run`` expire in so many seconds, unless it ends before.

        Raises:
            RuntimeError: no thread can be started.
        """
        with self._lock:
            heappush(self._heap, (monotonic() + after_s, next(self._numbers), run))
            if self._thread is None:
                thread = threading.Thread(target=self._watch, name="mindtrace-jobs-deadlines", daemon=True)
                start_thread(thread)
                self._thread = thread
            elif self._heap[0][2] is run:
                self._changed.set()

    def note_end(self) -> None:
        """Note that a run has ended. It is dropped later, together with others."""
        with self._lock:
            self._ended += 1
            if self._ended >= max(_MANY_ENDED, len(self._heap) // 2):
                self._heap = _those_that_go_on(self._heap)
                self._ended = 0

    def _watch(self) -> None:
        while True:
            run = self._next_due()
            again_s = run.expire()
            if again_s is not None:
                self.add(run, again_s)

    def _next_due(self) -> Limited:
        while True:
            self._changed.clear()  # first: what is added from here on ends the wait below
            with self._lock:
                heap = self._heap
                _drop_ended_at_head(heap)
                wait_s = heap[0][0] - monotonic() if heap else None
                if wait_s is not None and wait_s <= 0:
                    return heappop(heap)[2]
            self._changed.wait(wait_s)


def _drop_ended_at_head(heap: list[_Entry]) -> None:
    """Drop the runs that have ended before the first that goes on."""
    while heap and heap[0][2].has_ended:
        heappop(heap)


def _those_that_go_on(heap: list[_Entry]) -> list[_Entry]:
    """Return a heap without the runs that have ended."""
    left = [entry for entry in heap if not entry[2].has_ended]
    heapify(left)
    return left


deadlines = Deadlines()
