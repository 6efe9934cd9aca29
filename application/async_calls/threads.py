"""A bounded number of threads for calls that block."""

import _thread
import threading
from collections.abc import Callable
from itertools import count
from queue import SimpleQueue

from ..process.forks import start_anew_in_children


def start_without_waiting(function: Callable[[], None]) -> None:
    """Run a function in a new thread, without waiting until it runs, as ``Thread.start`` does."""
    _thread.start_new_thread(function, ())


class Threads:
    """Runs functions in up to ``limit`` threads, in the order in which they are submitted.

    One thread more than is busy waits ready, and it is a busy one that starts it.

    Args:
        limit: The most threads.
        name: How their names begin.
    """

    def __init__(self, limit: int, name: str) -> None:
        self._limit = limit
        self._name = name
        self.start_anew()
        start_anew_in_children(self)

    def start_anew(self) -> None:
        """Begin without threads: after a fork those that were there are the parent's."""
        self._lock = threading.Lock()
        self._work: SimpleQueue[Callable[[], None] | None] = SimpleQueue()
        self._numbers = count(1)
        self._threads = 0
        self._idle = 0
        self._is_stopping = False

    def submit(self, work: Callable[[], None]) -> None:
        """Run ``work``, which raises nothing, as soon as a thread is free.

        Raises:
            RuntimeError: there is no thread, and none can be started; ``work`` won't run.
        """
        with self._lock:  # else the last thread might end in between
            if not self._threads:
                start_without_waiting(self._start_first)
            self._work.put(work)

    def stop(self) -> None:
        """End the threads once all that was submitted is done. Calling it again does nothing."""
        if not self._is_stopping:
            self._is_stopping = True
            self._work.put(None)  # one at most, which they pass on to each other

    def _start_first(self) -> None:
        """Start a thread, or be one, if no more can be started."""
        if not self._start_one():
            with self._lock:
                self._threads += 1
                self._idle += 1
            self._run()

    def _start_one(self) -> bool:
        """Start a thread unless one is idle, or there are enough; return False if none can be started."""
        with self._lock:
            if self._idle or self._threads >= self._limit:
                return True
            self._threads += 1
            self._idle += 1
            name = f"{self._name}-{next(self._numbers)}"
        try:
            threading.Thread(target=self._run, name=name, daemon=True).start()
        except RuntimeError:  # the system has no more
            with self._lock:
                self._threads -= 1
                self._idle -= 1
            return False
        return True

    def _run(self) -> None:
        while True:
            work = self._work.get()
            if work is None:
                if self._may_end():
                    return
                continue
            with self._lock:
                self._idle -= 1
            self._start_one()
            work()
            del work  # or what it refers to would live until the next comes
            with self._lock:
                self._idle += 1

    def _may_end(self) -> bool:
        """Whether nothing is left to do; has the other threads ask, too."""
        with self._lock:
            is_over = self._work.empty()
            self._work.put(None)
            if is_over:
                self._threads -= 1
                self._idle -= 1
            return is_over
