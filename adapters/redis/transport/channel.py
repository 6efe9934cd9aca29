"""Writes to the socket of a driver's connection, and reads it with a parser of our own.

A call by the driver's methods would take half as long again. Only this file uses private names of redis-py.
They are those of :class:`redis.connection.Connection`:

- ``_sock``: the socket; None while there is none.
- ``_parser.parse_error``: makes the driver's exception of an error that the server answers.
"""

import mmap
import os
import select
import socket
from collections.abc import Callable, Sequence
from functools import partial
from struct import Struct
from typing import Any

from redis import exceptions as driver
from redis.connection import Connection

from .commands import Command

from hiredis import Reader, pack_command  # isort: skip - after redis, which who lacks both is told of

_READ_BYTES = 65_536
_INTERVAL = Struct("@ll")
"""Seconds and microseconds, as the system takes a timeout."""


def _leave_timeout_to_system(sock: socket.socket) -> None:
    """Have the system end a call that takes too long: a timeout of Python's costs one more system call."""
    seconds = sock.gettimeout()
    if seconds and type(sock) is socket.socket and os.name == "posix":  # TLS has its own way
        interval = _INTERVAL.pack(int(seconds), int(seconds % 1 * 1e6) or 1)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, interval)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, interval)
        sock.settimeout(None)


class Channel:
    """Sends with one call of the system, reads with one more, and spends nothing else on a command.

    Args:
        connection: The driver's connection, which is open.
    """

    def __init__(self, connection: Connection) -> None:
        sock: Any = connection._sock
        if sock is None:
            raise ValueError("it has no socket")
        self.connection = connection
        self._socket = sock
        _leave_timeout_to_system(sock)
        # The buffer has pages of its own. On the heap, each reconnect would leave a hole between small
        # objects.
        self._buffer = mmap.mmap(-1, _READ_BYTES)
        to_error: Any = connection._parser.parse_error
        self._reader = Reader(protocolError=driver.InvalidResponse, replyError=to_error)
        self._can_read: Callable[[], object] = connection.can_read
        if hasattr(select, "poll"):  # not on Windows
            poll = select.poll()
            poll.register(sock, select.POLLIN)
            self._can_read = partial(poll.poll, 0)

    def is_quiet(self) -> bool:
        """Whether it is open and has nothing to read, neither data nor the end."""
        try:
            is_silent = not self._reader.has_data() and not self._can_read()
            return is_silent and self.is_open()  # asked last, as another thread may have closed it meanwhile
        except (ValueError, OSError, driver.RedisError):  # another thread has just closed it
            return False

    def is_open(self) -> bool:
        """Whether nobody closed it on this side."""
        return self.connection._sock is self._socket

    def execute(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and read as many answers; an error that the server answers is one of them."""
        try:
            self._socket.sendall(b"".join([pack_command(command) for command in commands]))  # type: ignore[arg-type]
            return [self._read() for _ in commands]
        except BlockingIOError as error:  # the system ended a call
            raise TimeoutError("timed out") from error

    def _read(self) -> Any:
        reader = self._reader
        while (answer := reader.gets()) is False:
            count = self._socket.recv_into(self._buffer)
            # What a TLS socket reads while another thread closes it isn't decrypted.
            if not count or not self.is_open():
                raise driver.ConnectionError("it was closed")
            reader.feed(self._buffer, 0, count)  # type: ignore[arg-type]
        return answer
