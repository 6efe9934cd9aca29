"""From a handler's progress to the broker, seldom enough to cost nothing and never able to fail the job."""

from collections.abc import Callable
from logging import Logger
from time import monotonic

from ...domain import Progress
from ...domain.printable import printable
from ...ports import ConsumerBackend, Delivery

_EVERY_S = 0.5
_PAUSE_S = 10.0
"""How long nothing is sent after it failed: a broker that is away must not slow the handler down."""


class ProgressReporter:
    """Tells the broker how far the job in hand has come, twice a second at most.

    Args:
        backend: Where to tell it.
        current: The delivery whose handler runs, or None where it is lost.
        logger: Where a failure is told.
    """

    def __init__(
        self, backend: ConsumerBackend, current: Callable[[], Delivery | None], logger: Logger
    ) -> None:
        self._backend = backend
        self._current = current
        self._logger = logger
        self._receipt = ""
        self._next_s = 0.0

    def __call__(self, progress: Progress) -> None:
        """Tell it, unless that was done just now."""
        delivery = self._current()
        if delivery is None:
            return
        now = monotonic()
        if now < self._next_s and delivery.receipt == self._receipt:
            return
        self._receipt, self._next_s = delivery.receipt, now + _EVERY_S
        try:
            self._backend.report(delivery.receipt, progress)
        except Exception as error:
            self._logger.debug("job %s: its progress wasn't told: %s", printable(delivery.id), error)
            self._next_s = now + _PAUSE_S
