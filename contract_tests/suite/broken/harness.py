"""A harness around another, whose adapter it breaks."""

from contextlib import AbstractContextManager
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

    def make_without_polling(self, namespace: str) -> OrchestratorBackend | None:
        """Connect a client of the broken adapter that never polls, if the harness inside can."""
        fault = self._made.setdefault(namespace, self._fault.make(self.inner.now))
        inner = self.inner.make_without_polling(fault.namespace(namespace))
        if inner is None:
            return None
        fault.polls = False
        return BrokenBackend(inner, fault)

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

    def count_stored(self, backend: OrchestratorBackend) -> int | None:
        """Count what the client inside stores, and what the fault does."""
        assert isinstance(backend, BrokenBackend)
        stored = self.inner.count_stored(backend.inner)
        return backend.fault.stored if stored is None else stored + backend.fault.stored

    def cut_request(self, backend: OrchestratorBackend) -> bool:
        """Lose a request of the fault, or of the client inside."""
        assert isinstance(backend, BrokenBackend)
        return backend.fault.cut_request(backend) or self.inner.cut_request(backend.inner)

    def cut_off(self, backend: OrchestratorBackend) -> AbstractContextManager[object] | None:
        """Cut the fault off, or the client inside."""
        assert isinstance(backend, BrokenBackend)
        return backend.fault.cut_off(backend) or self.inner.cut_off(backend.inner)

    def refuse(self, backend: OrchestratorBackend) -> AbstractContextManager[object] | None:
        """Have the fault refuse, or the client inside refused."""
        assert isinstance(backend, BrokenBackend)
        return backend.fault.refuse(backend) or self.inner.refuse(backend.inner)

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
