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

from hiredis import pack_command  # isort: skip - after redis, which who lacks both is told of

Argument = str | bytes | int
Command = tuple[Argument, ...]
"""Its name, and what follows it."""
_UNLIMITED = 2**31
"""Each consumer that waits has one; newer drivers would allow 100."""


class _Kept:
    """A connection that stays here between calls, and the means to see whether anything came meanwhile."""

    def __init__(self, connection: Connection) -> None:
        self.connection = connection
        self._socket: object = None
        self._look: Callable[[], object] = connection.can_read

    def is_quiet(self) -> bool:
        """Whether nothing came that nobody read, be it the end."""
        try:
            if self.connection._sock is not self._socket:  # it was connected anew
                self._prepare()
            return self._socket is not None and not self._look()
        except (TypeError, ValueError, OSError, driver.RedisError):  # there is none, or it was closed
            return False

    def _prepare(self) -> None:
        """Make ready to look, once a connection: the driver's own look takes longer."""
        socket: Any = self.connection._sock
        if hasattr(select, "poll"):  # not on Windows
            poll = select.poll()
            poll.register(socket, select.POLLIN)
            self._look = partial(poll.poll, 0)
        self._socket = socket


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
        self._follows = isinstance(self._pool, SentinelConnectionPool)
        self._idle: list[_Kept] = []
        self._pid = os.getpid()

    def ask(self, *commands: Command) -> list[Any]:
        """Send commands in one go, and return what the server answers each: an error it answers isn't raised.

        Raises:
            ConnectionError, TimeoutError: the driver's: there is no connection, or it broke, and any of the
                commands may or may not have run.
        """
        kept = self._take()
        connection = kept.connection
        try:
            packed = b"".join(map(pack_command, commands))  # type: ignore[arg-type]
            connection.send_packed_command([packed], False)  # type: ignore[no-untyped-call]
            answers = [_answer(connection) for _ in commands]
        except BaseException:  # an interrupt, too: what it didn't read would be the next command's answer
            self._drop(kept)
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
            self._drop(idle)

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
            self._drop(idle)
        return _Kept(self._pool.get_connection())

    def _next_idle(self) -> _Kept | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _drop(self, kept: _Kept) -> None:
        kept.connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool.release(kept.connection)


def _answer(connection: Connection) -> Any:
    try:
        return connection.read_response()
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
