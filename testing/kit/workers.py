"""The handlers that a kit runs."""

from typing import Any, TypeAlias

from ..application.api.batch_consumer import BatchConsumer
from ..application.api.consumer import Consumer
from ..application.api.job_handler import FunctionHandler
from ..application.api.orchestrator import Orchestrator
from ..domain.errors import InvalidInput
from ..domain.model_types import InT, OutT
from .backend import KitClient

Handler: TypeAlias = Consumer[InT, OutT] | type[Consumer[InT, OutT]] | FunctionHandler[InT, OutT]
"""A consumer, its class, or a function that ``@job_handler`` or ``@batch_handler`` decorates."""


class Worker:
    """A consumer of a handler, and another in its place once it was killed.

    Args:
        orchestrator: What it connects to.
        client: The backend of that.
        handler: What runs the jobs. One that is a consumer is connected anew after its death.
        concurrency: As of :meth:`Consumer.connect`.
        lease_s: Likewise.
    """

    def __init__(
        self,
        orchestrator: Orchestrator,
        client: KitClient,
        handler: Handler[Any, Any],
        concurrency: int | None,
        lease_s: float,
    ) -> None:
        self._orchestrator = orchestrator
        self._client = client
        self._handler = handler
        self._concurrency = concurrency
        self._lease_s = lease_s
        self.consumer = self._start()

    @property
    def queue(self) -> str:
        """The name of the queue whose jobs it runs."""
        return self.consumer.queue_name

    def restart_if_dead(self) -> None:
        """Start another consumer if this one was killed."""
        if self._backend is not None and self._backend.is_dead:
            self.close()
            self.consumer = self._start()

    def close(self) -> None:
        """Disconnect."""
        self.consumer.close()

    def _start(self) -> Consumer[Any, Any]:
        consumer = _consumer_of(self._handler)
        kit, concurrency, lease_s = self._orchestrator, self._concurrency, self._lease_s
        if isinstance(consumer, BatchConsumer):
            consumer.connect(kit, batch_wait_s=0.0, concurrency=concurrency, lease_s=lease_s)
        else:
            consumer.connect(kit, concurrency=concurrency, lease_s=lease_s, prefetch=1)
        self._backend = self._client.newest_consumer
        return consumer


def _consumer_of(handler: object) -> Consumer[Any, Any]:
    if isinstance(handler, Consumer):
        return handler
    if isinstance(handler, FunctionHandler):
        return handler.consumer()
    if isinstance(handler, type) and issubclass(handler, Consumer):
        return handler()
    raise InvalidInput(
        f"{handler!r:.80} is no handler: pass a Consumer, its class, or a function with @job_handler above it"
    )
