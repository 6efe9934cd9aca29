"""Publishing from coroutines in a caller's transaction: on the caller's connection and event loop."""

from collections.abc import Iterable

from ...ports import PublishOutcome
from ..api.orchestrator import Orchestrator
from ..async_calls.bridge import call_in
from ..async_calls.threads import Threads
from ..publishing.messages import Work, confirmed_id, listed, messages_of, prepare, to_message
from ..publishing.publish_options import PublishOptions
from ..registration.registry import Registration


class AsyncTransactions:
    """Publishes in transactions of callers. What takes long, such as encoding, is done in a thread.

    Args:
        orchestrator: Where it publishes.
        threads: Where it encodes.
    """

    def __init__(self, orchestrator: Orchestrator, threads: Threads) -> None:
        self._orchestrator = orchestrator
        self._threads = threads

    async def publish(
        self,
        connection: object,
        registration: Registration,
        work: Work,
        options: PublishOptions,
    ) -> str:
        """Publish one job; as :meth:`Orchestrator.publish`."""
        orchestrator, name = self._orchestrator, registration.queue.name
        max_bytes, clock = orchestrator.max_body_bytes, orchestrator.clock
        with orchestrator.observed(name, 1) as headers:
            message = await call_in(
                self._threads, to_message, registration, work, options, headers, max_bytes, clock
            )
            outcomes = await orchestrator.backend.publish_in_async(connection, name, [message])
        return confirmed_id(name, outcomes[0], orchestrator.backend)

    async def publish_batch(
        self,
        connection: object,
        registration: Registration,
        works: Iterable[Work],
        options: PublishOptions,
    ) -> list[PublishOutcome]:
        """Publish many jobs; as :meth:`Orchestrator.publish_batch`."""
        orchestrator, name = self._orchestrator, registration.queue.name
        max_bytes, clock = orchestrator.max_body_bytes, orchestrator.clock
        jobs = await call_in(self._threads, listed, works)
        with orchestrator.observed(name, len(jobs)) as headers:
            prepared = await call_in(
                self._threads, prepare, registration, jobs, options, headers, max_bytes, clock
            )
            outcomes: list[PublishOutcome] = []
            if messages := messages_of(prepared):
                outcomes = await orchestrator.backend.publish_in_async(connection, name, messages)
        return orchestrator.whole_batch(name, prepared, outcomes)
