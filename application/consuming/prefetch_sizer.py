"""How many jobs to take at once: many short ones, so that round trips cost little; one long one."""

from .job_permits import PermitShare

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
        most: The largest size that it chooses.
    """

    def __init__(self, fixed: int | None = None, *, most: int | None = None) -> None:
        self._fixed = fixed
        self._most = _MAX_JOBS if most is None else most
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
        affordable = int(_TARGET_S / expected_s) if expected_s > 0 else self._most
        self._size = max(1, min(affordable, 2 * self._size, self._most))


def make_sizer(prefetch: int | None, permits: PermitShare | None, *, at_once: int = 1) -> PrefetchSizer:
    """Make the sizer of a consumer.

    Args:
        prefetch: How many jobs to take at once; None adapts it.
        permits: The permits by which it runs jobs, if any. With them ``prefetch`` is only the largest size:
            no job is to wait here for long, as another consumer may have a permit for it.
        at_once: How many jobs run at once. With permits, the sizer counts those that wait, and one.
    """
    if permits is None:
        return PrefetchSizer(prefetch)
    return PrefetchSizer(most=None if prefetch is None else max(1, prefetch - at_once + 1))
