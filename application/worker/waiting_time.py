"""For how long the next job of a queue has waited."""

from ...domain.envelope import waits_since
from ...ports import OrchestratorBackend
from ..broker.broker_clock import BrokerClock


class WaitingTimes:
    """Tells for how long the next job of a queue has waited.

    Args:
        backend: Where the queues are.
    """

    def __init__(self, backend: OrchestratorBackend) -> None:
        self._backend = backend
        self._clock = BrokerClock(backend)

    def of(self, queue: str) -> float | None:
        """Return the seconds since the publish of the ready job that is next, or since its delay was over.

        Returns:
            0 if no job is ready. None if it can't be told: the backend shows no job without delivering it, or
            the next job is none of ours.

        Raises:
            QueueNotFound: the queue isn't declared.
            BackendUnavailable: the broker can't be reached.
        """
        if not self._backend.capabilities.first_ready:
            return None
        if (body := self._backend.first_ready(queue)) is None:
            return 0.0
        since_s = waits_since(body)
        return None if since_s is None else max(0.0, self._clock() - since_s)
