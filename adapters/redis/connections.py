"""Connections to one server, used below the driver's commands."""

import os
import select
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from hiredis import pack_command  # isort: skip - after redis, which who lacks both is told of

Argument = str | bytes | int
Command = tuple[Argument, ...]
"""Its name, and what follows it."""
_UNLIMITED = 2**31
"""Each consumer that waits has one; newer drivers would allow 100."""
_Reader = Callable[[Connection], Any]


class _Kept:
    """A connection that stays here between calls, and the means to see whether anything came meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._socket: Any = None
        self._look: Any = None

    def is_quiet(self) -> bool:
        """Whether nothing came that nobody read, be it the end. The driver's own look takes longer."""
        socket: Any = self.connection._sock
        try:
            if not hasattr(select, "poll"):  # on Windows
                return not self.connection.can_read()
            if socket is not self._socket:  # it was connected anew
                look = select.poll()
                look.register(socket, select.POLLIN)
                self._socket, self._look = socket, look
        except (TypeError, ValueError, OSError, driver.RedisError):  # there is none, or it was closed
            return False
        return socket is not None and not self._look.poll(0)


class Connections:
    """Sends each command once, and never reads an answer that another command was to have.

    The driver's own commands promise the same, but a call spends most of its time in what else they can do.
    Nor is its pool asked for each call: a connection that was made stays here for the next caller.

    Args:
        client: The driver, which makes the connections.
    """

    def __init__(self, client: Redis) -> None:
        self._client = client
        self._pool = client.connection_pool
        self._idle: list[_Kept] = []
        self._pid = os.getpid()

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one go, and return what the server answers each: an error it answers isn't raised.

        Raises:
            ConnectionError, TimeoutError: the driver's: there is no connection, or it broke, and any of the
                commands may or may not have run.
        """
        return self._talk(commands, _read)

    def ask_parsed(self, *command: Argument) -> Any:
        """Send one command, and return its answer as the driver presents it; otherwise as :meth:`ask`.

        Raises:
            ResponseError: the driver's: the server answered with an error.
        """
        (answer,) = self._talk([command], lambda connection: self._read_parsed(connection, command))
        if isinstance(answer, Exception):
            raise answer
        return answer

    def drop_idle(self) -> None:
        """Close those that nobody uses now."""
        while (idle := self._next_idle()) is not None:
            self._drop(idle)

    def close(self) -> None:
        """Close all, also under a call."""
        self._pool.disconnect(inuse_connections=True)
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                sentinel.close()

    def _talk(self, commands: Sequence[Command], read: _Reader) -> list[Any]:
        kept = self._take()
        connection = kept.connection
        try:
            packed = b"".join([pack_command(command) for command in commands])  # type: ignore[arg-type]
            connection.send_packed_command([packed])  # type: ignore[no-untyped-call]
            answers = [_answer(connection, read) for _ in commands]
        except BaseException:  # an interrupt, too: what it didn't read would be the next command's answer
            self._drop(kept)
            raise
        self._idle.append(kept)
        return answers

    def _read_parsed(self, connection: Connection, command: Command) -> Any:
        return self._client.parse_response(connection, command[0])  # type: ignore[no-untyped-call]

    def _take(self) -> _Kept:
        if self._pid != os.getpid():  # forked: these are the parent's
            self._idle, self._pid = [], os.getpid()
        while (idle := self._next_idle()) is not None:
            if self._is_sound(idle):
                return idle
            self._drop(idle)
        return _Kept(self._pool.get_connection())

    def _next_idle(self) -> _Kept | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _is_sound(self, idle: _Kept) -> bool:
        """Whether it is open, with nothing left to read, and leads to the server that is master by now."""
        return bool(self._pool.owns_connection(idle.connection)) and idle.is_quiet()

    def _drop(self, kept: _Kept) -> None:
        kept.connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool.release(kept.connection)


def _read(connection: Connection) -> Any:
    return connection.read_response()


def _answer(connection: Connection, read: _Reader) -> Any:
    try:
        return read(connection)
    except driver.ResponseError as error:
        return error


def make_connections(sentinel: Sentinel | None = None, service: str = "", **settings: Any) -> Connections:
    """Connections that aren't retried, and decode nothing that is read.

    They speak the older protocol: in the newer one a server may say things that nobody asked for.
    """
    settings |= {
        "retry": Retry(NoBackoff(), 0),
        "decode_responses": False,
        "health_check_interval": 0,
        "protocol": 2,
        "max_connections": _UNLIMITED,
    }
    if sentinel is None:
        return Connections(Redis(**settings))
    return Connections(sentinel.master_for(service, **settings))  # type: ignore[no-untyped-call]


def make_sentinel(addresses: Sequence[tuple[str, int]], **settings: Any) -> Sentinel:
    """A driver that asks Sentinels where the master is, each once."""
    return Sentinel(addresses, sentinel_kwargs={"retry": Retry(NoBackoff(), 0), **settings})  # type: ignore[no-untyped-call]
