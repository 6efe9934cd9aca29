"""Connections to one server, used below the driver's commands."""

import os
import select
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from redis import Redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from hiredis import Reader, pack_command  # isort: skip - after redis, which who lacks both is told of

Argument = str | bytes | int
Command = tuple[Argument, ...]
"""Its name, and what follows it."""
Ask = Callable[..., list[Any]]
"""Sends commands in one go, and returns as many answers: an error that the server answers isn't raised."""
_READ_BYTES = 65_536
_UNLIMITED = 2**31
"""Each consumer that waits has one; newer drivers would allow 100."""


class BrokenOff(driver.ConnectionError):
    """The connection broke after something was sent: any of the commands may or may not have run."""


class _Kept:
    """A connection that stays here between calls, written to and read past the driver, which opened it."""

    def __init__(self, connection: Connection) -> None:
        socket: Any = connection._sock
        if socket is None:
            raise ValueError("it has no socket")
        self.connection = connection
        self._socket = socket
        self._buffer = bytearray(_READ_BYTES)
        told_as: Any = connection._parser.parse_error
        self._reader = Reader(protocolError=driver.InvalidResponse, replyError=told_as)
        self._look: Callable[[], object] = connection.can_read
        if hasattr(select, "poll"):  # not on Windows
            poll = select.poll()
            poll.register(socket, select.POLLIN)
            self._look = partial(poll.poll, 0)

    def is_quiet(self) -> bool:
        """Whether it is open, with nothing that nobody read, be it the end."""
        try:
            is_silent = not self._reader.has_data() and not self._look()
            return is_silent and self.is_open()  # last: another thread may have closed it during the look
        except (ValueError, OSError, driver.RedisError):  # it was closed just now
            return False

    def is_open(self) -> bool:
        """Whether nobody closed it."""
        return self.connection._sock is self._socket

    def ask(self, commands: Sequence[Command]) -> list[Any]:
        """Send commands, and read as many answers."""
        self._socket.sendall(b"".join(map(pack_command, commands)))  # type: ignore[arg-type]
        return [self._read() for _ in commands]

    def _read(self) -> Any:
        reader = self._reader
        while (answer := reader.gets()) is False:
            count = self._socket.recv_into(self._buffer)
            # What a TLS socket reads while another thread closes it isn't decrypted.
            if not count or not self.is_open():
                raise driver.ConnectionError("it was closed")
            reader.feed(self._buffer, 0, count)  # type: ignore[arg-type]
        return answer


class Connections:
    """Sends each command once, and never reads an answer that another command was to have.

    The driver's own commands promise the same, but a call spends most of its time in what else they can do.
    Nor is its pool asked for each call: a connection that was made stays here for the next caller.

    Args:
        client: The driver, which makes the connections.
    """

    def __init__(self, client: Redis) -> None:
        self.greet: Callable[[Ask], None] = lambda _ask: None
        """Called with each new connection before anything else is sent over it."""
        self._client = client
        self._pool = client.connection_pool
        self._follows = isinstance(self._pool, SentinelConnectionPool)
        self._idle: list[_Kept] = []
        self._pid = os.getpid()

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one go, and return what the server answers each: an error it answers isn't raised.

        Raises:
            BrokenOff: the connection broke, and any of the commands may or may not have run.
            ConnectionError, TimeoutError: the driver's: there is no connection, so that none has run.
            InvalidResponse: the driver's: what was read is no answer.
        """
        kept = self._take()
        try:
            answers = kept.ask(commands)
        except BaseException as error:  # an interrupt, too: what it left would be the next command's answer
            broke = isinstance(error, OSError | driver.ConnectionError) or not kept.is_open()
            self._drop(kept.connection)
            if broke and isinstance(error, Exception):
                raise BrokenOff(f"the connection broke: {error}") from error
            raise
        self._idle.append(kept)
        return answers

    def ask_parsed(self, *command: Argument) -> Any:
        """Send one command, and return its answer as the driver presents it; otherwise as :meth:`ask`.

        Raises:
            ResponseError: the driver's: the server answered with an error.
        """
        (answer,) = self.ask(command)
        if isinstance(answer, Exception):
            raise answer
        present = self._client.response_callbacks.get(command[0])  # type: ignore[no-untyped-call]
        return answer if present is None else present(answer)

    def drop_idle(self) -> None:
        """Close those that nobody uses now."""
        while (idle := self._next_idle()) is not None:
            self._drop(idle.connection)

    def close(self) -> None:
        """Close all, also under a call."""
        self._pool.disconnect(inuse_connections=True)
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                sentinel.close()

    def _take(self) -> _Kept:
        if self._pid != os.getpid():  # forked: these are the parent's
            self._idle, self._pid = [], os.getpid()
        while (idle := self._next_idle()) is not None:
            # One to a server that isn't the master any more isn't the pool's.
            if idle.is_quiet() and (not self._follows or self._pool.owns_connection(idle.connection)):
                return idle
            self._drop(idle.connection)
        connection = self._pool.get_connection()
        try:
            kept = _Kept(connection)
            self.greet(lambda *commands: kept.ask(commands))
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, ValueError | OSError):  # it was closed just now
                raise driver.ConnectionError(f"the connection broke: {error}") from error
            raise
        return kept

    def _next_idle(self) -> _Kept | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _drop(self, connection: Connection) -> None:
        connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool.release(connection)


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
