"""A job on its way to a consumer.

Values made once per job are named tuples, which cost a quarter of a frozen dataclass.
"""

from typing import NamedTuple


class Delivery(NamedTuple):
    """A job leased to one consumer."""

    id: str
    body: bytes
    receipt: str
    """The fencing token: it settles and extends this delivery, and no other delivery of the job (LSE-4)."""
    attempt: int
    """Starts at 1, and rises by one with each retry (SET-2)."""
    number: int
    """Counts the deliveries of the job from 1, whatever ended the earlier ones. After a redrive it goes on or
    starts at 1 again."""
    crashes: int
    """How many earlier deliveries ended without a settlement, so that their workers seem to have died
    (RTY-3)."""
    deadline_s: float | None
    """Seconds that the lease had left when it was granted; None where the connection is the lease."""
