"""What is needed of one connection, and two ways to get it: past the driver, or by its public methods."""

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol

from redis.connection import Connection

Argument = str | bytes
"""Never a number: hiredis makes it text, and reads a null pointer where a signal like Ctrl-C comes then."""
Command = tuple[Argument, ...]
"""Its name, and its arguments."""
Execute = Callable[..., list[Any]]
"""Sends commands in one go, and returns as many answers; an error that the server answers isn't raised."""


class Channel(Protocol):
    """A connection that was opened by the driver.

    Args:
        connection: The driver's connection, which is open.
        closed: Set once all connections were closed.
    """

    connection: Connection

    def __init__(self, connection: Connection, closed: Event) -> None: ...

    def is_quiet(self) -> bool:
        """Whether it is open and has nothing to read, neither data nor the end."""
        ...

    def is_open(self) -> bool:
        """Whether nobody closed it on this side."""
        ...

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and read as many answers; an error that the server answers is one of them."""
        ...


def as_text(raw: bytes) -> str:
    """Return ``raw`` as text, with an escape for each byte that is none."""
    return raw.decode("utf-8", "backslashreplace")
