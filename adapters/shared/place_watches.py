"""The watches of one store: each is told when one of its holders is next in line for a place (CRD-7)."""

import itertools
import secrets
from collections.abc import Callable

from ...ports import PlaceWatch


class PlaceWatches:
    """Watches by their numbers. A process that frees a place names the store's token and the number.

    Any thread may call any method. One thread reads what others report, and passes it on.
    """

    def __init__(self) -> None:
        self.token = secrets.token_hex(8)
        """Names the store: no other store of any process has it."""
        self._tells: dict[str, Callable[[str | None], None]] = {}
        self._numbers = itertools.count(1)

    def add(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        """Return a new watch, which calls ``tell`` with the key of each place, until it is closed."""
        number = str(next(self._numbers))
        self._tells[number] = tell
        return PlaceWatch(f"{self.token}-{number}", lambda: self._tells.pop(number, None))

    def tell(self, number: str, key: str) -> None:
        """Tell a watch that one of its holders is next for a place of ``key``; it may be closed by now."""
        if (tell := self._tells.get(number)) is not None:
            tell(key)

    def tell_of_missed(self) -> None:
        """Tell all watches that reports may have been missed."""
        for tell in list(self._tells.values()):
            tell(None)

    def clear(self) -> None:
        """Close all watches."""
        self._tells.clear()
