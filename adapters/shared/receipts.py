"""Receipts: what a consumer holds, and what to answer for receipts that it holds no more (SET-1, LSE-4)."""

from collections import OrderedDict
from collections.abc import Iterable
from typing import Generic, TypeVar

from ...ports import Settlement, SettleOutcome

JobT = TypeVar("JobT")

_REMEMBERED = 10_000
"""How many lost receipts of one consumer are told apart from those that were settled."""


class Receipts:
    """The receipts ``name.1``, ``name.2`` … of one consumer: what is to be answered for one it doesn't hold.

    Args:
        name: The consumer's; no other may have it.
    """

    def __init__(self, name: str) -> None:
        self.name = name
        self.granted = 0
        """The number of the last that was given out."""
        self._lost: OrderedDict[int, None] = OrderedDict()
        self._forgotten = 0
        """Up to this number it isn't known any more which were lost."""

    def lose(self, receipts: Iterable[str]) -> None:
        """Remember that these were lost, not settled."""
        for receipt in receipts:
            self._lost[self._number(receipt)] = None
        while len(self._lost) > _REMEMBERED:
            self._forgotten = max(self._forgotten, self._lost.popitem(last=False)[0])

    def why_not_held(self, receipt: str) -> SettleOutcome:
        """Tell a receipt that was settled from one that was lost, long forgotten, or never given out."""
        number = self._number(receipt)
        settled = self._forgotten < number <= self.granted and number not in self._lost
        return SettleOutcome.ALREADY if settled else SettleOutcome.LOST

    def _number(self, receipt: str) -> int:
        name, _, digits = receipt.rpartition(".")
        plain = name == self.name and len(digits) < 19 and digits.isascii() and digits.isdecimal()
        return int(digits) if plain and digits[0] != "0" else 0


class Held(Generic[JobT]):
    """The deliveries that one consumer holds, by receipt: each is granted once, and settled once.

    Not safe to share between threads without a lock.

    Args:
        name: The consumer's; no other may have it.
    """

    def __init__(self, name: str) -> None:
        self._receipts = Receipts(name)
        self._jobs: dict[str, JobT] = {}

    def grant(self, job: JobT) -> str:
        """Hold a job that was leased just now, and return its receipt."""
        self._receipts.granted += 1
        receipt = f"{self._receipts.name}.{self._receipts.granted}"
        self._jobs[receipt] = job
        return receipt

    def get(self, receipt: str) -> JobT | None:
        """Return the job of a receipt, or None if it isn't held."""
        return self._jobs.get(receipt)

    def those_of(self, receipts: Iterable[str]) -> dict[str, JobT]:
        """Return the jobs of the receipts that are held."""
        return {receipt: self._jobs[receipt] for receipt in receipts if receipt in self._jobs}

    def to_settle(self, settlements: Iterable[Settlement]) -> dict[str, tuple[JobT, Settlement]]:
        """Return the jobs that are held, with their settlements: the first of each."""
        found: dict[str, tuple[JobT, Settlement]] = {}
        for settlement in settlements:
            if (job := self._jobs.get(settlement.receipt)) is not None:
                found.setdefault(settlement.receipt, (job, settlement))
        return found

    def replace(self, receipt: str, job: JobT) -> None:
        """Hold ``job`` in place of what was held under this receipt."""
        self._jobs[receipt] = job

    def receipts(self) -> list[str]:
        """Return the receipts that are held."""
        return list(self._jobs)

    def settle(self, receipt: str, *, took_effect: bool, is_cancelled: bool = False) -> SettleOutcome:
        """End a receipt, and answer its settlement: OK, ALREADY, or LOST where it took no effect.

        Of a job that ended as cancelled instead, CANCELLED.
        """
        if self._jobs.pop(receipt, None) is None:
            return self._receipts.why_not_held(receipt)
        if took_effect:
            return SettleOutcome.CANCELLED if is_cancelled else SettleOutcome.OK
        self._receipts.lose([receipt])
        return SettleOutcome.LOST

    def lose(self, receipt: str) -> None:
        """Note that the lease of a receipt ended."""
        if self._jobs.pop(receipt, None) is not None:
            self._receipts.lose([receipt])

    def outcome(self, receipt: str, *, is_asked: bool = False) -> SettleOutcome:
        """Answer an extension: OK if the receipt is held, else ALREADY or LOST.

        Of a job that is held and was asked to be cancelled, CANCELLED.
        """
        if receipt not in self._jobs:
            return self._receipts.why_not_held(receipt)
        return SettleOutcome.CANCELLED if is_asked else SettleOutcome.OK
