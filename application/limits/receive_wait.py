"""The wait of the thread in ``receive``, and how other threads end it."""

from contextlib import suppress

from ...domain.errors import JobsError
from ...ports import ConsumerBackend, Delivery
from ...ports.signal_safe_event import SignalSafeEvent


class ReceiveWait:
    """Waits for jobs of the broker, or for a limit to let one start.

    Args:
        backend: Where the jobs come from.
    """

    def __init__(self, backend: ConsumerBackend) -> None:
        self._backend = backend
        self._wake = SignalSafeEvent()
        self._is_interrupted = False
        self._is_receiving = False
        """Whether it waits for the broker."""
        self.wanted = 0
        """For how many jobs a thread is in ``receive``: then there is room for a job."""

    def begin(self) -> bool:
        """Have whatever happens from here on end the next wait; return whether ``receive`` is to end now."""
        self._wake.clear()
        was_interrupted, self._is_interrupted = self._is_interrupted, False
        return was_interrupted

    def wait(self, room: int, seconds: float) -> list[Delivery]:
        """Wait for up to ``room`` jobs, or only for the end of this wait if there is no room."""
        if not room:
            self._wake.wait(seconds)
            return []
        self._is_receiving = True
        try:
            return self._backend.receive(room, 0.0 if self._wake.is_set() else seconds)
        finally:
            self._is_receiving = False

    def end(self) -> None:
        """End the wait, as something has changed; any thread calls this."""
        self._wake.set()
        if self._is_receiving:
            with suppress(JobsError):  # closed, or the broker is away: then nothing waits there
                self._backend.interrupt()

    def look_again(self) -> None:
        """Have the thread that calls this not wait next, as it has changed something itself."""
        self._wake.set()

    def interrupt(self) -> None:
        """End the wait, and the ``receive`` too."""
        self._is_interrupted = True
        self._wake.set()
        self._backend.interrupt()
