"""Why a job is dead."""

from enum import StrEnum


class DeadReason(StrEnum):
    """The reason of a dead letter. There are few and they don't change, so you can count by them (SET-3)."""

    MALFORMED = "malformed"
    """Its body can't be decoded, or its payload doesn't fit the schema (RCV-4)."""
    REJECTED = "rejected"
    """Its handler raised ``Reject`` (RTY-2)."""
    NOT_RETRIED = "error not retried"
    """Its handler raised an error that its retry policy doesn't retry (RTY-1)."""
    RESULT = "invalid result"
    """What its handler returned can't be used, and would be the same again (RES-1)."""
    ATTEMPTS = "attempts exhausted"
    """All its attempts failed (RTY-1)."""
    TIMED_OUT = "timed out"
    """All its attempts failed, and the last one was ended by its time limit."""
    CRASHES = "crash budget exhausted"
    """Too many of its deliveries ended without a settlement (RTY-3)."""
    EXPIRED = "expired"
    """It waited for longer than its ``expires_s``, and its schema says that it is dead then."""
    REMOVED = "removed by the broker"
    """The broker removed it from its queue by a rule of its own, such as a time to live (SET-3)."""
