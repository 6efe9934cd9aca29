"""How late this machine is: what must happen within some time proves nothing while it stands still."""

import threading
import time
from typing import Self

_PAUSE_S = 0.01
_END_S = 60.0


class Lateness:
    """Measures for how long a thread of this process, which wants to wake often, doesn't get to run."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        """The longest so far, in seconds."""
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._measure, name="contract-lateness", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join(_END_S)

    def _measure(self) -> None:
        before_s = time.monotonic()
        is_done = False
        while not is_done:
            is_done = self._done.wait(_PAUSE_S)
            now_s = time.monotonic()
            self.worst_s = max(self.worst_s, now_s - before_s - _PAUSE_S)
            before_s = now_s
