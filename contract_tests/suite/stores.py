"""A coordination store on a fresh namespace, and its clock, for the checks of CRD."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Generic, NamedTuple, TypeVar

from ..ports import CoordinationStore
from .check_context import CheckContext
from .check_queue import CLOCKS_DIFFER_S
from .violation import demand

AnswerT = TypeVar("AnswerT")
AnswerT_co = TypeVar("AnswerT_co", covariant=True)


@contextmanager
def stores(context: CheckContext, count: int = 2) -> Iterator[list[CoordinationStore]]:
    """The store, as several clients of one fresh namespace see it."""
    with context.backends(count) as backends:
        yield [backend.coordination for backend in backends]


class Timed(NamedTuple, Generic[AnswerT_co]):
    """What a call answered, and when it was made by the store's clock: between ``before`` and ``after``."""

    answer: AnswerT_co
    before: float
    after: float


def timed(store: CoordinationStore, call: Callable[[], AnswerT]) -> Timed[AnswerT]:
    """Make a call, and read the store's clock before and after it."""
    before = store.now()
    answer = call()
    return Timed(answer, before, store.now())


class End(NamedTuple):
    """When something that has a time ends: the store began to count at some moment during a call."""

    earliest: float
    latest: float

    def is_surely_ahead(self, now: float) -> bool:
        """Whether it hasn't come by ``now``, which was read after what is judged."""
        return now < self.earliest - CLOCKS_DIFFER_S

    def is_surely_over(self, now: float) -> bool:
        """Whether it had come by ``now``, which was read before what is judged."""
        return now >= self.latest + CLOCKS_DIFFER_S


def end_of(call: Timed[object], ttl_s: float) -> End:
    """When what a call gave ``ttl_s`` seconds ends."""
    return End(call.before + ttl_s, call.after + ttl_s)


def wait_until_over(context: CheckContext, store: CoordinationStore, end: End) -> None:
    """Let time pass until something has surely ended."""
    while not end.is_surely_over(now := store.now()):
        context.harness.advance(end.latest + 2 * CLOCKS_DIFFER_S - now)


def expect_wins(winners: int, what: str) -> None:
    """Demand that one of several that tried at once succeeded (CRD-2)."""
    demand("CRD-2", winners == 1, f"{what} at once: {winners} succeeded")
