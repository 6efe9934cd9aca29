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
        first = receipts.granted + 1
        receipts.granted += count  # first: an interrupt half-way must not give out a receipt twice
        for granted in range(first, first + count):
            job = pop()
            job.number += 1
            job.progress = None
            job.lease_ends = lease_ends
            receipt = f"{name}.{granted}"
            held[receipt] = job
            deliveries.append(
                new(Delivery, (job.id, job.body, receipt, job.attempt, job.number, job.crashes, lease_s))
            )
        return deliveries

    def extend(self, receipt: str, now: float) -> SettleOutcome:
        """Extend a lease to its full length from now."""
        job = self.held.get(receipt)
        if job is None:
            return self.why_not_held(receipt)
        job.lease_ends = now + self.lease_s
        del self.held[receipt]
        self.held[receipt] = job  # at the end: the jobs are in the order in which their leases end
        return SettleOutcome.OK if job.cancel_ttl_s is None else SettleOutcome.CANCELLED

    def ending(self, settlements: Sequence[Settlement]) -> list[str]:
        """Return the ids of the jobs that these end, but for those that they cancel."""
        ends = [each.receipt for each in settlements if isinstance(each, Ack | Dead)]
        return [self.held[receipt].id for receipt in ends if receipt in self.held]

    def why_not_held(self, receipt: str) -> SettleOutcome:
        """Tell a receipt that was settled from one that was lost, or never granted."""
        return self._receipts.why_not_held(receipt)

    def over(self, now: float) -> list[tuple[str, StoredJob]]:
        """Return the receipts and jobs whose leases are over, and are to be ended."""
        return list(takewhile(lambda held: held[1].lease_ends <= now, self.held.items()))

    def end(self, receipt: str, job: StoredJob) -> None:
        """End a lease that is over, which counts as a crash."""
        self._receipts.lose([receipt])
        job.crashes += 1
        del self.held[receipt]

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

    def __contains__(self, table: LeaseTable) -> bool:
        return table.name in self._tables

    def remove(self, table: LeaseTable) -> None:
        """Remove the table of a consumer that is closed."""
        self._tables.pop(table.name, None)

    def leased(self) -> dict[str, StoredJob]:
        """Return all leased jobs by their ids."""
        return {job.id: job for table in self._tables.values() for job in table.held.values()}

    def find(self, job_id: str) -> tuple[LeaseTable, str, StoredJob] | None:
        """Return where a job is leased, and its receipt; None if it isn't."""
        leases = ((table, *each) for table in self._tables.values() for each in table.held.items())
        return next((lease for lease in leases if lease[2].id == job_id), None)

    def over(self, now: float) -> list[tuple[LeaseTable, str, StoredJob]]:
        """Return the leases whose time is over, and which are to be ended."""
        return [(table, *each) for table in self._tables.values() for each in table.over(now)]

    def plan(self) -> None:
        """Note when the next lease ends."""
        self.next_expiry = min((table.first_expiry for table in self._tables.values()), default=inf)

    def lose_all(self) -> None:
        """End all leases: the queue was deleted."""
        for table in self._tables.values():
            table.lose_all()
