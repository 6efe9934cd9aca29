"""What a limit allows now: what the code declares, or what it was changed to since."""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Generic, NamedTuple, TypeVar

from ...domain.errors import InvalidInput
from ...domain.limits import Limit, Rate
from .changes import LimitChange, identity

LimitT = TypeVar("LimitT", Limit, Rate)


class InForce(Generic[LimitT]):
    """The limit, or the rate, that one consumer obeys (ADR 147).

    Args:
        queue: The consumer's queue.
        declared: What the code declares. By which fields it counts, its name, and what becomes of jobs while
            the store is away can't be changed.
        refresh: Asks the store for changes, unless it was asked in the last half second.
    """

    def __init__(self, queue: str, declared: LimitT, refresh: Callable[[], None] = lambda: None) -> None:
        self.queue = queue
        self.declared: LimitT = declared
        self.key = identity(queue, declared).key
        """The key of the record that changes it."""
        self.present: LimitT = declared
        """What is allowed, as far as is known."""
        self._refresh = refresh
        self._tell: Callable[[], None] = lambda: None

    def now(self) -> LimitT:
        """Return what is allowed now; what the store said is half a second old at most, if it can be reached.

        Call it for each request for places or turns, and with no lock that an answer of the store needs.
        """
        self._refresh()
        return self.present

    def listen(self, tell: Callable[[], None]) -> None:
        """Have ``tell`` called, by any thread, after something else is allowed."""
        self._tell = tell

    def note(self, changes: Mapping[str, LimitChange]) -> bool:
        """Note the changes that there are now; return whether something else is allowed than before."""
        before, change = self.present, changes.get(self.key)
        self.present = self.declared if change is None else changed(self.declared, change)
        return self.present != before

    def tell(self) -> None:
        """Say that something else is allowed."""
        self._tell()


class ConsumerLimits(NamedTuple):
    """What limits the jobs of one consumer."""

    limit: InForce[Limit] | None
    rate: InForce[Rate] | None

    @property
    def all(self) -> list[InForce[Any]]:
        """Those that there are."""
        return [each for each in self if each is not None]


def changed(declared: LimitT, change: LimitChange) -> LimitT:
    """Return what is allowed after a change.

    A record that can't be obeyed here, as somebody else wrote it, changes nothing.
    """
    fields: dict[str, Any] = {"count": change.count}
    if isinstance(declared, Rate):
        fields |= {"per_s": change.per_s or declared.per_s, "burst": change.burst or declared.burst}
    try:
        return replace(declared, **fields)
    except InvalidInput:
        return declared
