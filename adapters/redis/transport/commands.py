"""What is sent over a connection, and how what comes back is read as text."""

from collections.abc import Callable
from typing import Any

Argument = str | bytes
"""An argument is never a number: hiredis would convert it to text, and crash if Ctrl-C comes meanwhile."""
Command = tuple[Argument, ...]
"""The name of a command, and its arguments."""
Execute = Callable[..., list[Any]]
"""Sends commands in one go, and returns as many answers; an error that the server answers isn't raised."""


def as_text(raw: bytes) -> str:
    """Decode ``raw`` as UTF-8. Each byte that is no UTF-8 becomes a hexadecimal escape."""
    return raw.decode("utf-8", "backslashreplace")
