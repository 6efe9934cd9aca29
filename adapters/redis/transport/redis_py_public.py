"""The fallback: send and read by the public methods of a driver's connection; slower, same meaning."""

from collections.abc import Sequence
from threading import Event
from typing import Any

from redis import exceptions as driver
from redis.connection import Connection

from .channel import Command

_ANSWERS = (
    driver.ResponseError,
    driver.BusyLoadingError,
    driver.AuthenticationError,
    driver.AuthorizationError,
)
"""Errors that the server answers; the driver raises them, and some look like a broken connection."""


class PublicChannel:
    """Sends and reads as the driver's own commands do."""

    def __init__(self, connection: Connection, closed: Event) -> None:
        self.connection = connection
        self._closed = closed

    def is_quiet(self) -> bool:
        """Whether it is open and has nothing to read, neither data nor the end."""
        try:  # a closed connection would be opened again by `can_read`
            return self.is_open() and not self.connection.can_read() and self.is_open()
        except (ValueError, OSError, driver.RedisError):
            return False

    def is_open(self) -> bool:
        """Whether nobody closed it on this side."""
        return not self._closed.is_set()

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and read as many answers; an error that the server answers is one of them."""
        connection: Any = self.connection
        connection.send_packed_command(connection.pack_commands(list(commands)), check_health=False)
        return [self._read() for _ in commands]

    def _read(self) -> Any:
        try:
            # Past the method of a Sentinel's connection, which takes a demotion for a broken connection.
            return Connection.read_response(self.connection, disable_decoding=True, disconnect_on_error=False)
        except _ANSWERS as error:
            return error
