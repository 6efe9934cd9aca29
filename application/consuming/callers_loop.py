"""The event loop of a coroutine that consumes, for as long as it does."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

from ...domain.errors import UsageError

if TYPE_CHECKING:
    from asyncio import AbstractEventLoop, Task


class CallersLoop:
    """The event loop for a consumer's coroutines, if the caller of ``consume_async`` lends its own."""

    def __init__(self) -> None:
        self.loop: AbstractEventLoop | None = None
        """The caller's event loop; None while nobody lends one."""
        self.thread: threading.Thread | None = None
        """The thread that runs it."""
        self._lender: Task[Any] | None = None

    @property
    def is_ending(self) -> bool:
        """Whether the loop that is lent, or was lent last, has cancelled all its tasks, as it ends.

        That of the last lender is among them, and nobody else knows it. All are cancelled before any goes on.
        """
        return self._lender is not None and self._lender.cancelling() > 0

    @contextmanager
    def lend(self, loop: "AbstractEventLoop", lender: "Task[Any] | None") -> Iterator[None]:
        """Lend the event loop that the calling thread runs.

        Args:
            loop: The event loop.
            lender: The task that lends it. Nothing may cancel it but the end of the loop.

        Raises:
            UsageError: one is lent already.
        """
        if self.loop is not None:
            raise consumes_already()
        self.loop, self.thread, self._lender = loop, threading.current_thread(), lender
        try:
            yield
        finally:
            self.loop = self.thread = None


def consumes_already() -> UsageError:
    """Return the error of consuming twice at once."""
    return UsageError("this consumer is consuming already: give each thread or task a consumer of its own")
