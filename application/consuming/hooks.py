"""What a consumer does before its first job and after its last."""

import traceback
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from logging import ERROR, Logger
from typing import Any, NamedTuple

from ...domain.errors import StartFailed
from ..failures.handler_errors import describe, try_to_log
from ..process.graceful_stop import asks_to_stop

Hook = Callable[[], Any]
"""A plain function or an ``async def``."""
CallHook = Callable[[Hook], object]
"""Calls a hook, and waits for its end; an ``async def`` runs on the event loop of the handlers."""


class ConsumerHooks(NamedTuple):
    """The ``on_start`` and ``on_stop`` of a consumer."""

    name: str
    """The name of its class."""
    on_start: Hook
    on_stop: Hook
    call: CallHook
    """Calls them where one job runs at a time."""
    has_started: Callable[[], None]
    """Called once ``on_start`` has returned."""
    logger: Logger
    """Where it is told that ``on_stop`` failed."""

    @contextmanager
    def around(self, call: CallHook) -> Iterator[None]:
        """Call one hook before, and the other after. What a signal handler raises is passed on at once.

        Raises:
            StartFailed: ``on_start`` raised an error. Then ``on_stop`` isn't called.
        """
        try:
            call(self.on_start)
        except BaseException as error:
            if asks_to_stop(error):
                raise
            raise StartFailed(f"{self.name}.on_start failed{_place(error)}: {describe(error)}") from error
        self.has_started()
        try:
            yield
        except Exception:
            self._stop(call)
            raise
        self._stop(call)

    def _stop(self, call: CallHook) -> None:
        try:
            call(self.on_stop)
        except BaseException as error:
            if asks_to_stop(error):
                raise
            try_to_log(self.logger, ERROR, "%s.on_stop failed", self.name, traceback=True)


def _place(error: BaseException) -> str:
    frames = traceback.extract_tb(error.__traceback__)
    return f" ({frames[-1].filename}, line {frames[-1].lineno})" if frames else ""
