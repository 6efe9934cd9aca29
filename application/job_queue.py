"""One queue with its types: what it takes, and what its jobs give back."""

from collections.abc import Awaitable, Iterable, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Generic, NoReturn, TypeAlias, Union

from pydantic import BaseModel
from typing_extensions import TypeVar

from ..domain import Job, JobSchema, Progress
from ..domain.foreign_names import ForeignCalls
from ..domain.then import Then
from ..ports import CancelOutcome, DeadLetter, JobStatus, PublishOutcome, QueueCounts, Transaction
from .await_misuse import awaited
from .pausing.records import Pause

if TYPE_CHECKING:
    from .orchestrator import Orchestrator
    from .registry import QueueRef

InT = TypeVar("InT", bound=BaseModel, default=Any)
OutT = TypeVar("OutT", bound=BaseModel, default=Any)

Returned: TypeAlias = Union[OutT, Mapping[str, Any], Then[OutT], None]  # noqa: UP007
Answer: TypeAlias = Union[Returned[OutT], Awaitable[Returned[OutT]]]  # noqa: UP007
"""What a handler returns: an instance of the output model, a dict that validates as one, or None; or a
:class:`Then`, which names the next job as well."""


class JobHandle(Generic[OutT]):
    """A published job: its id, and what becomes of it.

    Made by :meth:`JobQueue.publish` and :meth:`JobQueue.handle`.
    """

    def __init__(self, queue: "JobQueue[Any, OutT]", job_id: str) -> None:
        self._queue = queue
        self.id = job_id
        """The job's id (PUB-2)."""

    def result(self, *, timeout_s: float = 0.0) -> OutT | None:
        """Return what the handler returned; see :meth:`Orchestrator.result` for the errors."""
        return self._queue.result(self.id, timeout_s=timeout_s)

    def status(self) -> JobStatus:
        """Say where the job is; see :meth:`Orchestrator.status`."""
        return self._queue.status(self.id)

    def cancel(self) -> CancelOutcome:
        """Cancel the job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return self._queue.cancel(self.id)

    def progress(self) -> Progress | None:
        """Say how far the job has come; None if it doesn't run now, or hasn't reported it."""
        return self._queue.progress([self.id]).get(self.id)

    def __repr__(self) -> str:
        return f"JobHandle({self._queue.name!r}, {self.id!r})"

    if not TYPE_CHECKING:  # which refuse to await it

        def __await__(self) -> NoReturn:
            raise awaited("publish", f"job {self.id}")


class JobQueue(ForeignCalls, Generic[InT, OutT]):
    """A queue, typed by the schema of its jobs. Safe to share between threads.

    Made by :meth:`Orchestrator.queue`. Each method does what the orchestrator's method of the same name does,
    and raises the same errors.
    """

    def __init__(self, orchestrator: "Orchestrator", schema: JobSchema[InT, OutT], name: str) -> None:
        self._orchestrator = orchestrator
        self.schema = schema
        self.name = name
        """The queue's name."""
        # By the schema, its models are compared with those that are registered.
        self._ref: QueueRef = schema if name == schema.name else name

    def publish(
        self,
        job: InT | Job[InT] | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: Transaction | None = None,
    ) -> JobHandle[OutT]:
        """Publish one job, and return its handle once the broker has confirmed it (PUB-1).

        If the schema is ``unique`` and another job holds this one's key, the handle is that job's.

        Args:
            job: An instance of the schema's input model, a dict that validates as one, or a job.
            priority: 0 to 9, higher first, on a priority queue.
            delay_s: Seconds before the job may run, by the broker's clock.
            connection: Your connection, in whose transaction the job is published (PUB-7); see
                :meth:`Orchestrator.publish`.
        """
        return self.handle(
            self._orchestrator.publish(
                self._ref, job, priority=priority, delay_s=delay_s, connection=connection
            )
        )

    def publish_batch(
        self,
        jobs: Iterable[InT | Job[InT] | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        connection: Transaction | None = None,
    ) -> list[PublishOutcome]:
        """Publish many jobs in order, and return one outcome for each, in the same order (PUB-4)."""
        return self._orchestrator.publish_batch(
            self._ref, jobs, priority=priority, delay_s=delay_s, connection=connection
        )

    def job(self, data: InT | Mapping[str, Any], *, id: str | None = None) -> Job[InT]:  # noqa: A002
        """Make a job without publishing it, for example to choose its ``id``."""
        return self._orchestrator.job(self._ref, data, id=id)

    def handle(self, job_id: str) -> JobHandle[OutT]:
        """Return the handle of a job by its id, for example in another process than the publisher's."""
        return JobHandle(self, job_id)

    def result(self, job_id: str, *, timeout_s: float = 0.0) -> OutT | None:
        """Return what the handler of a job returned; see :meth:`Orchestrator.result` for the errors."""
        result: OutT | None = self._orchestrator.result(self._ref, job_id, timeout_s=timeout_s)
        return result

    def status(self, job_id: str) -> JobStatus:
        """Say where a job is: waiting, running, done, failed, cancelled, or not known."""
        return self._orchestrator.status(self._ref, job_id)

    def cancel(self, job_id: str) -> CancelOutcome:
        """Cancel a job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return self._orchestrator.cancel(self._ref, job_id)

    def cancel_batch(self, job_ids: Iterable[str]) -> list[CancelOutcome]:
        """Cancel jobs, and return one outcome for each, in the same order (CAN-1 to CAN-4)."""
        return self._orchestrator.cancel_batch(self._ref, job_ids)

    def receive(self) -> Job[InT] | None:
        """Take one job off the queue without waiting; see :meth:`Orchestrator.receive_message`."""
        job: Job[InT] | None = self._orchestrator.receive_message(self._ref)
        return job

    def counts(self) -> QueueCounts:
        """Count the jobs by state: ready, delayed, in flight, dead (CNT-1)."""
        return self._orchestrator.counts(self._ref)

    def progress(self, job_ids: Sequence[str] | None = None) -> dict[str, Progress]:
        """Say how far the running jobs have come, by id: all, or those named."""
        return self._orchestrator.progress(self._ref, job_ids)

    def pause(self, reason: str | None = None) -> Pause:
        """Pause the queue: within a second no consumer starts another job; see :meth:`Orchestrator.pause`."""
        return self._orchestrator.pause(self._ref, reason)

    def resume(self) -> bool:
        """Let the consumers go on, within a second; return whether the queue was paused."""
        return self._orchestrator.resume(self._ref)

    def paused(self) -> Pause | None:
        """Say since when the queue is paused, and why; None if it isn't."""
        return self._orchestrator.paused(self._ref)

    def clean(self) -> int:
        """Drop every waiting job, ready or delayed, and return how many (ADM-2)."""
        return self._orchestrator.clean_queue(self._ref)

    def delete(self) -> None:
        """Remove the queue with its jobs, dead letters, results and registration (ADM-3)."""
        self._orchestrator.delete_queue(self._ref)

    def dead_letters(self, *, limit: int | None = None, offset: int = 0) -> list[DeadLetter]:
        """List the dead jobs, oldest first, or at most ``limit`` of them (DLQ-1)."""
        return self._orchestrator.dead_letters(self._ref, limit=limit, offset=offset)

    def redrive(self, job_ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again with fresh budgets: all, or those named; return how many (DLQ-2)."""
        return self._orchestrator.redrive(self._ref, job_ids)

    def discard(self, job_ids: Sequence[str] | None = None) -> int:
        """Drop dead jobs for good: all, or those named; return how many (DLQ-3)."""
        return self._orchestrator.discard(self._ref, job_ids)

    def __repr__(self) -> str:
        return f"JobQueue({self.name!r}, {self.schema.input.__name__} -> {self.schema.output.__name__})"
