"""When a failed job runs again, and when it is given up."""

import random
from dataclasses import dataclass

from .limits import MAX_ATTEMPTS, check_int, check_seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, and two budgets that are counted apart.

    The *error budget* ``max_attempts`` counts handler failures: the job is dead once that many attempts
    have failed (RTY-1). The *crash budget* ``max_deliveries`` counts deliveries whose worker died, as far as
    the broker can tell: it lost the connection, or its lease ran out. The job is dead, with that reason, once
    that many were lost, so that a job that kills its worker can't loop (RTY-3).

    Args:
        max_attempts: How often a job is tried in all, 1 or more; a job's own ``max_attempts`` overrides it.
        base_delay_s: The upper bound of the first retry's delay, in seconds.
        max_delay_s: The cap of that bound, which doubles with every further attempt.
        max_deliveries: How many deliveries may be lost before the job is given up, 1 or more; a delivery
            that ended in a retry or a release isn't lost and doesn't count.

    Raises:
        InvalidJob: a value is out of range.
    """

    max_attempts: int = 3
    base_delay_s: float = 1.0
    max_delay_s: float = 300.0
    max_deliveries: int = 5

    def __post_init__(self) -> None:
        check_int("max_attempts", self.max_attempts, 1, MAX_ATTEMPTS)
        check_int("max_deliveries", self.max_deliveries, 1, MAX_ATTEMPTS)
        check_seconds("base_delay_s", self.base_delay_s)
        check_seconds("max_delay_s", self.max_delay_s)

    def longest_delay_s(self, attempt: int) -> float:
        """The upper bound, in seconds, of the delay after ``attempt`` (from 1) has failed."""
        doublings = min(attempt - 1, 64)  # 2**64 s is past every cap; more would overflow a float
        return float(min(self.max_delay_s, self.base_delay_s * 2.0**doublings))

    def delay_s(self, attempt: int, fraction: float | None = None) -> float:
        """Seconds to wait after ``attempt`` (from 1) has failed: uniform in 0 to :meth:`longest_delay_s`.

        Args:
            attempt: The attempt that failed.
            fraction: Where in the interval, 0 to 1; drawn at random where it isn't given.
        """
        drawn = random.random() if fraction is None else fraction  # noqa: S311 - jitter, not a secret
        return drawn * self.longest_delay_s(attempt)
