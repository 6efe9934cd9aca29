"""Run functions in threads beside a test, and end with it, whether it passed or not."""

import sys
import threading
import time
import traceback
from collections.abc import Callable, Iterable
from concurrent.futures import Future
from types import TracebackType
from typing import Any, Self

from conditions import LIMIT_S

JOIN_S = 60.0
"""How long a thread may take to end once its test has; only one that never ends takes so long."""


class Outcome(Future[Any]):
    """The future of a call, which nobody waits for without a limit."""

    def result(self, timeout: float | None = LIMIT_S) -> Any:
        """Return what the call returned, or raise what it raised."""
        return super().result(timeout)

    def exception(self, timeout: float | None = LIMIT_S) -> BaseException | None:
        """Return what the call raised, if it did."""
        return super().exception(timeout)


class Background:
    """Threads whose end nobody waits for without a limit, as ``ThreadPoolExecutor`` does.

    Each call has a thread of its own, so that none waits for another. A thread that a failed test leaves
    waiting is reported with its stack. It doesn't keep the process alive.
    """

    def __init__(self, *, join_s: float = JOIN_S) -> None:
        self._join_s = join_s
        self._threads: list[threading.Thread] = []

    def submit(self, call: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Outcome:
        """Call a function in a thread of its own, and return the future of what it returns or raises."""
        future = Outcome()

        def run() -> None:
            future.set_running_or_notify_cancel()
            try:
                returned = call(*args, **kwargs)
            except BaseException as error:
                future.set_exception(error)
            else:
                future.set_result(returned)

        thread = threading.Thread(target=run, name=f"background {call!r}", daemon=True)
        self._threads.append(thread)
        thread.start()
        return future

    def map(self, call: Callable[[Any], Any], arguments: Iterable[Any]) -> list[Any]:
        """Call a function with each of these at once, and return what it returns, in order."""
        return [outcome.result() for outcome in [self.submit(call, each) for each in arguments]]

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: object, trace: TracebackType | None) -> None:
        give_up = time.monotonic() + self._join_s
        for thread in self._threads:
            thread.join(max(0.0, give_up - time.monotonic()))
        left = [thread for thread in self._threads if thread.is_alive()]
        assert not left, "threads didn't end with the test:\n" + "\n".join(map(_describe, left))


def _describe(thread: threading.Thread) -> str:
    frame = sys._current_frames().get(thread.ident or 0)
    return f"{thread.name}\n{''.join(traceback.format_stack(frame)) if frame else ''}"
