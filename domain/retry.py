"""When a failed job runs again, and when it is dead."""

import random
from dataclasses import dataclass

from .bounds import MAX_ATTEMPTS, check_int, check_seconds


@dataclass(frozen=True, slots=True)
class RetryPolicy:
    """Exponential backoff with full jitter, and two separate budgets.

    The error budget ``max_attempts`` counts failures of the handler. The job is dead once that many attempts
    have failed (RTY-1). The crash budget ``max_crashes`` counts deliveries whose worker seems to have
    died: it lost its connection, or its lease ended. The job is dead once that many deliveries were lost, so
    a job that kills its worker can't run for ever (RTY-3).

    Args:
        max_attempts: How often a job runs at most, 1 or more. A job's own ``max_attempts`` overrides it.
        base_delay_s: The longest delay before the second attempt, in seconds. It doubles with each attempt.
        max_delay_s: The longest delay before any attempt, in seconds.
        max_crashes: How many deliveries may be lost before the job is dead, 1 or more. A delivery that ended
            in a retry or a release doesn't count.

    Raises:
        InvalidInput: a value is out of range.
    """

    max_attempts: int = 3
    base_delay_s: float = 1.0
    max_delay_s: float = 300.0
    max_crashes: int = 5

    def __post_init__(self) -> None:
        check_int("max_attempts", self.max_attempts, 1, MAX_ATTEMPTS)
        check_int("max_crashes", self.max_crashes, 1, MAX_ATTEMPTS)
        check_seconds("base_delay_s", self.base_delay_s)
        check_seconds("max_delay_s", self.max_delay_s)

    def runs_alone(self, crashes: int) -> bool:
        """Whether a job of which so many deliveries were lost runs while its consumer runs no other.

        After one, most jobs are innocent: somebody killed the worker, or another job did. After two, the job
        may have killed both. If ``max_crashes`` is 3 or less, one is enough: few deliveries are left.
        """
        return crashes >= min(2, max(1, self.max_crashes - 2))

    def longest_delay_s(self, attempt: int) -> float:
        """Return the longest delay, in seconds, after ``attempt`` (from 1) has failed."""
        doublings = min(attempt - 1, 64)  # 2**64 s is past every cap; more would overflow a float
        return float(min(self.max_delay_s, self.base_delay_s * 2.0**doublings))

    def delay_s(self, attempt: int, fraction: float | None = None) -> float:
        """Return the delay after ``attempt`` (from 1) has failed: uniform from 0 to :meth:`longest_delay_s`.

        Args:
            attempt: The attempt that failed.
            fraction: The place in that interval, 0 to 1; by default random.
        """
        drawn = random.random() if fraction is None else fraction  # noqa: S311 - jitter, not a secret
        return drawn * self.longest_delay_s(attempt)
