"""What is needed of one connection, and two ways to get it: past the driver, or by its public methods."""

from collections.abc import Callable, Sequence
from threading import Event
from typing import Any, Protocol

from redis.connection import Connection

Argument = str | bytes | int
Command = tuple[Argument, ...]
"""Its name, and its arguments."""
Words = tuple[str | bytes, ...]
Execute = Callable[..., list[Any]]
"""Sends commands in one go, and returns as many answers; an error that the server answers isn't raised."""


def without_numbers(command: Command) -> Words:
    """Return a command with its numbers as text.

    hiredis would make them text itself. Where a signal comes meanwhile, as with Ctrl-C, it then reads a null
    pointer, and the process dies.
    """
    return tuple([str(word) if word.__class__ is int else word for word in command])  # type: ignore[misc]


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
