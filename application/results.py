"""From how a job ended to what its caller gets: an output, or the error that says why there is none."""

from datetime import timedelta
from typing import Any

from ..domain.envelope import decode_model
from ..domain.errors import (
    JobCancelled,
    JobNotFound,
    JobReplaced,
    ResultExpired,
    ResultNotReady,
    UnsupportedCapability,
)
from ..domain.job import made_at, utcnow
from ..ports import JobResult, JobStatus, OrchestratorBackend, ResultStatus
from .failures import job_failed
from .registry import Registration, UnknownModel
from .unique_jobs.record import REPLACED_BY


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
        JobFailed: the job is dead; ``JobReplaced``: another took its place.
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
    made, ttl_s = made_at(job_id), registration.schema.result_ttl_s
    if made is None or registration.schema.output is UnknownModel:  # nobody knows for how long they are kept
        return JobNotFound(
            f"{unknown} was never published here, was purged or discarded, or ended and its result has "
            "expired"
        )
    if utcnow() - made <= timedelta(seconds=ttl_s):
        return JobNotFound(f"{unknown} was never published here, or was purged or discarded")
    return ResultExpired(
        f"{unknown} was made at {made:%Y-%m-%d %H:%M:%S} UTC, and results are kept for {ttl_s:g} s: its "
        "result has expired, unless it was purged or discarded; a schema's result_ttl_s sets how long"
    )


def job_status(backend: OrchestratorBackend, queue: str, job_id: str) -> JobStatus:
    """Say where a job is; of a backend that can't tell, whether and how it ended."""
    try:
        return backend.status(queue, job_id)
    except UnsupportedCapability:
        found = backend.result(queue, job_id)
    if found is None:
        return JobStatus.UNKNOWN
    return JobStatus(found.status)
