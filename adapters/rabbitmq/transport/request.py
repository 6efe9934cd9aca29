"""One request to the server, and its answer."""

from collections.abc import Callable
from typing import Any

from pika.channel import Channel

Reply = Callable[[Any], None]
Action = Callable[[Channel, Reply], None]


class Request:
    """What one thread wants of the server, and the answer: set in the loop, awaited by any thread."""

    __slots__ = ("action", "error", "is_abandoned", "is_over", "value")

    def __init__(self, action: Action) -> None:
        self.action = action
        self.is_over = False
        self.is_abandoned = False
        """Whether nobody waits for it any more: what wasn't begun by then never is."""
        self.value: Any = None
        self.error: Exception | None = None

    def answer(self, value: Any) -> None:
        """Set the answer, unless there is one."""
        if not self.is_over:
            self.value = value
            self.is_over = True

    def fail(self, error: Exception) -> None:
        """Set an error as the answer, unless there is an answer."""
        if not self.is_over:
            self.error = error
            self.is_over = True

    def result(self) -> Any:
        """Return the answer, or raise the error."""
        if self.error is not None:
            raise self.error
        return self.value
