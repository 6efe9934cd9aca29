"""Why a job was given up."""

from enum import StrEnum


class DeadReason(StrEnum):
    """The reason kept with a dead letter: few and fixed, so that one can count by it (SET-3)."""

    MALFORMED = "malformed"
    """Its body can't be decoded, or its payload doesn't fit the schema (RCV-4)."""
    REJECTED = "rejected"
    """Its handler raised ``Reject`` (RTY-2)."""
    ATTEMPTS = "attempts exhausted"
    """Every attempt of its error budget failed (RTY-1)."""
    CRASHES = "crash budget exhausted"
    """Too many of its deliveries ended without a settlement (RTY-3)."""
    REMOVED = "removed by the broker"
    """The broker took it out of its queue by a rule of its own, such as a time to live (SET-3)."""
