"""The thread that settles finished jobs while the consumer's own thread waits for new ones."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from logging import Logger
from types import TracebackType
from typing import Self

from ...domain.errors import JobsError
from ...ports.signal_safe_event import SignalSafeEvent
from ..process.thread_start import start_thread
from .in_flight import InFlight

_RETRY_S = 1.0
"""How long to wait after a settlement failed."""


class IdleSettler:
    """Settles jobs as they finish, on a thread of its own, while :meth:`settling` lasts.

    Args:
        in_flight: The jobs.
        logger: Where failures are told.
    """

    def __init__(self, in_flight: InFlight, logger: Logger) -> None:
        self._in_flight = in_flight
        self._logger = logger
        self._lock = threading.Lock()
        self._active = SignalSafeEvent()
        self._ended = SignalSafeEvent()
        self._has_begun = False
        self._when_idle: Callable[[], None] | None = None
        self._thread = threading.Thread(target=self._run, name="mindtrace-jobs-settler", daemon=True)

    def __enter__(self) -> Self:
        start_thread(self._thread)
        self._has_begun = True
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self.tell_to_end()
        if self._has_begun:
            self._thread.join()

    def tell_to_end(self) -> None:
        """Have the thread end soon."""
        with self._lock:  # else the thread could rest once more, and nobody would wake it
            self._ended.set()
            self._active.set()
        self._in_flight.end_waits()

    @contextmanager
    def settling(self, when_idle: Callable[[], None] | None) -> Iterator[None]:
        """Settle what finishes meanwhile, and call ``when_idle`` once no job runs any more."""
        with self._lock:
            self._when_idle = when_idle
            if not self._in_flight.is_idle:
                self._active.set()
        try:
            yield
        finally:
            self._active.clear()
            self._in_flight.end_waits()

    def _run(self) -> None:
        while self._active.wait() and not self._ended.is_set():
            self._in_flight.wait_for_finished(1, _RETRY_S)
            try:
                self._in_flight.settle()
            except JobsError as error:
                # The broker is out of reach or closing; the consumer's own thread deals with that.
                self._logger.debug("settlements wait for the broker: %s", error)
                self._ended.wait(_RETRY_S)
            self._rest_if_idle()

    def _rest_if_idle(self) -> None:
        with self._lock:  # else what `settling` begins at this moment would be missed
            if self._ended.is_set() or not (self._in_flight.is_idle and self._active.is_set()):
                return
            self._active.clear()
            when_idle = self._when_idle
        if when_idle is not None:
            with suppress(JobsError):
                when_idle()
