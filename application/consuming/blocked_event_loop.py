"""A warning of a handler that blocks the event loop, so that no other handler runs."""

import sys
import threading
import traceback
from collections.abc import Callable
from logging import Logger
from time import monotonic

from ...domain.printable import printable

_BLOCKED_S = 1.0
"""For how long a handler may keep the event loop from running any other before that is told."""


class BlockedEventLoopWatch:
    """Asks the event loop for a sign of life, and warns once if none comes.

    Args:
        running_job: Returns the id of the job that the event loop runs just now, if it is known.
        logger: Where it is told.
    """

    def __init__(self, running_job: Callable[[], str | None], logger: Logger) -> None:
        self._running_job = running_job
        self._logger = logger
        self._asked_s: float | None = None
        """When the loop was asked for a sign that it hasn't given yet."""
        self._has_warned = False

    def look(self, have_called: Callable[[Callable[[], object]], None], thread: threading.Thread) -> None:
        """Ask the loop, or warn if it has been silent for long; called about once a second.

        Args:
            have_called: Has the event loop call a function.
            thread: The event loop's.
        """
        asked_s = self._asked_s
        if asked_s is None:
            self._asked_s = monotonic()
            have_called(self._answer)
            return
        blocked_s = monotonic() - asked_s
        if blocked_s < _BLOCKED_S or self._has_warned:
            return
        self._has_warned = True
        job = self._running_job()
        self._logger.warning(
            "%s blocks the event loop for %.1f s, so no other job of this consumer runs; await in place of "
            "blocking calls, or use asyncio.to_thread. It is at %s",
            "something" if job is None else f"job {printable(job)}",
            blocked_s,
            _where(thread),
        )

    def _answer(self) -> None:
        self._asked_s = None
        self._has_warned = False


def _where(thread: threading.Thread) -> str:
    """Return file, line and function of the code that a thread runs."""
    frame = sys._current_frames().get(thread.ident or 0)
    if frame is None:
        return "an unknown place"
    at = traceback.extract_stack(frame)[-1]
    return f"{at.filename}:{at.lineno}, in {at.name}"
