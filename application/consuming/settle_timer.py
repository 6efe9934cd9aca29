"""When the finished jobs of a batch are settled while the rest of it still runs."""

from math import inf
from time import monotonic

_SETTLE_S = 0.05
"""The longest that a settlement waits for others to share its round trip."""
_LATE_S = 0.25
"""Five times what a batch is to take: its jobs are longer than those before, and others may have some."""


class SettleTimer:
    """Times the settlements of one batch, which begins now."""

    def __init__(self) -> None:
        self._began_s = monotonic()
        self._due_s = self._began_s + _SETTLE_S

    @property
    def is_due(self) -> bool:
        """Whether the finished jobs are to be settled now."""
        return monotonic() >= self._due_s

    @property
    def elapsed_s(self) -> float:
        """How many seconds ago the batch began."""
        return monotonic() - self._began_s

    @property
    def is_late(self) -> bool:
        """Whether the batch takes so long that others may have the jobs it hasn't started."""
        return self.elapsed_s >= _LATE_S

    def settled(self) -> None:
        """Start the pause until the next settlement anew."""
        self._due_s = monotonic() + _SETTLE_S

    def wait_for_end(self) -> None:
        """Have nothing settled before the end of the batch."""
        self._due_s = inf
