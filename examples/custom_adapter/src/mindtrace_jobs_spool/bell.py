"""How one thread of this process tells the others that something changed."""

import threading


class Bell:
    """Wakes whoever waits. What other processes do rings no bell: a receiver also looks by itself."""

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._rings = 0

    @property
    def rings(self) -> int:
        """How often it has rung: read it, look for work, and then wait for more rings than that."""
        return self._rings

    def ring(self) -> None:
        """Wake all who wait."""
        with self._changed:
            self._rings += 1
            self._changed.notify_all()

    def wait(self, rings: int, timeout_s: float) -> None:
        """Wait until it has rung more than ``rings`` times, or ``timeout_s`` has passed."""
        with self._changed:
            self._changed.wait_for(lambda: self._rings != rings, timeout_s)
