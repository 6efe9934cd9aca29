"""The contract, on queues in memory."""

from mindtrace.jobs import ConsumerBackend, LocalClient, OrchestratorBackend
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.contract import Harness, contract_suite


class LocalHarness(Harness):
    lease_s = 10.0
    virtual_time = True

    def __init__(self) -> None:
        self.clock = ManualClock()
        self.clients: dict[str, LocalClient] = {}

    def make(self, namespace: str) -> OrchestratorBackend:
        # The first client is kept, so that the namespace lasts until it is destroyed.
        client = LocalClient(namespace, clock=self.clock)
        self.clients.setdefault(namespace, LocalClient(namespace))
        return client

    def crash(self, consumer: ConsumerBackend) -> None:
        """Nothing to do: a consumer that is never heard of again is dead."""

    def sever(self, backend: OrchestratorBackend) -> None:
        """Nothing to do: there is no connection."""

    def destroy(self, namespace: str) -> None:
        if client := self.clients.pop(namespace, None):
            client.close()

    def advance(self, seconds: float) -> None:
        self.clock.advance(seconds)

    def now(self) -> float:
        return self.clock.now()


globals().update(contract_suite(LocalHarness))
