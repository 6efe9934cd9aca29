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
            while self._waiting:
                self._waiting.pop().release()

    def clear(self) -> None:
        """Have waits wait again."""
        self._is_set = False

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
