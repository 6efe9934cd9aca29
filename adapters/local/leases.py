"""The leases of the consumers of a queue in memory."""

from collections.abc import Callable, Sequence
from itertools import takewhile
from math import inf

from ...ports import Ack, Dead, Delivery, Settlement, SettleOutcome
from ..shared.receipts import Receipts
from .order import StoredJob


class LeaseTable:
    """The jobs that one consumer holds, by receipt, in the order in which their leases end.

    ``Held`` of ``adapters/shared/receipts.py`` grants receipts one by one and keeps no order. Here a batch is
    granted at once, and the leases that end first stand first. The caller holds the queue's lock.

    Args:
        name: The consumer's name; no other may have it.
        lease_s: How many seconds its leases last.
    """

    def __init__(self, name: str, lease_s: float) -> None:
        self.name = name
        self.lease_s = lease_s
        self.held: dict[str, StoredJob] = {}
        self.interrupted = False
        self.closed = False
        self._receipts = Receipts(name)

    @property
    def first_expiry(self) -> float:
        """When the first lease ends; infinity if there is none."""
        return next(iter(self.held.values())).lease_ends if self.held else inf

    def grant(self, pop: Callable[[], StoredJob], count: int, lease_ends: float) -> list[Delivery]:
        """Lease the next ``count`` jobs, which ``pop`` returns."""
        held, receipts, name, lease_s = self.held, self._receipts, self.name, self.lease_s
        new = tuple.__new__  # half of what Delivery(...) costs
        deliveries = []
        for granted in range(receipts.granted + 1, receipts.granted + 1 + count):
            job = pop()
            job.number += 1
            job.progress = None
            job.lease_ends = lease_ends
            receipt = f"{name}.{granted}"
            held[receipt] = job
            deliveries.append(
                new(Delivery, (job.id, job.body, receipt, job.attempt, job.number, job.crashes, lease_s))
            )
        receipts.granted += count
        return deliveries

    def extend(self, receipt: str, now: float) -> SettleOutcome:
        """Extend a lease to its full length from now."""
        job = self.held.pop(receipt, None)
        if job is None:
            return self.why_not_held(receipt)
        job.lease_ends = now + self.lease_s
        self.held[receipt] = job  # at the end: the jobs are in the order in which their leases end
        return SettleOutcome.OK if job.cancel_ttl_s is None else SettleOutcome.CANCELLED

    def ending(self, settlements: Sequence[Settlement]) -> list[str]:
        """Return the ids of the jobs that these end, but for those that they cancel."""
        ends = [each.receipt for each in settlements if isinstance(each, Ack | Dead)]
        return [self.held[receipt].id for receipt in ends if receipt in self.held]

    def hold(self, receipt: str, job: StoredJob) -> None:
        """Hold a job again that was to be settled and wasn't; its lease ends as before."""
        held = sorted([*self.held.items(), (receipt, job)], key=lambda each: each[1].lease_ends)
        self.held.clear()
        self.held.update(held)

    def why_not_held(self, receipt: str) -> SettleOutcome:
        """Tell a receipt that was settled from one that was lost, or never granted."""
        return self._receipts.why_not_held(receipt)

    def expire(self, now: float) -> list[StoredJob]:
        """End the leases whose time is over, and return their jobs."""
        expired = list(takewhile(lambda held: held[1].lease_ends <= now, self.held.items()))
        self._receipts.lose(receipt for receipt, _ in expired)
        for receipt, _ in expired:
            del self.held[receipt]
        return [job for _, job in expired]

    def lose_all(self) -> None:
        """End all leases: the queue was deleted."""
        self._receipts.lose(self.held)
        self.held.clear()


class LeaseTables:
    """The lease tables of a queue's consumers. The caller holds the queue's lock."""

    def __init__(self) -> None:
        self._tables: dict[str, LeaseTable] = {}
        self.next_expiry = inf
        """No lease ends before this; it may be too early, never too late."""

    def __len__(self) -> int:
        """How many consumers are open."""
        return len(self._tables)

    @property
    def in_flight(self) -> int:
        """How many jobs are leased."""
        return sum(len(table.held) for table in self._tables.values())

    def add(self, table: LeaseTable) -> None:
        """Add the table of a consumer that was opened."""
        self._tables[table.name] = table

    def remove(self, table: LeaseTable) -> None:
        """Remove the table of a consumer that is closed."""
        self._tables.pop(table.name, None)

    def leased(self) -> dict[str, StoredJob]:
        """Return all leased jobs by their ids."""
        return {job.id: job for table in self._tables.values() for job in table.held.values()}

    def expire(self, now: float) -> list[StoredJob]:
        """End the leases whose time is over, and return their jobs."""
        expired = [job for table in self._tables.values() for job in table.expire(now)]
        self.next_expiry = min((table.first_expiry for table in self._tables.values()), default=inf)
        return expired

    def lose_all(self) -> None:
        """End all leases: the queue was deleted."""
        for table in self._tables.values():
            table.lose_all()
