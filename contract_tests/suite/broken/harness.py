"""A harness around another, whose adapter it breaks."""

from typing import Any

from ...ports import ConsumerBackend, OrchestratorBackend
from ..harness import Harness
from .fault_registry import Fault
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


class BrokenHarness(Harness):
    """Makes the clients of ``inner`` with one fault built in; all else is as there."""

    def __init__(self, inner: Harness, fault: Fault) -> None:
        self.inner = inner
        self.lease_s = inner.lease_s
        self.timeout_s = inner.timeout_s
        self.virtual_time = inner.virtual_time
        self.wake_s = inner.wake_s
        self.secrets = (*(inner.secrets or ()), *fault.make.secrets) or None
        self._fault = fault
        self._made: dict[str, PassThrough] = {}

    def make(self, namespace: str) -> OrchestratorBackend:
        """Connect a client of the broken adapter."""
        fault = self._made.setdefault(namespace, self._fault.make(self.inner.now))
        return BrokenBackend(self.inner.make(fault.namespace(namespace)), fault)

    def crash(self, consumer: ConsumerBackend) -> None:
        """Let the consumer inside die."""
        assert isinstance(consumer, BrokenConsumer)
        self.inner.crash(consumer.inner)

    def sever(self, backend: OrchestratorBackend) -> None:
        """Cut the client inside off."""
        assert isinstance(backend, BrokenBackend)
        backend.fault.sever(backend)
        self.inner.sever(backend.inner)

    def cut_reply(self, backend: OrchestratorBackend) -> bool:
        """Lose a reply to the fault, or to the client inside."""
        assert isinstance(backend, BrokenBackend)
        return backend.fault.cut_reply(backend) or self.inner.cut_reply(backend.inner)

    def open_connection(self, backend: OrchestratorBackend) -> Any:
        """Open a connection to where the client inside has its queues."""
        assert isinstance(backend, BrokenBackend)
        return self.inner.open_connection(backend.inner)

    def destroy(self, namespace: str) -> None:
        """Remove what is left."""
        if fault := self._made.pop(namespace, None):
            self.inner.destroy(fault.namespace(namespace))

    def close(self) -> None:
        """Give back what the harness inside holds."""
        self.inner.close()

    def advance(self, seconds: float) -> None:
        """Let time pass."""
        self.inner.advance(seconds)

    def now(self) -> float:
        """Seconds on the broker's clock."""
        return self.inner.now()

    def redelivery_s(self, lease_s: float) -> float:
        """As the harness inside says."""
        return self.inner.redelivery_s(lease_s)
