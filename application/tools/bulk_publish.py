"""Publishing a stream of JSON lines, a batch at a time."""

from collections import Counter
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from itertools import islice
from typing import Any, NamedTuple

from ...domain.errors import BackendUnavailable, InvalidInput, JobsError
from ...domain.json_guard import parse_object
from ...ports import PublishOutcome, PublishStatus
from ..api.orchestrator import Orchestrator
from ..publishing.publish_options import NO_OPTIONS, PublishOptions

_BATCH = 500
_SHOWN = 20


class RejectedLine(NamedTuple):
    """A line that isn't in the queue, or may not be."""

    number: int
    """From 1."""
    status: PublishStatus
    error: str


@dataclass(slots=True)
class BulkPublishReport:
    """What became of the lines so far."""

    counts: Counter[PublishStatus] = field(default_factory=Counter)
    standing: int = 0
    """How many of the duplicates are of a unique schema, and have another job in their place."""
    bad: list[RejectedLine] = field(default_factory=list)
    """The first 20 that were rejected or are unknown."""

    @property
    def lines(self) -> int:
        """How many lines held something."""
        return self.counts.total()

    @property
    def published(self) -> int:
        """How many were put into the queue."""
        return self.counts[PublishStatus.ACCEPTED]

    @property
    def is_whole(self) -> bool:
        """Whether each line is in the queue, put there now or before, or has another in its place."""
        return self.published + self.counts[PublishStatus.DUPLICATE] == self.lines

    def note(
        self, number: int, status: PublishStatus, error: JobsError | None, standing: str | None = None
    ) -> None:
        """Count one line."""
        self.counts[status] += 1
        self.standing += standing is not None
        if error is not None and len(self.bad) < _SHOWN:
            self.bad.append(RejectedLine(number, status, str(error)))


def bulk_publish(
    orchestrator: Orchestrator,
    queue: str,
    lines: Iterable[bytes],
    *,
    options: PublishOptions = NO_OPTIONS,
    on_batch: Callable[[BulkPublishReport], None] = lambda report: None,
) -> BulkPublishReport:
    """Publish each line, a JSON object, as the payload of a job; empty lines are passed over.

    A line that isn't an object, or doesn't fit the schema, is rejected with its number and costs no other.
    So are the lines of a batch that couldn't be sent, as the broker was away.

    Args:
        orchestrator: Where ``queue`` is registered.
        queue: Where the jobs go.
        lines: The lines, of which no more than a batch is in memory.
        options: What is said about all jobs, as of ``publish_batch``.
        on_batch: Called after each batch.
    """
    report = BulkPublishReport()
    numbered = ((number, line) for number, line in enumerate(lines, 1) if line.strip())
    while batch := list(islice(numbered, _BATCH)):
        payloads = dict(_payloads(batch, orchestrator.max_body_bytes, report))
        if payloads:
            jobs = list(payloads.values())
            try:
                outcomes = orchestrator.publish_batch_with(queue, jobs, options)
            except BackendUnavailable as error:  # nothing was sent
                outcomes = [PublishOutcome("", PublishStatus.REJECTED, error)] * len(jobs)
            for number, outcome in zip(payloads, outcomes, strict=True):
                report.note(number, outcome.status, outcome.error, outcome.standing)
        on_batch(report)
    return report


def _payloads(
    batch: list[tuple[int, bytes]], max_bytes: int, report: BulkPublishReport
) -> Iterator[tuple[int, dict[str, Any]]]:
    for number, line in batch:
        try:
            yield number, parse_object(line, max_bytes=max_bytes)
        except InvalidInput as error:
            report.note(number, PublishStatus.REJECTED, error)
