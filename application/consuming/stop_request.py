"""A request to stop, from any thread and from a signal handler."""

import _thread
from collections.abc import Callable
from contextlib import suppress

from ...domain.errors import JobsError
from ...ports.signal_safe_event import SignalSafeEvent


class StopRequest:
    """Asks a loop to stop.

    A signal handler interrupts the main thread anywhere, even while that holds a lock which ``interrupt``
    needs, and a broker may take long to answer. So :meth:`set` sets a plain flag, and a thread does the rest.

    Args:
        interrupt: Ends the wait of the loop for jobs.
    """

    def __init__(self, interrupt: Callable[[], None]) -> None:
        self._interrupt = interrupt
        self.is_set = False
        """Whether the loop is to stop."""
        self._event = SignalSafeEvent()
        self._under_way: list[SignalSafeEvent] = []
        """One for each thread that was started to wake the loop; set once that is done."""

    def set(self) -> None:
        """Ask the loop to stop. This waits for nothing."""
        woken = SignalSafeEvent()
        try:
            self._under_way.append(woken)  # before the flag, which may make the loop end and call `clear`
            self.is_set = True
            # Not `Thread.start`: a signal that interrupts another `Thread.start` finds its lock taken.
            _thread.start_new_thread(self._wake, (woken,))
        except BaseException:  # no thread can be started any more, or a second signal came
            woken.set()
            raise

    def wait(self, seconds: float | None = None) -> bool:
        """Wait for the request, for up to ``seconds``; return whether it came."""
        return self._event.wait(seconds)

    def end_wait(self) -> None:
        """Make :meth:`wait` return, without a request: the consumer was closed, as its next call says."""
        self._event.set()

    def clear(self) -> None:
        """Withdraw the request, once every thread that it started has woken the loop."""
        try:
            self._wait_for_threads()
        finally:  # also if a second signal ends the wait
            self._event.clear()
            self.is_set = False

    def _wait_for_threads(self) -> None:
        while self._under_way:
            self._under_way.pop().wait()

    def _wake(self, woken: SignalSafeEvent) -> None:
        try:
            self._event.set()
            with suppress(JobsError):  # closed, or the broker is away: then nothing waits for jobs
                self._interrupt()
        finally:
            woken.set()
