"""From what users publish to messages, and from outcomes to what they get."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from typing import Any

from pydantic import BaseModel

from ...domain import Job, JobSchema, QueueKind, job_from_schema
from ...domain.bounds import MAX_DELAY_S, MAX_HEADERS, check_expiry, check_seconds
from ...domain.envelope import encode
from ...domain.errors import InvalidInput, InvalidJob, PublishUnknown, SchemaMismatch
from ...domain.job import NO_HEADERS
from ...domain.schema import validate_payload
from ...domain.wall_clock import utcnow
from ...ports import Message, OrchestratorBackend, PublishOutcome, PublishStatus
from ..broker.broker_clock import Clock
from ..failures.raised_errors import rejection
from ..registration.registry import Registration
from .publish_options import NO_OPTIONS, PublishOptions

Work = Job[Any] | BaseModel | Mapping[str, Any]
"""What can be published: a job, an instance of the schema's input model, or a dict that validates as one."""
_IN_QUEUE = (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE)


def to_message(
    registration: Registration,
    work: Work,
    options: PublishOptions,
    headers: Mapping[str, str],
    max_body_bytes: int,
    clock: Clock,
) -> Message:
    """Validate a job, and return the message that carries it.

    Args:
        registration: The schema and the queue.
        work: The job, or its payload.
        options: What the call says about it.
        headers: Headers that observers add.
        max_body_bytes: The largest body, in bytes.
        clock: The broker's, which is asked for jobs that expire.

    Raises:
        InvalidInput: as :meth:`Orchestrator.publish` says.
    """
    schema, queue = registration
    priority = options.priority
    if not isinstance(work, Job):
        job = job_from_schema(schema, work, priority=0 if priority is None else priority)
    elif work.schema_name != schema.name:
        raise SchemaMismatch(
            f"job {work.id} is of schema {work.schema_name!r}; queue {queue.name!r} carries {schema.name!r}: "
            f"make it with orchestrator.job({queue.name!r}, …), or publish it to its own queue"
        )
    elif not isinstance(work.payload, schema.input):
        payload = validate_payload(schema, work.payload)
        job = replace(work, payload=payload, priority=work.priority if priority is None else priority)
    else:
        job = work if priority is None else replace(work, priority=priority)
    if headers is not NO_HEADERS and len(headers.keys() | job.headers.keys()) <= MAX_HEADERS:
        job = replace(job, headers={**headers, **job.headers})
    if job.priority and queue.kind is not QueueKind.PRIORITY:
        raise InvalidJob(
            f"priority {job.priority}: queue {queue.name!r} is {queue.kind}; "
            'give its schema queue_type="priority"'
        )
    delay = 0.0
    says_nothing = options is NO_OPTIONS and job.not_before is None  # as mostly: it costs nothing then
    if not (says_nothing and schema.expires_s is None and schema.unique is None):
        if options.timeout_s is not None:
            job = replace(job, timeout_s=options.timeout_s)
        job, delay = _delayed(job, schema, options)
        job = _expiring(job, schema, options, delay, clock)
    return Message(job.id, encode(job, schema, max_bytes=max_body_bytes), job.priority, delay)


def _delayed(job: Job[Any], schema: JobSchema[Any, Any], options: PublishOptions) -> tuple[Job[Any], float]:
    """Return a job that says when it is due, and the seconds until then."""
    if options.delay_s is not None:
        if options.not_before is not None:
            raise InvalidJob("delay_s and not_before: pass one of them, as both say when the job may run")
        delay = check_seconds("delay_s", options.delay_s, InvalidJob)
        return replace(job, not_before=utcnow() + timedelta(seconds=delay) if delay else None), delay
    if options.not_before is not None:
        job = replace(job, not_before=options.not_before)
    if job.not_before is None:  # a debounce is told here, as a message doesn't tell a delay of 0 from none
        return job, 0.0 if schema.unique is None else schema.unique.debounce_s or 0.0
    delay = max(0.0, (job.not_before - utcnow()).total_seconds())
    if delay > MAX_DELAY_S:
        days = MAX_DELAY_S / 86_400
        raise InvalidJob(f"not_before {job.not_before}: must be within {days:.0f} days from now")
    return job, delay


def _expiring(
    job: Job[Any], schema: JobSchema[Any, Any], options: PublishOptions, delay: float, clock: Clock
) -> Job[Any]:
    """Return a job that says when it expires, if it does."""
    expires_s = options.expires_s
    if expires_s is None and job.expires_at is None:
        expires_s = schema.expires_s
    if expires_s is None:
        return job
    late_s = clock() + delay + check_expiry(expires_s, InvalidJob)
    return replace(job, expires_at=datetime.fromtimestamp(late_s, UTC))


def listed(jobs: Iterable[Work]) -> list[Work]:
    """Return the jobs of a batch as a list.

    Raises:
        InvalidInput: it is a single job.
    """
    if isinstance(jobs, str | bytes | Mapping | BaseModel | Job) or not isinstance(jobs, Iterable):
        raise InvalidInput(f"publish_batch: pass a list of jobs, not one {type(jobs).__name__}")
    return list(jobs)


def prepare(
    registration: Registration,
    works: Iterable[Work],
    options: PublishOptions,
    headers: Mapping[str, str],
    max_body_bytes: int,
    clock: Clock,
) -> list[Message | PublishOutcome]:
    """Do as :func:`to_message` with each job of a batch; in place of an invalid one stands its rejection."""
    prepared: list[Message | PublishOutcome] = []
    for work in works:
        try:
            prepared.append(to_message(registration, work, options, headers, max_body_bytes, clock))
        except InvalidInput as error:
            id_ = work.id if isinstance(work, Job) else ""
            prepared.append(PublishOutcome(id_, PublishStatus.REJECTED, error))
    return prepared


def messages_of(prepared: Iterable[Message | PublishOutcome]) -> list[Message]:
    """Return the messages of a batch, without its invalid jobs."""
    return [item for item in prepared if isinstance(item, Message)]


def with_rejections(
    prepared: Sequence[Message | PublishOutcome], outcomes: list[PublishOutcome]
) -> list[PublishOutcome]:
    """Return the outcomes of the messages of a batch among those of its invalid jobs."""
    if len(outcomes) == len(prepared):
        return outcomes
    remaining = iter(outcomes)
    return [next(remaining) if isinstance(item, Message) else item for item in prepared]


def confirmed_id(queue_name: str, outcome: PublishOutcome, backend: OrchestratorBackend) -> str:
    """Return the id of a job that is in its queue.

    Raises:
        PublishUnknown: nobody knows whether it is.
        JobsError: it isn't; the outcome's error.
    """
    if outcome.status in _IN_QUEUE:
        return outcome.id
    if outcome.status is PublishStatus.UNKNOWN:
        if backend.capabilities.dedupe:
            again = "publish it again under the same id: if it is in the queue, that changes nothing"
        else:
            again = "publishing it again may make a second job, as this backend has no dedupe"
        raise PublishUnknown(
            f"job {outcome.id} may or may not be in queue {queue_name!r}: "
            f"the connection broke before the confirm; {again}"
        ) from outcome.error
    raise rejection(outcome)
