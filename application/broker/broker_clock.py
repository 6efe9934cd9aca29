"""What time it is for a broker, asked of it now and then."""

from collections.abc import Callable
from time import monotonic, time
from typing import NamedTuple

from ...domain.errors import JobsError
from ...ports import Durability, OrchestratorBackend

_KEPT_S = 10.0
"""For how long an answer is used before the broker is asked again."""
_STEP_S = 1.0
"""By how much the wall clock may differ from the steady one since the last answer. More means that the
machine slept, or that its clock was set: then the broker is asked at once."""


class _Reading(NamedTuple):
    """An answer of the broker's, and what the clocks of this machine said then."""

    broker_s: float
    steady_s: float
    wall_s: float


class BrokerClock:
    """Tells the time of a backend's coordination store, in seconds since 1970. Threads may share it.

    Between two answers it goes on by this machine's steady clock. So it is wrong by no more than half of what
    an answer takes, and what the two clocks drift apart in 10 s. Where the backend has no store, or the store
    has never answered, this is the machine's clock (ADR 124).

    Args:
        backend: Whose time it tells.
    """

    def __init__(self, backend: OrchestratorBackend) -> None:
        self._backend = backend
        self._reading: _Reading | None = None

    def __call__(self) -> float:
        """Return the time."""
        capabilities = self._backend.capabilities
        if not capabilities.coordination:
            return time()
        if capabilities.durability is Durability.PROCESS:  # its clock is here, and a test may move it
            return self._backend.coordination.now()
        reading = self._reading
        if reading is None or self._is_old(reading):
            reading = self._reading = self._ask(reading)
        return reading.broker_s + (monotonic() - reading.steady_s)

    def _is_old(self, reading: _Reading) -> bool:
        passed_s = monotonic() - reading.steady_s
        return passed_s >= _KEPT_S or abs(time() - reading.wall_s - passed_s) > _STEP_S

    def _ask(self, last: _Reading | None) -> _Reading:
        before_s = monotonic()
        try:
            broker_s = self._backend.coordination.now()
        except JobsError:  # what needs the broker meets the error itself
            broker_s = time() if last is None else last.broker_s + (before_s - last.steady_s)
            return _Reading(broker_s, before_s, time())
        after_s = monotonic()
        return _Reading(broker_s, (before_s + after_s) / 2, time() - (after_s - before_s) / 2)


Clock = Callable[[], float]
"""Returns seconds since 1970."""
