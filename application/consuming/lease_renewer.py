"""The thread that renews the leases of a consumer's jobs."""

import threading
from logging import Logger
from types import TracebackType
from typing import Self

from ...domain.errors import JobsError
from .in_flight import SLOW_S, InFlight


class LeaseRenewer:
    """Renews leases on a thread of its own, for as long as the context lasts.

    Args:
        in_flight: The jobs whose leases to renew.
        lease_s: How many seconds a lease lasts; None where the connection is the lease.
        logger: Where failures are told.
    """

    def __init__(self, in_flight: InFlight, lease_s: float | None, logger: Logger) -> None:
        self._in_flight = in_flight
        self._logger = logger
        self._every_s = SLOW_S if lease_s is None else min(SLOW_S, lease_s / 6)
        self._done = threading.Event()
        self._thread = threading.Thread(target=self._run, name="mindtrace-jobs-leases", daemon=True)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(
        self,
        exc_type: type[BaseException] | None,
        exc_val: BaseException | None,
        exc_tb: TracebackType | None,
    ) -> None:
        self._done.set()
        self._thread.join()

    def _run(self) -> None:
        while not self._done.wait(self._every_s):
            try:
                self._in_flight.renew()
            except JobsError as error:
                # The broker is out of reach or closing; the consumer's own thread deals with that.
                self._logger.debug("leases not extended: %s", error)
            except Exception:  # a fault of the adapter must not end the thread
                self._logger.exception("leases not extended")
