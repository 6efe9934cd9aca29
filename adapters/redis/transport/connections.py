"""Connections to one server, used below the driver's commands."""

import os
from collections.abc import Callable, Sequence
from typing import Any

from redis import Redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from .channel import Channel
from .commands import Argument, Command, Execute

_BROKEN = (OSError, driver.ConnectionError, driver.TimeoutError)
_UNLIMITED = 2**31
"""Each consumer that waits has a connection; newer drivers would allow 100."""


class ConnectionBroke(driver.ConnectionError):
    """The connection broke after something was sent: any of the commands may or may not have run."""


class Connections:
    """Sends each command once, and never reads an answer that another command was to have.

    The driver's own commands promise the same, but a call spends most of its time in what else they can do.
    Nor is its pool asked for each call: a connection that was made stays here for the next caller.

    Args:
        client: The driver, which makes the connections.
    """

    def __init__(self, client: Redis) -> None:
        self.on_connect: Callable[[Execute], None] = lambda _execute: None
        """Called with each new connection before anything else is sent over it."""
        self._client = client
        self._pool = client.connection_pool
        self._follows = isinstance(self._pool, SentinelConnectionPool)
        self._idle: list[Channel] = []
        self._pid = os.getpid()
        self._is_closed = False

    def execute(self, *commands: Command) -> list[Any]:
        """Send commands in one go, and return what the server answers each: an error it answers isn't raised.

        Raises:
            ConnectionBroke: the connection broke, and any of the commands may or may not have run.
            ConnectionError, TimeoutError: the driver's: there is no connection, so that none has run.
            InvalidResponse: the driver's: what was read is no answer.
        """
        channel = self._take()
        try:
            answers = channel.execute(commands)
        except BaseException as error:  # also an interrupt: the unread answer would be the next command's
            broke = isinstance(error, _BROKEN) or not channel.is_open()
            self._drop(channel.connection)
            if broke and isinstance(error, Exception):
                raise ConnectionBroke(f"the connection broke: {error}") from error
            raise
        self._idle.append(channel)
        return answers

    def execute_parsed(self, *command: Argument) -> Any:
        """Send one command, and return its answer as the driver presents it; otherwise as :meth:`execute`.

        Raises:
            ResponseError: the driver's: the server answered with an error.
        """
        (answer,) = self.execute(command)
        if isinstance(answer, Exception):
            raise answer
        present = self._client.response_callbacks.get(command[0])  # type: ignore[no-untyped-call]
        return answer if present is None else present(answer)

    def drop_idle(self) -> None:
        """Close the connections that no call uses now."""
        while (idle := self._next_idle()) is not None:
            self._drop(idle.connection)

    def close(self) -> None:
        """Close all connections, also those that a call uses or is making."""
        self._is_closed = True
        self._pool.disconnect(inuse_connections=True)
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                sentinel.close()

    def _take(self) -> Channel:
        if self._pid != os.getpid():  # a parent process keeps its connections
            self._idle, self._pid = [], os.getpid()
        while (idle := self._next_idle()) is not None:
            # A connection to a former master belongs to the pool no more.
            if idle.is_quiet() and (not self._follows or self._pool.owns_connection(idle.connection)):
                return idle
            self._drop(idle.connection)
        try:
            connection = self._pool.get_connection()
        finally:
            if self._is_closed:  # meanwhile, when what was being made couldn't be found yet
                self.close()
        try:
            channel = Channel(connection)
            self.on_connect(lambda *commands: channel.execute(commands))
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, ValueError | OSError):  # another thread has just closed it
                raise driver.ConnectionError(f"the connection broke: {error}") from error
            raise
        return channel

    def _next_idle(self) -> Channel | None:
        try:
            return self._idle.pop()
        except IndexError:
            return None

    def _drop(self, connection: Connection) -> None:
        connection.disconnect()  # type: ignore[no-untyped-call]
        self._pool.release(connection)


def make_connections(sentinel: Sentinel | None = None, service: str = "", **settings: Any) -> Connections:
    """Make connections that aren't retried, and decode nothing that is read.

    They speak the older protocol: in the newer one a server sends messages that nobody asked for.
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
    """Make a driver that asks Sentinels where the master is, each once."""
    return Sentinel(addresses, sentinel_kwargs={"retry": Retry(NoBackoff(), 0), **settings})  # type: ignore[no-untyped-call]
