"""How late threads of this machine run, for tests of what must happen within some time."""

import threading
import time


class Lateness:
    """Measures for how long a thread of this machine, which wants to wake often, doesn't get to run."""

    def __init__(self) -> None:
        self.worst_s = 0.0
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._measure)

    def __enter__(self) -> "Lateness":
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._done.set()
        self._thread.join()

    def _measure(self) -> None:
        pause_s = 0.01
        before_s = time.monotonic()
        is_done = False
        while not is_done:
            is_done = self._done.wait(pause_s)
            now_s = time.monotonic()
            self.worst_s = max(self.worst_s, now_s - before_s - pause_s)
            before_s = now_s
