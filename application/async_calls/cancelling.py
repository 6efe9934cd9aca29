"""Cancelling jobs for coroutines."""

from collections.abc import Iterable

from ...ports import CancelOutcome
from ..orchestrator import Orchestrator
from ..registry import QueueRef
from .pauses import AsyncPauseAdmin


class AsyncCancelAdmin(AsyncPauseAdmin):
    """A base of :class:`AsyncOrchestrator`: its methods that cancel jobs."""

    async def cancel(self, queue_name: QueueRef, job_id: str) -> CancelOutcome:
        """Cancel a job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return await self._call(Orchestrator.cancel, queue_name, job_id)

    async def cancel_batch(self, queue_name: QueueRef, job_ids: Iterable[str]) -> list[CancelOutcome]:
        """Cancel jobs, and return one outcome for each, in the same order (CAN-1 to CAN-4)."""
        return await self._call(Orchestrator.cancel_batch, queue_name, list(job_ids))
