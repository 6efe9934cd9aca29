"""Connections to one server, used below the driver's commands."""

import logging
import os
from collections.abc import Callable, Sequence
from threading import Event
from typing import Any

from redis import Redis
from redis import exceptions as driver
from redis.backoff import NoBackoff
from redis.connection import Connection
from redis.retry import Retry
from redis.sentinel import Sentinel, SentinelConnectionPool

from .channel import Argument, Channel, Command, Execute
from .redis_py_private import PrivateChannel, find_missing_names
from .redis_py_public import PublicChannel

_FORCE_PUBLIC = "MINDTRACE_JOBS_PUBLIC_REDIS_PY"
_BROKEN = (OSError, driver.ConnectionError, driver.TimeoutError)
_UNLIMITED = 2**31
"""Each consumer that waits has a connection; newer drivers would allow 100."""


class ConnectionBroke(driver.ConnectionError):
    """The connection broke after something was sent: any of the commands may or may not have run."""


def choose_channel() -> type[Channel]:
    """Return the fastest way that the installed driver allows.

    The environment variable ``MINDTRACE_JOBS_PUBLIC_REDIS_PY=1`` has the driver's public methods used.
    """
    if os.environ.get(_FORCE_PUBLIC):
        return PublicChannel
    if missing := find_missing_names():
        logging.getLogger(__name__).warning(
            "this release of redis-py lacks %s: its public methods are used, which are slower",
            ", ".join(missing),
        )
        return PublicChannel
    return PrivateChannel


_OpenChannel = choose_channel()


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
        self._closed = Event()
        self._pid = os.getpid()

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
        except BaseException as error:  # an interrupt, too: what it left would be the next command's answer
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
        """Close those that nobody uses now."""
        while (idle := self._next_idle()) is not None:
            self._drop(idle.connection)

    def close(self) -> None:
        """Close all, also under a call."""
        self._closed.set()  # first: what fails from now on was closed
        self._pool.disconnect(inuse_connections=True)
        if isinstance(self._pool, SentinelConnectionPool):
            for sentinel in self._pool.sentinel_manager.sentinels:
                sentinel.close()

    def _take(self) -> Channel:
        if self._pid != os.getpid():  # forked: these are the parent's
            self._idle, self._pid = [], os.getpid()
        while (idle := self._next_idle()) is not None:
            # One to a server that isn't the master any more isn't the pool's.
            if idle.is_quiet() and (not self._follows or self._pool.owns_connection(idle.connection)):
                return idle
            self._drop(idle.connection)
        connection = self._pool.get_connection()
        try:
            channel = _OpenChannel(connection, self._closed)
            self.on_connect(lambda *commands: channel.execute(commands))
        except BaseException as error:
            self._drop(connection)
            if isinstance(error, ValueError | OSError):  # it was closed just now
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
