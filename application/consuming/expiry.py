"""Jobs that waited for too long: how they end."""

from datetime import UTC, datetime
from typing import Any

from ...domain import Job, JobSchema
from ...domain.dead_reasons import DeadReason
from ...domain.errors import JobExpired
from ...ports import Ack, Dead
from ..broker.broker_clock import Clock
from ..failures.failed_attempts import failed_attempt

_EXPIRED = b"expired at "
"""What the stored result of an expired job begins with, before the moment. It isn't JSON."""


def expiry_of(
    job: Job[Any], receipt: str, schema: JobSchema[Any, Any], clock: Clock, *, keeps_results: bool
) -> Ack | Dead | None:
    """Return how to settle a job that was taken after it had expired (ADR 124); None if it is to run.

    Args:
        job: The job.
        receipt: What settles it.
        schema: Says whether an expired job is dead, and for how long its end is remembered.
        clock: The broker's.
        keeps_results: Whether the backend keeps results.
    """
    if job.expires_at is None or clock() < job.expires_at.timestamp():
        return None
    if schema.on_expired == "dead":
        error = JobExpired(job.id, job.expires_at).error
        return Dead(receipt, DeadReason.EXPIRED, failed_attempt(error, expired_at=job.expires_at))
    mark = _EXPIRED + repr(job.expires_at.timestamp()).encode() if keeps_results else None
    return Ack(receipt, mark, schema.result_ttl_s)


def expired_at(result: bytes | None) -> datetime | None:
    """Return when a job expired, if this is the stored result of such a job."""
    if result is None or not result.startswith(_EXPIRED):
        return None
    return datetime.fromtimestamp(float(result.removeprefix(_EXPIRED)), UTC)
