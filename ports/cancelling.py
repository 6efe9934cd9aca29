"""What the broker answers when a job is to be cancelled."""

from enum import StrEnum

from .results import JobResult, ResultStatus


class CancelOutcome(StrEnum):
    """What became of the wish to cancel one job (CAN-1, CAN-2)."""

    CANCELLED = "cancelled"
    """It waited, and is gone; or it was cancelled before. Its result says so."""
    REQUESTED = "requested"
    """It is in flight. Its consumer learns of it by :meth:`ConsumerBackend.extend`; unless the job is done
    first, it ends as cancelled."""
    TOO_LATE = "too late"
    """It has ended: it is done or dead."""
    UNKNOWN = "unknown"
    """Nothing is known of it: it was never published here, or ended so long ago that this was forgotten."""


def outcome_of_ended(result: JobResult | None) -> CancelOutcome:
    """Return what to answer of a job that neither waits nor runs, from its result; None if there is none."""
    if result is None:
        return CancelOutcome.UNKNOWN
    return CancelOutcome.CANCELLED if result.status is ResultStatus.CANCELLED else CancelOutcome.TOO_LATE
