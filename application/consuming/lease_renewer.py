"""The thread that renews the leases of a consumer's jobs."""

import threading
from collections.abc import Callable
from logging import Logger

from ...domain.errors import JobsError
from ...ports.signal_safe_event import SignalSafeEvent
from ..process.thread_start import start_thread
from .in_flight import InFlight

_EXTENDED_AFTER = 1 / 3
"""The part of a lease after which it is extended (LSE-3), as places are in ``limits/places.py``. The adapters
of Redis and PostgreSQL protect leases after outages that were longer than this part."""
SLOW_S = 1.0
"""A job that has run for as long counts as slow; also the longest pause between two looks at the leases."""


class LeaseRenewer:
    """Extends leases on a thread of its own, from :meth:`start` to :meth:`stop`.

    Args:
        in_flight: The jobs whose leases to renew.
        lease_s: How many seconds a lease lasts; None where the connection is the lease.
        watch: What else to do at each look at the leases, at least every ``SLOW_S`` seconds.
        logger: Where failures are told.
    """

    def __init__(
        self, in_flight: InFlight, lease_s: float | None, watch: Callable[[], None], logger: Logger
    ) -> None:
        self._in_flight = in_flight
        self._watch = watch
        self._logger = logger
        # Where the connection is the lease, asking costs nothing, and tells whether it still stands.
        self._extended_after_s = 0.0 if lease_s is None else lease_s * _EXTENDED_AFTER
        self._pause_s = SLOW_S if lease_s is None else min(SLOW_S, self._extended_after_s / 2)
        self._is_done = False
        self._has_begun = False
        self._wake = SignalSafeEvent()
        self._thread = threading.Thread(target=self._run, name="mindtrace-jobs-leases", daemon=True)

    def start(self) -> None:
        """Begin. Whatever this raises, :meth:`stop` must follow."""
        start_thread(self._thread)
        self._has_begun = True

    def tell_to_stop(self) -> None:
        """Have the thread end soon."""
        self._is_done = True
        self._wake.set()

    def stop(self) -> None:
        """End the thread, and wait for its end."""
        self.tell_to_stop()
        if self._has_begun:  # else the start was interrupted: if the thread begins, it renews nothing
            self._thread.join()

    def renew_now(self) -> None:
        """Extend the leases at once, and so learn which jobs are to be cancelled; from any thread."""
        self._wake.set()

    def _run(self) -> None:
        while True:
            self._wake.wait(self._pause_s)
            is_asked = self._wake.clear()  # not what the wait says: it may have been set since
            if self._is_done:
                return
            try:
                self._renew(is_asked=is_asked)
            except JobsError as error:
                # The broker is out of reach or closing; the consumer's own thread deals with that.
                self._logger.debug("leases not extended: %s", error)
            except Exception:  # a fault of the adapter must not end the thread
                self._logger.exception("leases not extended")

    def _renew(self, *, is_asked: bool) -> None:
        in_flight = self._in_flight
        if is_asked or in_flight.since_extended_s >= self._extended_after_s:
            in_flight.extend()
        self._watch()
