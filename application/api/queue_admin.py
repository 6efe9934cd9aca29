"""What an orchestrator does with queues as a whole: count and list them, empty them, treat dead letters."""

from collections.abc import Sequence

from ...domain import Progress, Queue
from ...domain.bounds import MAX_LISTED, check_int, check_job_ids
from ...domain.foreign_names import ForeignCalls
from ...ports import DeadLetter, QueueCounts
from ..cancelling.admin import CancelAdmin
from ..cancelling.requests import CancelRequests
from ..failures.failed_attempts import explained
from ..limits.admin import LimitAdmin
from ..limits.changes import delete_changes_of_queue
from ..limits.declarations import delete_declarations
from ..pausing.admin import PauseAdmin
from ..pausing.records import delete_pause
from ..registration.registry import QueueRef, SchemaRegistry, queue_name_of
from ..unique_jobs.records import forget, forget_queue, records_beside


class QueueAdmin(ForeignCalls, PauseAdmin, CancelAdmin, LimitAdmin):
    """The base of :class:`Orchestrator`: its methods for queues as a whole."""

    schema_registry: SchemaRegistry

    def count_queue_messages(self, queue_name: QueueRef) -> int:
        """Count the jobs that wait to be delivered: ready or delayed (CNT-1)."""
        return self.counts(queue_name).waiting

    def counts(self, queue_name: QueueRef) -> QueueCounts:
        """Count the jobs by state: ready, delayed, in flight, dead (CNT-1)."""
        return self.backend.counts(queue_name_of(queue_name))

    def queues(self) -> list[Queue]:
        """List the declared queues of the backend, by name.

        Raises:
            UnsupportedCapability: the backend can't list its queues, as on RabbitMQ.
        """
        return self.backend.queues()

    def progress(self, queue_name: QueueRef, job_ids: Sequence[str] | None = None) -> dict[str, Progress]:
        """Return the progress that running jobs reported, by id: of all jobs, or of those named."""
        return self.backend.progress(queue_name_of(queue_name), check_job_ids(job_ids))

    def clean_queue(self, queue_name: QueueRef) -> int:
        """Drop every ready or delayed job, and return how many there were (ADM-2)."""
        name = queue_name_of(queue_name)
        records = records_beside(self.backend, name)  # first: a job of later keeps its key
        purged = self.backend.purge(name)
        if records:
            forget(self.backend.coordination, records)
        return purged

    def delete_queue(self, queue_name: QueueRef) -> None:
        """Remove the queue with all that is of it: jobs, results, registration, pause, keys, cancels (ADM-3).

        What its limits were changed to is forgotten, too, if they have no name. Its schedules stay, as do the
        places and turns that its limits have given: they end with their times.
        """
        name = queue_name_of(queue_name)
        self.backend.idle_consumers.close(name)
        self.backend.delete(name)
        self.schema_registry.drop(name)
        if self.backend.capabilities.coordination:  # or they would count for a queue declared under this name
            delete_pause(self.backend.coordination, name)
            delete_declarations(self.backend.coordination, name)
            delete_changes_of_queue(self.backend.coordination, name)
            if not self.backend.capabilities.cancel:
                CancelRequests(self.backend.coordination, name).forget_all()
            forget_queue(self.backend.coordination, name)

    def dead_letters(
        self, queue_name: QueueRef, *, limit: int | None = None, offset: int = 0
    ) -> list[DeadLetter]:
        """List dead jobs, oldest first, and change nothing (DLQ-1).

        Args:
            queue_name: The queue: its name or its schema.
            limit: The most that are listed; None lists all. Each letter holds its payload, so where many are
                dead, list some at a time, by ``limit`` and ``offset``.
            offset: How many of the oldest to leave out.
        """
        limit = MAX_LISTED if limit is None else check_int("limit", limit, 0, MAX_LISTED)
        check_int("offset", offset, 0, MAX_LISTED)
        letters = self.backend.dead_letters(queue_name_of(queue_name), limit=limit, offset=offset)
        return list(map(explained, letters))

    def redrive(self, queue_name: QueueRef, job_ids: Sequence[str] | None = None) -> int:
        """Make dead jobs ready again, all or those named, and return how many (DLQ-2).

        Their attempts and crashes are counted from the start again, and their history is forgotten.

        Raises:
            BackendUnavailable: the answer didn't come, and some may have been redriven. Call again: that
                redrives those that are still dead, and counts only these. On RabbitMQ a job may be both ready
                and dead; the message then says what to do.
        """
        return self.backend.redrive(queue_name_of(queue_name), check_job_ids(job_ids))

    def discard(self, queue_name: QueueRef, job_ids: Sequence[str] | None = None) -> int:
        """Delete dead jobs, all or those named, and return how many (DLQ-3).

        Raises:
            BackendUnavailable: the answer didn't come, and some may have been deleted. Call again: that
                deletes those that are left, and counts only these.
        """
        return self.backend.discard(queue_name_of(queue_name), check_job_ids(job_ids))
