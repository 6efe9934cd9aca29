"""From how a job ended to what its caller gets: an output, or the error that says why there is none."""

from datetime import timedelta
from typing import Any

from ...domain.envelope import decode_model
from ...domain.errors import (
    JobCancelled,
    JobExpired,
    JobNotFound,
    JobReplaced,
    ResultExpired,
    ResultNotReady,
    UnsupportedCapability,
)
from ...domain.job import made_at
from ...domain.wall_clock import utcnow
from ...ports import JobResult, JobStatus, OrchestratorBackend, ResultStatus
from ..consuming.expiry import expired_at
from ..failures.failed_attempts import job_failed
from ..registration.registry import Registration, UnknownModel
from ..unique_jobs.record import REPLACED_BY


def result_value(
    backend: OrchestratorBackend,
    registration: Registration,
    job_id: str,
    found: JobResult | None,
    timeout_s: float,
) -> Any:
    """Return what the handler of a job returned: an instance of the output model, or None.

    If nothing was found within ``timeout_s``, the backend is asked where the job is.

    Raises:
        JobFailed: the job is dead; ``JobReplaced``: another took its place; ``JobExpired``: it waited for
            too long.
        JobCancelled: the job was cancelled.
        ResultExpired: the queue knows no such job, and its id is older than results are kept.
        JobNotFound: the queue knows no such job.
        ResultNotReady: the job hasn't ended.
        InvalidPayload: the stored output doesn't fit the schema.
    """
    if found is None:
        found = _ended_meanwhile(backend, registration, job_id, timeout_s)
    if found.status is ResultStatus.FAILED:
        raise job_failed(job_id, registration.schema.name, found.error)
    if found.status is ResultStatus.CANCELLED:
        raise JobCancelled(f"job {job_id}: it was cancelled")
    if found.body is None:
        return None
    if found.body.startswith(REPLACED_BY):
        raise JobReplaced(job_id, found.body.removeprefix(REPLACED_BY).decode())
    if (expiry := expired_at(found.body)) is not None:
        raise JobExpired(job_id, expiry)
    return decode_model(f"result of job {job_id}", registration.schema.output, found.body)


def _ended_meanwhile(
    backend: OrchestratorBackend, registration: Registration, job_id: str, timeout_s: float
) -> JobResult:
    """Say why there is no result; return the result of a job that ended just now."""
    queue = registration.queue.name
    try:
        status = backend.status(queue, job_id)
    except UnsupportedCapability:
        raise ResultNotReady(
            f"job {job_id}: no result within {timeout_s:g} s: it hasn't ended, is unknown, or its result "
            "has expired; this backend can't tell which"
        ) from None
    if status is JobStatus.UNKNOWN:
        raise _unknown(registration, job_id)
    found = None
    if status in (JobStatus.DONE, JobStatus.FAILED, JobStatus.CANCELLED):
        found = backend.result(queue, job_id)
    if found is None:
        advice = "to wait longer, raise timeout_s" if timeout_s else "to wait for it, pass timeout_s"
        raise ResultNotReady(f"job {job_id}: no result within {timeout_s:g} s: it is {status}; {advice}")
    return found


def _unknown(registration: Registration, job_id: str) -> JobNotFound:
    """Return the error for a job that the backend doesn't know: the age of its id tells what became of it."""
    unknown = f"job {job_id}: not known in queue {registration.queue.name!r}: it"
    schema = registration.schema
    made, ttl_s = made_at(job_id), schema.result_ttl_s
    if made is None or schema.output is UnknownModel:  # nobody knows for how long they are kept
        return JobNotFound(
            f"{unknown} was never published here, was purged or discarded, or ended and its result, or its "
            "dead letter, has expired"
        )
    if utcnow() - made <= timedelta(seconds=ttl_s):
        died = ""
        if schema.dead_ttl_s is not None:
            died = f", or its dead letter was removed after dead_ttl_s, {schema.dead_ttl_s:g} s"
        return JobNotFound(f"{unknown} was never published here, or was purged or discarded{died}")
    return ResultExpired(
        f"{unknown} was made at {made:%Y-%m-%d %H:%M:%S} UTC, and results are kept for {ttl_s:g} s: its "
        "result has expired, unless it was purged or discarded; a schema's result_ttl_s sets how long"
    )


def job_status(backend: OrchestratorBackend, queue: str, job_id: str) -> JobStatus:
    """Say where a job is; of a backend that can't tell, whether and how it ended."""
    try:
        status = backend.status(queue, job_id)
    except UnsupportedCapability:
        status = JobStatus.UNKNOWN
    else:
        if status is not JobStatus.DONE:
            return status
    found = backend.result(queue, job_id)
    if found is None:  # of a job that is done: it has just been forgotten
        return status
    return JobStatus.EXPIRED if expired_at(found.body) is not None else JobStatus(found.status)
