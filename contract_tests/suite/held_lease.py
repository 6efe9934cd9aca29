"""A lease that a check keeps, on a machine that may be slow."""

from collections.abc import Callable
from math import inf
from typing import TypeVar

from .harness import Harness

ValueT = TypeVar("ValueT")


class HeldLease:
    """A lease that a check keeps, and whether it may have run out because this machine was too slow."""

    def __init__(self, harness: Harness, seconds: float) -> None:
        self.seconds = seconds
        self._harness = harness
        self._since = inf
        self._was_late = False

    def begin(self) -> None:
        """Note that the lease is taken now or later."""
        self._since = self._harness.now()

    def renewed_by(self, call: Callable[[], ValueT]) -> ValueT:
        """Make a call that takes or extends the lease, and note when it began unless it raises."""
        began = self._harness.now()
        value = call()
        self._was_late = self.may_be_over
        self._since = began
        return value

    @property
    def may_be_over(self) -> bool:
        """Whether it ever was renewed so late that the broker may have ended it before."""
        return self._was_late or self._harness.now() - self._since >= self.seconds
