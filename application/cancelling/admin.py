"""What an orchestrator does to cancel jobs."""

import logging
from collections.abc import Iterable

from ...domain.bounds import check_name
from ...domain.errors import InvalidInput, JobsError
from ...ports import CancelOutcome, JobResult, OrchestratorBackend
from ...ports.base_classes import Closeable
from ...ports.cancelling import outcome_of_ended
from ..registration.registry import QueueRef, SchemaRegistry
from .announcements import announce
from .requests import CancelRequests


class CancelAdmin(Closeable):
    """A base of :class:`Orchestrator`: its methods that cancel jobs."""

    backend: OrchestratorBackend
    schema_registry: SchemaRegistry
    logger: logging.Logger

    def cancel(self, queue_name: QueueRef, job_id: str) -> CancelOutcome:
        """Cancel a job, whether it waits or runs; see :meth:`cancel_batch`."""
        return self.cancel_batch(queue_name, [job_id])[0]

    def cancel_batch(self, queue_name: QueueRef, job_ids: Iterable[str]) -> list[CancelOutcome]:
        """Cancel jobs, and return one outcome for each, in the same order (CAN-1 to CAN-4).

        A job that waits (ready, delayed, or for a retry) is gone at once; on RabbitMQ, which needs a
        coordination store for this, it is dropped when its turn comes. The consumer of a running job
        learns of it within about a second, or else with the next extension of its leases: an ``async def``
        handler is cancelled at its ``await``, a plain one sees :attr:`Consumer.cancelled`. However it ends
        then, but by returning, it isn't retried and is no dead letter. ``result`` of a cancelled job raises
        ``JobCancelled``.

        Returns:
            ``CANCELLED``, also if it was cancelled before; ``REQUESTED``: it runs, and is asked to end (on
            RabbitMQ it may also wait, or not be known); ``TOO_LATE``: it is done or dead; ``UNKNOWN``: never
            published here, or forgotten.

        Raises:
            UnsupportedCapability: the backend can't cancel jobs, as RabbitMQ without a coordination store.
            QueueNotFound: nothing was registered under this name, or the queue isn't declared.
            InvalidName: an id breaks the rule for names.
        """
        registration = self.schema_registry.for_reading(queue_name)
        if isinstance(job_ids, str):
            raise InvalidInput(f"job_ids {job_ids!r:.80}: pass a list of ids, or call cancel() for one job")
        ids = [check_name("job id", job_id) for job_id in job_ids]
        queue, ttl_s = registration.queue.name, registration.schema.result_ttl_s
        if self.backend.capabilities.coordination and not self.backend.capabilities.cancel:
            return self._ask_in_store(queue, ids)
        self.backend.capabilities.require_cancel()
        outcomes = self.backend.cancel(queue, ids, result_ttl_s=ttl_s)
        if CancelOutcome.REQUESTED in outcomes and self.backend.capabilities.coordination:
            try:
                announce(self.backend.coordination, queue)
            except JobsError as error:  # the consumers learn of it with the next extension
                self.logger.debug("consumers of %s aren't told at once: %s", queue, error)
        return outcomes

    def _ask_in_store(self, queue: str, ids: list[str]) -> list[CancelOutcome]:
        """Ask in the coordination store, as the broker itself can't be asked (ADR 80)."""
        self.backend.counts(queue)  # which says if there is no such queue
        ended = self._ends_of(queue, ids)
        asked = [id_ for id_ in ids if id_ not in ended]
        if asked:
            requests = CancelRequests(self.backend.coordination, queue)
            requests.ask(asked)
            late = self._ends_of(queue, asked)  # those that ended meanwhile, whom nobody will meet
            requests.forget(late)
            ended |= late
        return [outcome_of_ended(ended[id_]) if id_ in ended else CancelOutcome.REQUESTED for id_ in ids]

    def _ends_of(self, queue: str, ids: list[str]) -> dict[str, JobResult]:
        return self.backend.results(queue, ids) if self.backend.capabilities.results else {}
