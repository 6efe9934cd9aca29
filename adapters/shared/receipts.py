"""What an adapter must know of the receipts that it gave out, for as long as it matters."""

from collections import OrderedDict
from collections.abc import Iterable

from ...ports import SettleOutcome

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
