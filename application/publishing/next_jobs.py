"""From what a handler returns to the jobs that its ack publishes."""

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...domain import Job, JobSchema, job_from_schema
from ...domain.errors import (
    BodyTooLarge,
    InvalidInput,
    QueueConflict,
    QueueNotFound,
    SchemaConflict,
    UnsupportedCapability,
)
from ...domain.then import NextJob, Then
from ...ports import Next
from .messages import to_message

if TYPE_CHECKING:
    from ..orchestrator import Orchestrator

MAX_NEXT_JOBS = 1000
"""The most next jobs of one job."""
_MAX_BYTES = 16 * 1024 * 1024
"""The most bytes of their bodies: a broker takes them in one step."""


def next_jobs(orchestrator: "Orchestrator", job: Job[Any], then: Then[Any]) -> tuple[Next, ...]:
    """Validate the next jobs of ``job``, and return what its ack is to publish.

    Raises:
        QueueNotFound: a queue that was named isn't registered with the orchestrator.
        QueueConflict: a queue exists with another type than its schema says.
        InvalidInput: a payload, an id, a priority or a delay is refused, or there are too many next jobs.
        UnsupportedCapability: the backend's acks publish nothing, or a schema is unique.
        BackendUnavailable: a queue is yet to be declared, and the broker is away.
    """
    orchestrator.backend.capabilities.require_then()
    if len(then.jobs) > MAX_NEXT_JOBS:
        raise InvalidInput(f"{len(then.jobs):,} next jobs: a job may have {MAX_NEXT_JOBS:,}")
    made = tuple(_messages(orchestrator, job, then.jobs))
    size = sum(len(each.message.body) for each in made)
    if size > _MAX_BYTES:
        raise BodyTooLarge(f"next jobs of {size:,} bytes together: the limit is {_MAX_BYTES:,} bytes")
    return made


def _messages(orchestrator: "Orchestrator", job: Job[Any], following: tuple[NextJob, ...]) -> Iterator[Next]:
    for place, each in enumerate(following):
        try:
            yield _message(orchestrator, job, place, each)
        except (InvalidInput, QueueConflict, QueueNotFound, SchemaConflict, UnsupportedCapability) as error:
            name = each.queue or getattr(each.schema, "name", "…")
            raise type(error)(f"the next job, Then({name}): {error}") from error


def _message(orchestrator: "Orchestrator", job: Job[Any], place: int, following: NextJob) -> Next:
    schema, payload, delay_s, priority, id_, queue = following
    if not isinstance(schema, JobSchema):
        raise InvalidInput(f"{schema!r:.80}: pass its JobSchema first, as in Then(schema, payload)")
    registration = orchestrator.schema_registry.registered(schema if queue is None else queue)
    name = registration.queue.name
    if registration.schema.unique is not None:
        raise UnsupportedCapability(
            f"schema {schema.name!r} is unique, and an ack can't tell whether a next job is the only one: "
            "publish it in the handler, by job.orchestrator.publish"
        )
    made = job_from_schema(
        schema, payload, id=derived_id(job, name, place) if id_ is None else id_, priority=priority
    )
    with orchestrator.observed(name, 1) as headers:
        return Next(name, to_message(registration, made, None, delay_s, headers, orchestrator.max_body_bytes))


def derived_id(job: Job[Any], queue: str, place: int) -> str:
    """Return the id of a next job: the same whenever the handler of ``job`` runs again (ADR 77).

    It begins as the job's does, which is the time when that was made, so that indexes keep both together.
    Another job that is published under the same id has other next jobs.
    """
    from hashlib import blake2b  # here, as few jobs have a next one

    said = f"{job.schema_name}/{job.id}/{job.created_at.timestamp():.6f}/{queue}/{place}"
    return f"{job.id[:12]}-{blake2b(said.encode(), digest_size=10).hexdigest()}"
