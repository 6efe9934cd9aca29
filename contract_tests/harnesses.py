"""How to make, break and clean up each of the project's own adapters."""

from mindtrace.jobs import ConsumerBackend, LocalClient, OrchestratorBackend
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.contract import Harness


class LocalHarness(Harness):
    """Queues in memory, on a clock that stands still."""

    lease_s = 10.0
    virtual_time = True

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.clients: dict[str, LocalClient] = {}

    def make(self, namespace: str) -> OrchestratorBackend:
        """Connect a client; the first is kept, so that the namespace lasts until it is destroyed."""
        client = LocalClient(namespace, clock=self.clock)
        self.clients.setdefault(namespace, LocalClient(namespace))
        return client

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: a consumer that is never heard of again is dead."""

    def sever(self, backend: OrchestratorBackend) -> None:
        """Nothing to do: there is no connection."""

    def destroy(self, namespace: str) -> None:
        """Let go of the namespace."""
        if client := self.clients.pop(namespace, None):
            client.close()

    def advance(self, seconds: float) -> None:
        """Move the clock."""
        self.clock.advance(seconds)

    def now(self) -> float:
        """The clock's time."""
        return self.clock.now()
