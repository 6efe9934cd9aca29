"""From what a handler returns, or ``on_dead``, to the jobs that are published as its own ends."""

from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from functools import partial
from typing import Any, Protocol

from ...domain import Job, job_from_schema
from ...domain.errors import (
    BodyTooLarge,
    InvalidInput,
    QueueConflict,
    QueueNotFound,
    SchemaConflict,
    UnsupportedCapability,
)
from ...domain.then import NextJob, Then
from ...ports import Next, OrchestratorBackend
from ..broker.broker_clock import Clock
from ..registration.registry import SchemaRegistry
from .messages import to_message
from .publish_options import PublishOptions

MAX_NEXT_JOBS = 1000
"""The most next jobs of one job."""
_MAX_BYTES = 16 * 1024 * 1024
"""The most bytes of their bodies: a broker takes them in one step."""
_MakeId = Callable[[str, int], str]
"""Makes the id of a next job of the name of its queue and its place among the next jobs."""


class NextJobQueues(Protocol):
    """What next jobs are made with. An ``Orchestrator`` has it."""

    schema_registry: SchemaRegistry
    max_body_bytes: int

    @property
    def backend(self) -> OrchestratorBackend:
        """The backend that publishes them."""

    @property
    def clock(self) -> Clock:
        """The broker's clock."""

    def observed(self, queue: str, count: int) -> AbstractContextManager[Mapping[str, str]]:
        """Return a context in which so many jobs are published; it yields headers to add to each."""


def next_jobs(orchestrator: NextJobQueues, job: Job[Any], then: Then[Any]) -> tuple[Next, ...]:
    """Validate the next jobs of ``job``, and return what its ack is to publish.

    Raises:
        QueueNotFound: a queue that was named isn't registered with the orchestrator.
        QueueConflict: a queue exists with another type than its schema says.
        InvalidInput: a payload, an id, a priority or a delay is refused, or there are too many next jobs.
        UnsupportedCapability: the backend's acks publish nothing, or a schema is unique.
        BackendUnavailable: a queue is yet to be declared, and the broker is away.
    """
    return _next_jobs(orchestrator, then, partial(derived_id, job))


def next_jobs_of_death(
    orchestrator: NextJobQueues, queue: str, job_id: str, job: Job[Any] | None, then: Then[Any]
) -> tuple[Next, ...]:
    """Validate the next jobs of a job that dies, and return what its death is to publish.

    Args:
        orchestrator: Has their queues.
        queue: The name of the dead job's queue.
        job_id: The dead job's id.
        job: The dead job, if it can be read.
        then: What to publish.

    Raises:
        JobsError: as of :func:`next_jobs`.
    """
    return _next_jobs(orchestrator, then, partial(_id_after_death, queue, job_id, job))


def _next_jobs(orchestrator: NextJobQueues, then: Then[Any], make_id: _MakeId) -> tuple[Next, ...]:
    orchestrator.backend.capabilities.require_then()
    if len(then.jobs) > MAX_NEXT_JOBS:
        raise InvalidInput(f"{len(then.jobs):,} next jobs: a job may have {MAX_NEXT_JOBS:,}")
    made = tuple(_messages(orchestrator, make_id, then.jobs))
    size = sum(len(each.message.body) for each in made)
    if size > _MAX_BYTES:
        raise BodyTooLarge(f"next jobs of {size:,} bytes together: the limit is {_MAX_BYTES:,} bytes")
    return made


def _messages(
    orchestrator: NextJobQueues, make_id: _MakeId, following: tuple[NextJob, ...]
) -> Iterator[Next]:
    for place, each in enumerate(following):
        try:
            yield _message(orchestrator, make_id, place, each)
        except (InvalidInput, QueueConflict, QueueNotFound, SchemaConflict, UnsupportedCapability) as error:
            name = each.queue or each.schema.name
            raise type(error)(f"the next job, Then({name}): {error}") from error


def _message(orchestrator: NextJobQueues, make_id: _MakeId, place: int, following: NextJob) -> Next:
    schema, payload, delay_s, priority, id_, queue, timeout_s = following
    registration = orchestrator.schema_registry.registered(schema if queue is None else queue)
    name = registration.queue.name
    if registration.schema.unique is not None:
        raise UnsupportedCapability(
            f"schema {schema.name!r} is unique, and the step that ends a job doesn't see if a next job is "
            "the only one: publish it in the handler, by job.orchestrator.publish"
        )
    made = job_from_schema(
        schema,
        payload,
        id=make_id(name, place) if id_ is None else id_,
        priority=priority,
        timeout_s=timeout_s,
    )
    options = PublishOptions(delay_s=delay_s)
    with orchestrator.observed(name, 1) as headers:
        longest, clock = orchestrator.max_body_bytes, orchestrator.clock
        return Next(name, to_message(registration, made, options, headers, longest, clock))


def derived_id(job: Job[Any], queue: str, place: int) -> str:
    """Return the id of a next job: the same whenever the handler of ``job`` runs again (ADR 77).

    It begins as the job's does, which is the time when that was made, so that indexes keep both together.
    Another job that is published under the same id has other next jobs.
    """
    said = f"{job.schema_name}/{job.id}/{job.created_at.timestamp():.6f}/{queue}/{place}"
    return _hashed(job.id, said)


def _id_after_death(dead_queue: str, job_id: str, job: Job[Any] | None, queue: str, place: int) -> str:
    """Return the id of a next job of a death: the same whenever the job dies, and none of a job that is done.

    A job that can't be read has no time of creation, and maybe no id that could begin another.
    """
    created = "" if job is None else f"{job.created_at.timestamp():.6f}"
    return _hashed("dead" if job is None else job.id, f"dead/{dead_queue}/{job_id}/{created}/{queue}/{place}")


def _hashed(job_id: str, said: str) -> str:
    from hashlib import blake2b  # here, as few jobs have a next one

    return f"{job_id[:12]}-{blake2b(said.encode('utf-8', 'replace'), digest_size=10).hexdigest()}"
