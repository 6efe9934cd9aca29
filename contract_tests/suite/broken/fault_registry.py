"""Register the faults, each with the clauses that it breaks."""

from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from inspect import getdoc

from ...ports import Capabilities
from ..clauses import CLAUSES
from .pass_through import PassThrough


@dataclass(frozen=True, slots=True)
class Fault:
    """One fault that an adapter can have."""

    make: type[PassThrough]
    clauses: tuple[str, ...]
    """The clauses that it breaks: the suite must name each."""
    applies: Callable[[Capabilities], bool]
    """Whether an adapter that can do so much can have this fault."""

    @property
    def name(self) -> str:
        """The name of the class."""
        return self.make.__name__

    @property
    def sentence(self) -> str:
        """What is wrong, in a sentence."""
        return " ".join((getdoc(self.make) or "").split())


def everywhere(_capabilities: Capabilities) -> bool:
    """Any adapter can have the fault."""
    return True


NO_FAULT = Fault(PassThrough, (), everywhere)
"""No fault: it shows that wrapping an adapter breaks nothing."""

_faults: list[Fault] = []

_MODULES = (
    "publishing",
    "order",
    "receiving",
    "leases",
    "settling",
    "next_jobs",
    "retries",
    "dead_letters",
    "dead_letter_times",
    "administration",
    "first_ready",
    "results",
    "cancelling",
    "connections",
    "records",
    "record_versions",
    "record_times",
    "limited_places",
    "freed_places",
    "rates",
    "guarded_publish",
    "scale",
    "positions",
    "unlike_orders",
    "equal_calls",
    "second_lives",
    "full_sizes",
    "traces",
    "races",
    "wakeups",
    "stale_receipts",
    "values",
    "lost_replies",
    "lost_requests",
    "refused_settlements",
    "caller_transactions",
    "leftovers",
    "counters",
    "wakeups_without_polls",
    "shared_stores",
    "counted_places",
)


def breaks(
    *clauses: str, where: Callable[[Capabilities], bool] = everywhere
) -> Callable[[type[PassThrough]], type[PassThrough]]:
    """Enter the decorated class as a fault that breaks ``clauses``."""
    unknown = [clause for clause in clauses if clause not in CLAUSES]
    if unknown or not clauses:
        raise ValueError(f"a fault names clauses of the contract, not {unknown}")

    def enter(make: type[PassThrough]) -> type[PassThrough]:
        _faults.append(Fault(make, clauses, where))
        return make

    return enter


def all_faults() -> tuple[Fault, ...]:
    """Every fault, in the contract's order."""
    for module in _MODULES:
        import_module(f"{__package__}.{module}")
    return tuple(_faults)
