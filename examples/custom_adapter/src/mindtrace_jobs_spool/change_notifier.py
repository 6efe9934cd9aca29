"""Notify the threads of this process that something changed."""

import threading


class ChangeNotifier:
    """Wakes the threads that wait. It hears nothing of other processes, so a receiver also polls."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._changes = 0

    @property
    def changes(self) -> int:
        """How many changes there were. Read it, look for work, and then wait for more changes than that."""
        return self._changes

    def notify(self) -> None:
        """Count a change, and wake all waiting threads."""
        with self._changed:
            self._changes += 1
            self._changed.notify_all()

    def wait(self, changes: int, timeout_s: float) -> None:
        """Wait until there were more than ``changes`` changes, or ``timeout_s`` has passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._changes != changes, timeout_s)
