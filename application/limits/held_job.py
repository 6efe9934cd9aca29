"""A job that was delivered and may not start yet."""

from dataclasses import dataclass
from math import inf

from ...ports import Delivery, Place

_BACK_S = 0.1
_LONGEST_BACK_S = 5.0


@dataclass(eq=False, slots=True)
class HeldJob:
    """A leased job that waits for its place or its turn; times are of the consumer's monotonic clock."""

    delivery: Delivery
    renewed_s: float
    """When its lease began or was extended."""
    place: Place | None = None
    """What it must have to run; None if that is nothing."""
    has_place: bool = True
    """Whether it has that."""
    asked_s: float | None = None
    """When the store was last asked for its place."""
    expires_s: float = inf
    """When it expires, by the broker's clock, if that counts here."""
    rate_key: str | None = None
    """By which key its turn is counted, if its rate is by key; None if it needs none."""
    is_kept: bool = False
    """Whether it was to go back, and the broker couldn't take it."""
    turn_s: float | None = None
    """When its turn comes; None if it has none yet."""

    @property
    def receipt(self) -> str:
        """What settles it."""
        return self.delivery.receipt

    @property
    def back_s(self) -> float:
        """For how many seconds to send it back if it can't be held: more each time that it couldn't run."""
        delivery = self.delivery
        in_vain = max(0, delivery.number - delivery.attempt - delivery.crashes)
        return float(min(_BACK_S * 2.0 ** min(in_vain, 10), _LONGEST_BACK_S))
