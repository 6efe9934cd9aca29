"""What users call for one queue from coroutines: ``AsyncJobQueue`` and ``AsyncJobHandle``."""

from collections.abc import Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic

from ..domain import Job, JobSchema, Progress
from ..domain.foreign_names import ForeignCalls
from ..ports import AsyncTransaction, CancelOutcome, DeadLetter, JobStatus, PublishOutcome, QueueCounts
from .job_queue import InT, OutT
from .pausing.records import Pause

if TYPE_CHECKING:
    from .async_orchestrator import AsyncOrchestrator
    from .registry import QueueRef


class AsyncJobHandle(Generic[OutT]):
    """A published job: its id, and what becomes of it.

    Made by :meth:`AsyncJobQueue.publish` and :meth:`AsyncJobQueue.handle`.
    """

    def __init__(self, queue: "AsyncJobQueue[Any, OutT]", job_id: str) -> None:
        self._queue = queue
        self.id = job_id
        """The job's id (PUB-2)."""

    async def result(self, *, timeout_s: float = 0.0) -> OutT | None:
        """Return what the handler returned; see :meth:`AsyncOrchestrator.result` for the errors."""
        return await self._queue.result(self.id, timeout_s=timeout_s)

    async def status(self) -> JobStatus:
        """Say where the job is; see :meth:`Orchestrator.status`."""
        return await self._queue.status(self.id)

    async def cancel(self) -> CancelOutcome:
        """Cancel the job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return await self._queue.cancel(self.id)

    async def progress(self) -> Progress | None:
        """Say how far the job has come; None if it doesn't run now, or hasn't reported it."""
        return (await self._queue.progress([self.id])).get(self.id)

    def __repr__(self) -> str:
        return f"AsyncJobHandle({self._queue.name!r}, {self.id!r})"


class AsyncJobQueue(ForeignCalls, Generic[InT, OutT]):
    """A queue, typed by the schema of its jobs. Event loops may share it.

    Made by :meth:`AsyncOrchestrator.queue`. Each method does what the orchestrator's method of the same name
    does, and raises the same errors.
    """

    def __init__(self, orchestrator: "AsyncOrchestrator", schema: JobSchema[InT, OutT], name: str) -> None:
        self._orchestrator = orchestrator
        self.schema = schema
        self.name = name
        """The queue's name."""
        # By the schema, its models are compared with those that are registered.
        self._ref: QueueRef = schema if name == schema.name else name

    async def publish(
        self,
        job: InT | Job[InT] | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> AsyncJobHandle[OutT]:
        """Publish one job, and return its handle once the broker has confirmed it (PUB-1).

        If the schema is ``unique`` and another job holds this one's key, the handle is that job's.

        Args:
            job: An instance of the schema's input model, a dict that validates as one, or a job.
            priority: 0 to 9, higher first, on a priority queue.
            delay_s: Seconds before the job may run, by the broker's clock.
            connection: Your connection, in whose transaction the job is published (PUB-7); see
                :meth:`Orchestrator.publish`.
        """
        published = await self._orchestrator.publish(
            self._ref, job, priority=priority, delay_s=delay_s, connection=connection
        )
        return self.handle(published)

    async def publish_batch(
        self,
        jobs: Iterable[InT | Job[InT] | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: AsyncTransaction | None = None,
    ) -> list[PublishOutcome]:
        """Publish many jobs in order, and return one outcome for each, in the same order (PUB-4)."""
        return await self._orchestrator.publish_batch(
            self._ref, jobs, priority=priority, delay_s=delay_s, connection=connection
        )

    async def job(self, data: InT | Mapping[str, Any], *, id: str | None = None) -> Job[InT]:  # noqa: A002
        """Make a job without publishing it, for example to choose its ``id``."""
        return await self._orchestrator.job(self._ref, data, id=id)

    def handle(self, job_id: str) -> AsyncJobHandle[OutT]:
        """Return the handle of a job by its id, for example in another process than the publisher's."""
        return AsyncJobHandle(self, job_id)

    async def result(self, job_id: str, *, timeout_s: float = 0.0) -> OutT | None:
        """Return what the handler of a job returned; see :meth:`AsyncOrchestrator.result` for the errors."""
        result: OutT | None = await self._orchestrator.result(self._ref, job_id, timeout_s=timeout_s)
        return result

    async def status(self, job_id: str) -> JobStatus:
        """Say where a job is: waiting, running, done, failed, cancelled, or not known."""
        return await self._orchestrator.status(self._ref, job_id)

    async def cancel(self, job_id: str) -> CancelOutcome:
        """Cancel a job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return await self._orchestrator.cancel(self._ref, job_id)

    async def cancel_batch(self, job_ids: Iterable[str]) -> list[CancelOutcome]:
        """Cancel jobs, and return one outcome for each, in the same order (CAN-1 to CAN-4)."""
        return await self._orchestrator.cancel_batch(self._ref, job_ids)

    async def receive(self) -> Job[InT] | None:
        """Take one job off the queue without waiting; see :meth:`Orchestrator.receive_message`."""
        job: Job[InT] | None = await self._orchestrator.receive_message(self._ref)
        return job

    async def counts(self) -> QueueCounts:
        """Count the jobs by state: ready, delayed, in flight, dead (CNT-1)."""
        return await self._orchestrator.counts(self._ref)

    async def progress(self, job_ids: Sequence[str] | None = None) -> dict[str, Progress]:
        """Say how far the running jobs have come, by id: all, or those named."""
        return await self._orchestrator.progress(self._ref, job_ids)

    async def pause(self, reason: str | None = None) -> Pause:
        """Pause the queue: within a second no consumer starts another job; see :meth:`Orchestrator.pause`."""
        return await self._orchestrator.pause(self._ref, reason)

    async def resume(self) -> bool:
        """Let the consumers go on, within a second; return whether the queue was paused."""
        return await self._orchestrator.resume(self._ref)

    async def paused(self) -> Pause | None:
        """Say since when the queue is paused, and why; None if it isn't."""
        return await self._orchestrator.paused(self._ref)

    async def clean(self) -> int:
        """Drop every waiting job, ready or delayed, and return how many (ADM-2)."""
        return await self._orchestrator.clean_queue(self._ref)

    async def delete(self) -> None:
        """Remove the queue with its jobs, dead letters, results and registration (ADM-3)."""
        await self._orchestrator.delete_queue(self._ref)

    async def dead_letters(self, *, limit: int | None = None, offset: int = 0) -> list[DeadLetter]:
        """List the dead jobs, oldest first (DLQ-1)."""
        return await self._orchestrator.dead_letters(self._ref, limit=limit, offset=offset)

    async def redrive(self, job_ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again with fresh budgets: all, or those named; return how many (DLQ-2)."""
        return await self._orchestrator.redrive(self._ref, job_ids)

    async def discard(self, job_ids: Sequence[str] | None = None) -> int:
        """Drop dead jobs for good: all, or those named; return how many (DLQ-3)."""
        return await self._orchestrator.discard(self._ref, job_ids)

    def __repr__(self) -> str:
        return f"AsyncJobQueue({self.name!r}, {self.schema.input.__name__} -> {self.schema.output.__name__})"
