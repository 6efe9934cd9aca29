"""What users call for one queue: ``JobQueue`` and ``JobHandle``.

Generated from ``api_async/async_job_queue.py`` by ``make format``.
"""

from collections.abc import Iterable, Mapping, Sequence
from datetime import datetime
from typing import TYPE_CHECKING, Any, Generic

from ...domain import Job, JobSchema, Progress
from ...domain.foreign_names import ForeignCalls
from ...domain.model_types import InT, OutCo, OutT
from ...ports import CancelOutcome, DeadLetter, JobStatus, PublishOutcome, QueueCounts, Transaction
from ..pausing.records import Pause
from ..publishing.publish_options import publish_options
from .handles import Handle

if TYPE_CHECKING:
    from ..registration.registry import QueueRef
    from .orchestrator import Orchestrator


class JobHandle(Handle[OutCo]):
    """A published job: its id, and what becomes of it.

    Made by :meth:`JobQueue.publish` and :meth:`JobQueue.handle`.
    """

    __slots__ = ()

    queue: "JobQueue[Any, OutCo]"

    def result(self, *, timeout_s: float = 0.0) -> OutCo | None:
        """Return what the handler returned; see :meth:`Orchestrator.result` for the errors.

        Of a handle that :meth:`Orchestrator.as_completed` has yielded, this asks nobody: it knows the
        result.
        """
        if (known := self.known_result()) is not None:
            result: OutCo | None = known.get()
            return result
        return self.queue.result(self.id, timeout_s=timeout_s)

    def status(self) -> JobStatus:
        """Say where the job is; see :meth:`Orchestrator.status`."""
        return self.queue.status(self.published_id())

    def cancel(self) -> CancelOutcome:
        """Cancel the job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return self.queue.cancel(self.published_id())

    def progress(self) -> Progress | None:
        """Say how far the job has come; None if it doesn't run now, or hasn't reported it."""
        found = self.queue.progress([self.published_id()])
        return found.get(self.id)


class PublishedJob(JobHandle[OutCo]):
    """The handle of a job of :meth:`Orchestrator.publish_batch`, with the broker's answer.

    If the schema is ``unique`` and another job holds this one's key, the handle is that job's. If the job was
    rejected, each method raises the error of the outcome.
    """

    __slots__ = ()

    _outcome: PublishOutcome

    @property
    def outcome(self) -> PublishOutcome:
        """What became of the publish: ``ACCEPTED``, ``DUPLICATE``, ``REJECTED`` or ``UNKNOWN`` (PUB-4)."""
        return self._outcome


class JobQueue(ForeignCalls, Generic[InT, OutT]):
    """A queue, typed by the schema of its jobs. Threads may share it.

    Made by :meth:`Orchestrator.queue`. Each method does what the orchestrator's method of the same name
    does, and raises the same errors.
    """

    def __init__(self, orchestrator: "Orchestrator", schema: JobSchema[InT, OutT], name: str) -> None:
        self.orchestrator = orchestrator
        self.schema = schema
        self.name = name
        """The queue's name."""
        # By the schema, its models are compared with those that are registered.
        self.ref: QueueRef = schema if name == schema.name else name

    def publish(
        self,
        job: InT | Job[InT] | Mapping[str, Any],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> JobHandle[OutT]:
        """Publish one job, and return its handle once the broker has confirmed it (PUB-1).

        If the schema is ``unique`` and another job holds this one's key, the handle is that job's.

        Args:
            job: An instance of the schema's input model, a dict that validates as one, or a job.
            priority: 0 to 9, higher first, on a priority queue.
            delay_s: Seconds before the job may run, by the broker's clock.
            not_before: When it may run, in place of ``delay_s``: a datetime with a time zone.
            expires_s: Seconds for which it may wait from then on; see :meth:`Orchestrator.publish`.
            timeout_s: For how many seconds its handler may run, whatever its schema and its consumer say.
            connection: Your connection, in whose transaction the job is published (PUB-7); see
                :meth:`Orchestrator.publish`.
        """
        options = publish_options(priority, delay_s, not_before, expires_s, timeout_s)
        return self.handle(self.orchestrator.publish_with(self.ref, job, options, connection))

    def publish_batch(
        self,
        jobs: Iterable[InT | Job[InT] | Mapping[str, Any]],
        *,
        priority: int | None = None,
        delay_s: float | None = None,
        not_before: datetime | None = None,
        expires_s: float | None = None,
        timeout_s: float | None = None,
        connection: Transaction | None = None,
    ) -> list[PublishedJob[OutT]]:
        """Publish many jobs in order, and return a handle for each, in the same order (PUB-4).

        See :meth:`Orchestrator.publish_batch`.
        """
        options = publish_options(priority, delay_s, not_before, expires_s, timeout_s)
        return self.handles(self.orchestrator.publish_batch_with(self.ref, jobs, options, connection))

    def job(self, data: InT | Mapping[str, Any], *, id: str | None = None) -> Job[InT]:  # noqa: A002
        """Make a job without publishing it, for example to choose its ``id``."""
        return self.orchestrator.job(self.ref, data, id=id)

    def handle(self, job_id: str) -> JobHandle[OutT]:
        """Return the handle of a job by its id, for example in another process than the publisher's."""
        return JobHandle(self, job_id)

    def handles(self, outcomes: Iterable[PublishOutcome]) -> list[PublishedJob[OutT]]:
        """Return the handles of jobs that were published here."""
        return [PublishedJob(self, outcome.standing or outcome.id, outcome) for outcome in outcomes]

    def result(self, job_id: str, *, timeout_s: float = 0.0) -> OutT | None:
        """Return what the handler of a job returned; see :meth:`Orchestrator.result` for the errors."""
        result: OutT | None = self.orchestrator.result(self.ref, job_id, timeout_s=timeout_s)
        return result

    def status(self, job_id: str) -> JobStatus:
        """Say where a job is: waiting, running, done, failed, cancelled, or not known."""
        return self.orchestrator.status(self.ref, job_id)

    def cancel(self, job_id: str) -> CancelOutcome:
        """Cancel a job, whether it waits or runs; see :meth:`Orchestrator.cancel_batch`."""
        return self.orchestrator.cancel(self.ref, job_id)

    def cancel_batch(self, job_ids: Iterable[str]) -> list[CancelOutcome]:
        """Cancel jobs, and return one outcome for each, in the same order (CAN-1 to CAN-4)."""
        return self.orchestrator.cancel_batch(self.ref, job_ids)

    def receive(self) -> Job[InT] | None:
        """Take one job off the queue without waiting; see :meth:`Orchestrator.receive_message`."""
        job: Job[InT] | None = self.orchestrator.receive_message(self.ref)
        return job

    def counts(self) -> QueueCounts:
        """Count the jobs by state: ready, delayed, in flight, dead (CNT-1)."""
        return self.orchestrator.counts(self.ref)

    def progress(self, job_ids: Sequence[str] | None = None) -> dict[str, Progress]:
        """Say how far the running jobs have come, by id: all, or those named."""
        return self.orchestrator.progress(self.ref, job_ids)

    def pause(self, reason: str | None = None) -> Pause:
        """Pause the queue: within a second no consumer starts another job; see :meth:`Orchestrator.pause`."""
        return self.orchestrator.pause(self.ref, reason)

    def resume(self) -> bool:
        """Let the consumers go on, within a second; return whether the queue was paused."""
        return self.orchestrator.resume(self.ref)

    def paused(self) -> Pause | None:
        """Say since when the queue is paused, and why; None if it isn't."""
        return self.orchestrator.paused(self.ref)

    def clean(self) -> int:
        """Drop every waiting job, ready or delayed, and return how many (ADM-2)."""
        return self.orchestrator.clean_queue(self.ref)

    def delete(self) -> None:
        """Remove the queue with its jobs, dead letters, results and registration (ADM-3)."""
        self.orchestrator.delete_queue(self.ref)

    def dead_letters(self, *, limit: int | None = None, offset: int = 0) -> list[DeadLetter]:
        """List the dead jobs, oldest first, or at most ``limit`` of them (DLQ-1)."""
        return self.orchestrator.dead_letters(self.ref, limit=limit, offset=offset)

    def redrive(self, job_ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again with fresh budgets: all, or those named; return how many (DLQ-2)."""
        return self.orchestrator.redrive(self.ref, job_ids)

    def discard(self, job_ids: Sequence[str] | None = None) -> int:
        """Drop dead jobs for good: all, or those named; return how many (DLQ-3)."""
        return self.orchestrator.discard(self.ref, job_ids)

    def __repr__(self) -> str:
        return f"JobQueue({self.name!r}, {self.schema.input.__name__} -> {self.schema.output.__name__})"
