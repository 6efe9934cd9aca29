"""Making connections of pika's, by its private names where the installed release has them."""

import logging
import os
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pika
from pika import ConnectionParameters
from pika.adapters.utils.connection_workflow import AMQPConnectorWrongState

from .driver_connection import DriverConnection
from .pika_io_loop import PikaIOLoop
from .pika_private import PrivateConnection, missing_names
from .pika_public import PublicConnection

FORCE_PUBLIC = "MINDTRACE_JOBS_PUBLIC_PIKA"
"""The environment variable that has the public names serve, whatever the release has; for tests."""

_LOGGER = logging.getLogger(__name__)


def chosen_driver() -> type[DriverConnection]:
    """Return the class that serves connections with the installed release of pika."""
    if os.environ.get(FORCE_PUBLIC):
        return PublicConnection
    if missing := missing_names():
        _LOGGER.warning(
            "pika %s is slower here than another release: it lacks %s", pika.__version__, ", ".join(missing)
        )
        return PublicConnection
    return PrivateConnection


driver = chosen_driver()


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
    return driver.create_connection([server], on_done=done, custom_ioloop=loop)


def abort(attempt: Any, loop: PikaIOLoop) -> None:
    """Give up an attempt to connect, at whatever point it is.

    Once the server has been asked to let us in, pika's own way stops half-way, at an assertion that never
    holds there. Then :meth:`DriverConnection.abandon` does the rest.
    """
    with suppress(AMQPConnectorWrongState, AssertionError):  # the former: it was given up before
        attempt.abort()
    driver.abandon(attempt, loop)
