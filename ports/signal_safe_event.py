"""An event that a signal handler may interrupt."""

import threading


class SignalSafeEvent:
    """A :class:`threading.Event` for the main thread, where a signal handler may raise at any moment.

    That one takes and leaves its lock in Python code. An exception between the two leaves it locked for good.
    Here each lock is taken and left by the interpreter itself, in one step.
    """

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._is_set = False
        self._waiting: list[threading.Lock] = []
        """One for each wait; released to end it."""

    def is_set(self) -> bool:
        """Whether it was set, and not cleared since."""
        return self._is_set

    def set(self) -> None:
        """Set it, and end all waits. Don't call this in a signal handler."""
        with self._lock:
            self._is_set = True
            self._end_waits()

    def _end_waits(self) -> None:
        for turn in self._waiting:  # which leaves the list itself: after an interrupt it is still found
            if turn.locked():
                turn.release()

    def clear(self) -> bool:
        """Have waits wait again; return whether it was set, be it only since the last wait returned."""
        with self._lock:
            was_set, self._is_set = self._is_set, False
        return was_set

    def wait(self, seconds: float | None = None) -> bool:
        """Wait until it is set, for up to ``seconds``; return whether it was."""
        turn = threading.Lock()
        turn.acquire()
        with self._lock:
            if self._is_set:
                return True
            self._waiting.append(turn)
        try:
            return turn.acquire(timeout=-1 if seconds is None else max(0.0, seconds))
        finally:
            with self._lock:
                if turn in self._waiting:
                    self._waiting.remove(turn)
