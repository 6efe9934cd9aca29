"""Making connections of pika's."""

from collections.abc import Callable
from contextlib import suppress
from typing import Any

from pika import ConnectionParameters
from pika.adapters.utils.connection_workflow import AMQPConnectorWrongState

from .driver_connection import DriverConnection
from .pika_io_loop import PikaIOLoop
from .pika_private import PrivateConnection


def connect(
    server: ConnectionParameters,
    loop: PikaIOLoop,
    on_done: Callable[[DriverConnection | BaseException], None],
) -> Any:
    """Begin to connect; return the attempt, for :func:`abort`."""

    def done(outcome: DriverConnection | BaseException) -> None:
        if isinstance(outcome, DriverConnection):
            outcome.watch()
        on_done(outcome)

    # One server at a time: of several, pika tries no more once the name of one isn't known.
    return PrivateConnection.create_connection([server], on_done=done, custom_ioloop=loop)


def abort(attempt: Any, loop: PikaIOLoop) -> None:
    """Give up an attempt to connect, at whatever point it is.

    Once the server has been asked to let us in, pika's own way stops half-way, at an assertion that never
    holds there. Then :meth:`DriverConnection.abandon` does the rest.
    """
    with suppress(AMQPConnectorWrongState, AssertionError):  # the former: it was given up before
        attempt.abort()
    PrivateConnection.abandon(attempt, loop)
