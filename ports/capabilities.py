"""What a backend can do and how well: declared by the adapter, enforced, and proved by the suite."""

from dataclasses import dataclass
from enum import StrEnum

from ..domain.errors import UnsupportedCapability
from ..domain.queue import Queue, QueueKind


class Lease(StrEnum):
    """What keeps a delivered job with its consumer."""

    TIMED = "timed"
    """A deadline by the broker's clock, which ``extend`` moves (LSE-2, LSE-3)."""
    CONNECTION = "connection"
    """The consumer's connection: the job comes back when that is lost, and no earlier (LSE-1)."""


class Redelivery(StrEnum):
    """Where a job that came back stands among those that wait (ORD-4)."""

    IN_ORDER = "in order"
    """Where it stood: before those published after it, in a stack behind them, and by its priority."""
    HEAD = "head"
    """Likewise, but several that came back may have changed places with each other."""
    NEAR_HEAD = "near head"
    """Before most of what was behind it."""


class Durability(StrEnum):
    """What survives the death of the broker's process or machine."""

    PROCESS = "process"
    """Nothing: jobs live in the publisher's own memory."""
    NONE = "none"
    """Nothing, but the broker outlives publishers and consumers."""
    SNAPSHOT = "snapshot"
    """What was there at the last snapshot."""
    EVERY_SECOND = "every second"
    """All but about the last second before a crash."""
    FSYNC = "fsync"
    """All that was confirmed."""
    REPLICATED = "replicated"
    """All that was confirmed, on a majority of several machines."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one backend can do: the suite runs the clauses of what is on, and the refusal of what is off."""

    stack: bool
    """Queues that serve the newest job first (ORD-2)."""
    priority: bool
    """Queues that serve strictly by priority, 0 to 9 (ORD-3)."""
    dedupe: bool
    """Publishing an id that is still live is a no-op that says so (PUB-5)."""
    results: bool
    """Results are kept and can be waited for (RES-1, RES-2)."""
    lease: Lease
    redelivery: Redelivery
    durability: Durability
    delay_resolution_s: float
    """How late, in seconds, a delayed job may become ready without load (DLY-2)."""
    counts_in_flight: bool
    """Whether ``QueueCounts.in_flight`` is known (CNT-1)."""
    counts_lag_s: float = 0.0
    """For how many seconds a job on its way between two states may be in no count (CNT-1)."""
    priority_durability: Durability | None = None
    """That of priority queues, where it is another; None where it is the same."""

    def durability_of(self, kind: QueueKind) -> Durability:
        """What survives of a queue of this kind."""
        other = self.priority_durability if kind is QueueKind.PRIORITY else None
        return other or self.durability

    def require_kind(self, queue: Queue) -> None:
        """Refuse a queue of a kind that the backend can't serve.

        Raises:
            UnsupportedCapability: it can't (ORD-2, ORD-3).
        """
        supported = {QueueKind.FIFO: True, QueueKind.STACK: self.stack, QueueKind.PRIORITY: self.priority}
        if not supported[queue.kind]:
            kinds = ", ".join(kind for kind, able in supported.items() if able)
            raise UnsupportedCapability(
                f"queue {queue.name!r}: this backend has no {queue.kind} queues; it has: {kinds}"
            )

    def require_results(self) -> None:
        """Refuse a question for a result where none is kept.

        Raises:
            UnsupportedCapability: results aren't supported (RES-1).
        """
        if not self.results:
            raise UnsupportedCapability("this backend keeps no results")
