"""How many jobs to take at once: many short ones, so that round trips cost little; one long one."""

_TARGET_S = 0.05
"""How much work to take at once. It bounds what a crash makes run twice, and how late a result is seen."""
_MAX_JOBS = 1000
"""Where a broker must sync what is settled before it goes on, the wait for it costs so many little."""
_MEMORY = 0.7
"""The weight of the past in the average; a few batches of another length change it."""


class PrefetchSizer:
    """Sizes batches by how long jobs took, doubling at most from one to the next.

    Args:
        fixed: The size to keep to; None adapts it.
    """

    def __init__(self, fixed: int | None = None) -> None:
        self._fixed = fixed
        self._size = fixed or 1
        self._average_s: float | None = None

    @property
    def adapts(self) -> bool:
        """Whether the size is this object's to choose."""
        return self._fixed is None

    @property
    def size(self) -> int:
        """How many jobs to take next."""
        return self._size

    def record(self, jobs: int, seconds: float) -> None:
        """Learn that ``jobs`` jobs, at least one, took ``seconds`` together."""
        if self._fixed is not None:
            return
        each_s = seconds / jobs
        average_s = self._average_s
        self._average_s = each_s if average_s is None else _MEMORY * average_s + (1 - _MEMORY) * each_s
        # A batch that took far longer than the average says that the average is out of date.
        expected_s = max(self._average_s, each_s)
        affordable = int(_TARGET_S / expected_s) if expected_s > 0 else _MAX_JOBS
        self._size = max(1, min(affordable, 2 * self._size, _MAX_JOBS))
