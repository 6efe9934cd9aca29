"""What is done with queues as a whole, from coroutines: as those of ``Orchestrator``, awaited."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Sequence
from typing import Concatenate, ParamSpec, TypeVar

from ...domain import Progress, Queue
from ...ports import CancelOutcome, DeadLetter, QueueCounts
from ..api.orchestrator import Orchestrator
from ..limits.changes import LimitChange
from ..limits.overview import LimitUse, RateUse
from ..pausing.records import Pause
from ..registration.registry import QueueRef

P = ParamSpec("P")
AnswerT = TypeVar("AnswerT")


class AsyncQueueAdmin(ABC):
    """A base of :class:`AsyncOrchestrator`: its methods for queues as a whole."""

    @abstractmethod
    async def _call(
        self,
        method: Callable[Concatenate[Orchestrator, P], AnswerT],
        *arguments: P.args,
        **options: P.kwargs,
    ) -> AnswerT:
        """Call a method of the orchestrator in a thread."""

    # -- jobs -------------------------------------------------------------------------------------

    async def count_queue_messages(self, queue_name: QueueRef) -> int:
        """Count the jobs that wait to be delivered: ready or delayed (CNT-1)."""
        return await self._call(Orchestrator.count_queue_messages, queue_name)

    async def counts(self, queue_name: QueueRef) -> QueueCounts:
        """Count the jobs by state: ready, delayed, in flight, dead (CNT-1)."""
        return await self._call(Orchestrator.counts, queue_name)

    async def queues(self) -> list[Queue]:
        """List the declared queues of the backend, by name; see :meth:`Orchestrator.queues`."""
        return await self._call(Orchestrator.queues)

    async def progress(
        self, queue_name: QueueRef, job_ids: Sequence[str] | None = None
    ) -> dict[str, Progress]:
        """Return the progress that running jobs reported, by id: of all jobs, or of those named."""
        return await self._call(Orchestrator.progress, queue_name, job_ids)

    async def clean_queue(self, queue_name: QueueRef) -> int:
        """Drop every ready or delayed job, and return how many there were (ADM-2)."""
        return await self._call(Orchestrator.clean_queue, queue_name)

    async def delete_queue(self, queue_name: QueueRef) -> None:
        """Remove the queue with its jobs, dead letters, results and registration (ADM-3)."""
        await self._call(Orchestrator.delete_queue, queue_name)

    async def dead_letters(
        self, queue_name: QueueRef, *, limit: int | None = None, offset: int = 0
    ) -> list[DeadLetter]:
        """List dead jobs, oldest first, or at most ``limit`` of them, and change nothing (DLQ-1)."""
        return await self._call(Orchestrator.dead_letters, queue_name, limit=limit, offset=offset)

    async def redrive(self, queue_name: QueueRef, job_ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again, all or those named, and return how many (DLQ-2)."""
        return await self._call(Orchestrator.redrive, queue_name, job_ids)

    async def discard(self, queue_name: QueueRef, job_ids: Sequence[str] | None = None) -> int:
        """Delete dead jobs, all or those named, and return how many (DLQ-3)."""
        return await self._call(Orchestrator.discard, queue_name, job_ids)

    async def cancel(self, queue_name: QueueRef, job_id: str) -> CancelOutcome:
        """Cancel a job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return await self._call(Orchestrator.cancel, queue_name, job_id)

    async def cancel_batch(self, queue_name: QueueRef, job_ids: Iterable[str]) -> list[CancelOutcome]:
        """Cancel jobs, and return one outcome for each, in the same order (CAN-1 to CAN-4)."""
        return await self._call(Orchestrator.cancel_batch, queue_name, list(job_ids))

    # -- pauses and limits ------------------------------------------------------------------------

    async def pause(self, queue_name: QueueRef, reason: str | None = None) -> Pause:
        """Pause a queue: within a second no consumer starts another job; see :meth:`Orchestrator.pause`."""
        return await self._call(Orchestrator.pause, queue_name, reason)

    async def resume(self, queue_name: QueueRef) -> bool:
        """Let the consumers of a queue go on, within a second; return whether it was paused."""
        return await self._call(Orchestrator.resume, queue_name)

    async def paused(self, queue_name: QueueRef) -> Pause | None:
        """Say since when a queue is paused, and why; None if it isn't."""
        return await self._call(Orchestrator.paused, queue_name)

    async def limits(self, *, busiest: int = 10) -> list[LimitUse | RateUse]:
        """Return the limits and rates of the namespace, and their use; see :meth:`Orchestrator.limits`."""
        return await self._call(Orchestrator.limits, busiest=busiest)

    async def change_limit(self, name: str, count: int) -> LimitChange:
        """Let ``count`` jobs of a limit run at once; see :meth:`Orchestrator.change_limit`."""
        return await self._call(Orchestrator.change_limit, name, count)

    async def change_rate(
        self, name: str, count: int, *, per_s: float | None = None, burst: int | None = None
    ) -> LimitChange:
        """Let ``count`` jobs of a rate start in ``per_s`` seconds; see :meth:`Orchestrator.change_rate`."""
        return await self._call(Orchestrator.change_rate, name, count, per_s=per_s, burst=burst)

    async def reset_limit(self, name: str) -> bool:
        """Let as many jobs of a limit run at once as the code declares; return whether it was changed."""
        return await self._call(Orchestrator.reset_limit, name)

    async def reset_rate(self, name: str) -> bool:
        """Let jobs of a rate start as fast as the code declares; return whether it was changed."""
        return await self._call(Orchestrator.reset_rate, name)
