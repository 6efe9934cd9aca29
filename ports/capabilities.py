"""What a backend can do: declared by the adapter, enforced, and checked by the contract suite."""

from dataclasses import dataclass
from enum import StrEnum

from ..domain.errors import UnsupportedCapability
from ..domain.queue import Queue, QueueKind


class Lease(StrEnum):
    """What keeps a delivered job with its consumer."""

    TIMED = "timed"
    """A deadline by the broker's clock, which ``extend`` moves (LSE-2, LSE-3)."""
    CONNECTION = "connection"
    """The consumer's connection: the job comes back when it is lost, and not before (LSE-1)."""


class Redelivery(StrEnum):
    """The place of a job that was released, or whose lease was lost, in its queue (ORD-4)."""

    IN_ORDER = "in order"
    """Its old place: before the jobs published after it, in a stack behind them, and by its priority."""
    HEAD = "head"
    """Its old place, but several jobs that came back may have changed places with each other."""
    NEAR_HEAD = "near head"
    """Before most of the jobs that were behind it."""


class Durability(StrEnum):
    """What survives a crash of the broker's process or machine."""

    PROCESS = "process"
    """Nothing: jobs are in the memory of the process that publishes."""
    NONE = "none"
    """Nothing, but jobs outlive the processes that publish and consume."""
    SNAPSHOT = "snapshot"
    """The jobs of the last snapshot."""
    EVERY_SECOND = "every second"
    """All jobs but those of about the last second before the crash."""
    FSYNC = "fsync"
    """All confirmed jobs."""
    REPLICATED = "replicated"
    """All confirmed jobs, also if the machine never comes back: another had each on its disk before it was
    confirmed."""


@dataclass(frozen=True, slots=True, kw_only=True)
class Capabilities:
    """What one backend can do. The suite checks what is on, and that what is off is refused."""

    stack: bool
    """Queues that serve the newest job first (ORD-2)."""
    priority: bool
    """Queues that serve strictly by priority, 0 to 9 (ORD-3)."""
    dedupe: bool
    """Publishing a live id changes nothing and is answered ``DUPLICATE`` (PUB-5)."""
    results: bool
    """Results are kept, and callers can wait for them (RES-1, RES-2)."""
    lease: Lease
    redelivery: Redelivery
    durability: Durability
    delay_resolution_s: float
    """How many seconds late a delayed job may become ready on an idle broker (DLY-2)."""
    counts_in_flight: bool
    """Whether ``QueueCounts.in_flight`` is known (CNT-1)."""
    counts_lag_s: float = 0.0
    """For how many seconds a job that moves between two states may be missing from all counts (CNT-1)."""
    priority_durability: Durability | None = None
    """The durability of priority queues, if it differs; None if it is the same."""

    transactional_publish: bool = False
    """Jobs can be published in a transaction of the caller's (PUB-7)."""
    coordination: bool = False
    """There is a coordination store, for schedules, unique jobs, limits and pauses (CRD-1)."""
    freed_places: bool = False
    """That store tells who is next in line when a place of a limit gets free (CRD-7)."""
    guarded_publish: bool = False
    """A job can be published and a record of that store written in one step (CRD-4)."""
    then: bool = False
    """An ack and a death can publish further jobs, none of which is lost (THEN-1, THEN-4)."""
    atomic_then: bool = False
    """It does so in one step: they exist if and only if the job ends so (THEN-2, THEN-4). Off, one may be
    published twice, or though its job runs again."""
    cancel: bool = False
    """Jobs can be cancelled, while they wait or while they run (CAN-1, CAN-2)."""
    dead_ttl: bool = False
    """A dead letter is removed once its time is over (DLQ-5)."""
    exact_dead_ttl: bool = False
    """It is gone at that moment. Off, it may stay until the letters that died before it are gone."""
    first_ready: bool = False
    """The first job that is ready can be looked at without taking it (CNT-2)."""

    def durability_of(self, kind: QueueKind) -> Durability:
        """Return the durability of queues of this kind."""
        other = self.priority_durability if kind is QueueKind.PRIORITY else None
        return other or self.durability

    def require_kind(self, queue: Queue) -> None:
        """Refuse a queue of a kind that the backend doesn't have.

        Raises:
            UnsupportedCapability: the backend has no queues of this kind (ORD-2, ORD-3).
        """
        supported = {QueueKind.FIFO: True, QueueKind.STACK: self.stack, QueueKind.PRIORITY: self.priority}
        if not supported[queue.kind]:
            kinds = ", ".join(kind for kind, able in supported.items() if able)
            raise UnsupportedCapability(
                f"queue {queue.name!r}: this backend has no {queue.kind} queues; it has: {kinds}"
            )

    def require_transactional_publish(self) -> None:
        """Refuse to publish in a transaction of the caller's if the backend can't.

        Raises:
            UnsupportedCapability: the backend joins no transactions (PUB-7).
        """
        if not self.transactional_publish:
            raise UnsupportedCapability(
                "this backend can't publish in your transaction, as PostgreSQL can: publish after the "
                "commit, without connection="
            )

    def require_then(self) -> None:
        """Refuse to publish jobs with an ack if the backend can't.

        Raises:
            UnsupportedCapability: its acks publish nothing (THEN-1).
        """
        if not self.then:
            raise UnsupportedCapability(
                "this backend doesn't support Then: publish the next job inside the handler, and return only "
                "the result"
            )

    def require_coordination(self, what: str) -> None:
        """Refuse what needs a coordination store if there is none.

        Args:
            what: What needs it, as the beginning of the message: ``"schedules need"``.

        Raises:
            UnsupportedCapability: the backend has no coordination store (CRD-1).
        """
        if not self.coordination:
            raise UnsupportedCapability(
                f"{what} a coordination store, and this backend has none: use memory, SQLite, Redis or "
                "PostgreSQL; or give RabbitMQ one by URL: amqp://host?store=redis://host"
            )

    def require_cancel(self) -> None:
        """Refuse to cancel a job if the backend can't.

        Raises:
            UnsupportedCapability: the backend cancels no jobs (CAN-1).
        """
        if not self.cancel:
            raise UnsupportedCapability(
                "this backend can't cancel jobs, as memory, SQLite, Redis and PostgreSQL can; or give "
                "RabbitMQ a coordination store by URL: amqp://host?store=redis://host"
            )

    def require_dead_ttl(self) -> None:
        """Refuse a time for dead letters if the backend removes none.

        Raises:
            UnsupportedCapability: dead letters stay until somebody redrives or discards them (DLQ-5).
        """
        if not self.dead_ttl:
            raise UnsupportedCapability(
                "this backend removes no dead letters by itself: leave dead_ttl_s out, and discard them when "
                "they are no longer needed"
            )

    def require_first_ready(self) -> None:
        """Refuse to look at the first ready job if the backend can't.

        Raises:
            UnsupportedCapability: the backend shows no job without delivering it (CNT-2).
        """
        if not self.first_ready:
            raise UnsupportedCapability("this backend shows no job without delivering it")

    def require_results(self) -> None:
        """Refuse to look up a result if the backend keeps none.

        Raises:
            UnsupportedCapability: the backend keeps no results (RES-1).
        """
        if not self.results:
            raise UnsupportedCapability(
                "this backend keeps no results: give it a result store, if it takes one, or use another"
            )
