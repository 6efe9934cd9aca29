"""A request to stop, from any thread and from a signal handler."""

import threading
from collections.abc import Callable
from contextlib import suppress

from ...domain.errors import JobsError


class StopRequest:
    """Asks a loop to stop.

    A signal handler interrupts the main thread anywhere, even while that holds a lock which this needs. So
    :meth:`set` first sets a plain flag. In the main thread it leaves the rest to another thread.

    Args:
        interrupt: Ends the wait of the loop for jobs.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self._is_set = False
        self._event = threading.Event()
        self._threads: list[threading.Thread] = []

    def is_set(self) -> bool:
        """Whether the loop is to stop."""
        return self._is_set

    def set(self) -> None:
        """Ask the loop to stop."""
        self._is_set = True
        if threading.current_thread() is not threading.main_thread():
            self._wake()
            return
        thread = threading.Thread(target=self._try_to_wake, name="mindtrace-jobs-stop", daemon=True)
        self._threads.append(thread)
        thread.start()

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the request, for up to ``seconds``; return whether it came."""
        return self._event.wait(seconds)

    def clear(self) -> None:
        """Withdraw the request, once every thread that it started has ended."""
        while self._threads:
            self._threads.pop().join()
        self._event.clear()
        self._is_set = False

    def _try_to_wake(self) -> None:
        with suppress(JobsError):  # closed: nothing waits any more
            self._wake()

    def _wake(self) -> None:
        self._event.set()
        self._interrupt()
