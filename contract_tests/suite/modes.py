"""The modes in which a consumer runs its jobs: what a check demands of a consumer holds in each of them."""

from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Mode:
    """How a consumer runs its jobs."""

    name: str
    """What test names and reports call it."""
    at_once: int
    """How many jobs run at once, or how many a batch has at most."""
    is_async: bool = False
    """Whether the handler is an ``async def``."""
    in_batches: bool = False
    """Whether the consumer is a ``BatchConsumer``."""

    @property
    def is_ordered(self) -> bool:
        """Whether handlers begin in the order in which the jobs come."""
        return self.side_by_side == 1

    @property
    def side_by_side(self) -> int:
        """How many handlers run at the same time. In a batch the suite runs one after the other."""
        return 1 if self.in_batches else self.at_once


ONE_AT_A_TIME = Mode("concurrency-1", 1)
MANY_AT_ONCE = (
    Mode("concurrency-8", 8),
    Mode("concurrency-100", 100),
    Mode("batches-8", 8, in_batches=True),
)
EVERY_MODE = (ONE_AT_A_TIME, *MANY_AT_ONCE, Mode("tasks-8", 8, is_async=True))
"""The last is left out where a check waits for a lease: tasks differ from threads in how handlers run."""
