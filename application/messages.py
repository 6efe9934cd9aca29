"""From what users publish to messages, and from deliveries back to jobs."""

from collections.abc import Mapping
from dataclasses import replace
from datetime import timedelta
from typing import Any

from pydantic import BaseModel

from ..domain import Job, JobSchema, QueueKind, job_from_schema
from ..domain.dead_reasons import DeadReason
from ..domain.envelope import decode, encode
from ..domain.errors import InvalidInput, InvalidJob, JobsError, PublishUnknown, SchemaMismatch
from ..domain.job import utcnow
from ..domain.limits import MAX_HEADERS, check_seconds
from ..domain.schema import validate_payload
from ..ports import (
    Ack,
    Dead,
    Delivery,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    Settlement,
)
from .failures import failed_attempt
from .handler_errors import describe
from .registry import Registration
from .signals.graceful_stop import asks_to_stop

Work = Job[Any] | BaseModel | Mapping[str, Any]
"""What can be published: a job, an instance of the schema's input model, or a dict that validates as one."""


def to_message(
    registration: Registration,
    work: Work,
    priority: int | None,
    delay_s: float | None,
    headers: Mapping[str, str],
    max_body_bytes: int,
) -> Message:
    """Validate a job, and return the message that carries it.

    Args:
        registration: The schema and the queue.
        work: The job, or its payload.
        priority: As in :meth:`Orchestrator.publish`.
        delay_s: Likewise.
        headers: Headers that observers add.
        max_body_bytes: The largest body, in bytes.

    Raises:
        InvalidInput: as :meth:`Orchestrator.publish` says.
    """
    schema, queue = registration
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
    if headers and len(headers.keys() | job.headers.keys()) <= MAX_HEADERS:
        job = replace(job, headers={**headers, **job.headers})
    if job.priority and queue.kind is not QueueKind.PRIORITY:
        raise InvalidJob(
            f"priority {job.priority}: queue {queue.name!r} is {queue.kind}; "
            'register its schema with queue_type="priority"'
        )
    delay = 0.0
    if delay_s is not None:
        delay = check_seconds("delay_s", delay_s)
        job = replace(job, not_before=utcnow() + timedelta(seconds=delay) if delay else None)
    elif job.not_before is not None:
        delay = check_seconds("not_before", max(0.0, (job.not_before - utcnow()).total_seconds()))
    return Message(job.id, encode(job, schema, max_bytes=max_body_bytes), job.priority, delay)


def message_or_rejection(
    registration: Registration,
    work: Work,
    priority: int | None,
    delay_s: float | None,
    headers: Mapping[str, str],
    max_body_bytes: int,
) -> Message | PublishOutcome:
    """Do as :func:`to_message`, and return a ``REJECTED`` outcome with its error for an invalid job."""
    try:
        return to_message(registration, work, priority, delay_s, headers, max_body_bytes)
    except InvalidInput as error:
        return PublishOutcome(work.id if isinstance(work, Job) else "", PublishStatus.REJECTED, error)


def confirmed_id(queue_name: str, outcome: PublishOutcome, backend: OrchestratorBackend) -> str:
    """Return the id of a job that is in its queue.

    Raises:
        PublishUnknown: nobody knows whether it is.
        JobsError: it isn't; the outcome's error.
    """
    if outcome.status in (PublishStatus.ACCEPTED, PublishStatus.DUPLICATE):
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
    raise outcome.error or JobsError(f"job {outcome.id} was rejected by the backend")


def accept(
    delivery: Delivery, schema: JobSchema[Any, Any], max_body_bytes: int
) -> tuple[Job[Any] | None, Settlement]:
    """Return the job of a delivery and its ack; for a body that is no job, None and its death (RCV-4)."""
    try:
        job = decode(delivery.body, schema, attempt=delivery.attempt, max_bytes=max_body_bytes)
    except KeyboardInterrupt:  # the caller's, who has pressed Ctrl-C
        raise
    except BaseException as error:  # a validator of the user's model may raise anything
        if asks_to_stop(error):
            raise
        failure = failed_attempt(describe(error), error)
        return None, Dead(delivery.receipt, DeadReason.MALFORMED, failure)
    return job, Ack(delivery.receipt)
