"""When the finished jobs of a batch are settled while the rest of it still runs."""

from enum import Enum
from math import inf
from time import monotonic

_SETTLE_S = 0.05
"""The longest that a settlement waits for others to share its round trip."""
_LATE_S = 0.25
"""Five times what a batch is to take: its jobs are longer than those before, and others may have some."""


class Due(Enum):
    """What there is to do."""

    SETTLE = "settle"
    SETTLE_AND_RELEASE = "settle and release"
    """Settle the finished jobs, and release those not started yet."""


class SettleTimer:
    """Times the settlements of one batch, which begins now.

    Args:
        may_release: Whether a late batch is to give back the jobs that it hasn't started.
    """

    def __init__(self, *, may_release: bool) -> None:
        self._may_release = may_release
        self._began_s = self._settled_s = monotonic()

    @property
    def elapsed_s(self) -> float:
        """How many seconds ago the batch began."""
        return monotonic() - self._began_s

    def due(self) -> Due | None:
        """Say what to do now; None if there is nothing."""
        now = monotonic()
        if now - self._settled_s < _SETTLE_S:
            return None
        is_late = self._may_release and now - self._began_s >= _LATE_S
        return Due.SETTLE_AND_RELEASE if is_late else Due.SETTLE

    def settled(self) -> None:
        """Start the pause until the next settlement anew."""
        self._settled_s = monotonic()

    def wait_for_end(self) -> None:
        """Have nothing settled before the end of the batch."""
        self._settled_s = inf
