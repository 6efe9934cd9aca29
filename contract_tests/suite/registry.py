"""The checks of the suite, each with the clauses that it proves."""

import inspect
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib import import_module
from typing import Literal

from ..ports import Capabilities
from .check_context import CheckContext
from .clauses import CLAUSES
from .modes import ONE_AT_A_TIME, Mode

Feature = Literal[
    "stack",
    "priority",
    "dedupe",
    "results",
    "cancel",
    "transactional_publish",
    "coordination",
    "freed_places",
    "guarded_publish",
    "then",
    "atomic_then",
    "dead_ttl",
    "exact_dead_ttl",
    "first_ready",
]


@dataclass(frozen=True, slots=True)
class Check:
    """One check: a function that raises AssertionError where the adapter breaks one of its clauses."""

    clauses: tuple[str, ...]
    run: Callable[[CheckContext], None]
    needs: Feature | None = None
    """The capability without which the clause doesn't apply; its refusal is then checked instead."""
    mode: Mode | None = None
    """How its consumers run their jobs; None where it drives the adapter without the application's."""
    takes_long: bool = False
    """Whether it takes much longer than others, so that it begins first where several run side by side."""

    @property
    def name(self) -> str:
        """The clauses, what is checked and in which mode, as a pytest function is named."""
        clauses = "_".join(clause.replace("-", "") for clause in self.clauses)
        mode = "" if self.mode is None else f"[{self.mode.name}]"
        return f"test_{clauses}_{self.run.__name__}{mode}"

    @property
    def sentence(self) -> str:
        """What is checked, in a sentence."""
        return inspect.getdoc(self.run) or ""


_checks: list[Check] = []
_refusals: dict[Feature, Callable[[CheckContext], None]] = {}

_MODULES = (
    "publishing",
    "caller_transactions",
    "order",
    "progress",
    "receiving",
    "leases",
    "lost_leases",
    "settling",
    "later_releases",
    "next_jobs",
    "atomic_next_jobs",
    "next_jobs_of_deaths",
    "retries",
    "delays",
    "long_times",
    "dead_letters",
    "dead_letter_times",
    "administration",
    "first_ready",
    "results",
    "many_results",
    "cancelling",
    "cancelled_runs",
    "cancel_races",
    "connections",
    "records",
    "record_versions",
    "record_times",
    "record_model",
    "shared_stores",
    "limited_places",
    "counted_places",
    "rates",
    "freed_places",
    "guarded_publish",
    "hostile_input",
    "scale",
    "positions",
    "unlike_orders",
    "equal_calls",
    "second_lives",
    "full_sizes",
    "traces",
    "races",
    "wakeups",
    "timed_wakeups",
    "wakeups_without_polls",
    "awaited_results",
    "stale_receipts",
    "values",
    "lost_replies",
    "lost_requests",
    "refused_settlements",
    "leftovers",
    "counters",
    "state_machine",
)


def check(
    *clauses: str,
    needs: Feature | None = None,
    modes: Sequence[Mode | None] = (None,),
    takes_long: bool = False,
) -> Callable[[Callable[[CheckContext], None]], Callable[[CheckContext], None]]:
    """Register the decorated function as a check of ``clauses``: once, or once for each of ``modes``."""
    unknown = [clause for clause in clauses if clause not in CLAUSES]
    if unknown or not clauses:
        raise ValueError(f"a check names clauses of the contract, not {unknown}")

    def register(run: Callable[[CheckContext], None]) -> Callable[[CheckContext], None]:
        _checks.extend(Check(clauses, run, needs, mode, takes_long) for mode in modes)
        return run

    return register


def refusal(feature: Feature) -> Callable[[Callable[[CheckContext], None]], Callable[[CheckContext], None]]:
    """Register the decorated function as what must hold where ``feature`` is declared off."""

    def register(run: Callable[[CheckContext], None]) -> Callable[[CheckContext], None]:
        _refusals[feature] = run
        return run

    return register


def all_checks() -> list[Check]:
    """Every check of the suite in the contract's order; those with many jobs at once after all others."""
    for module in _MODULES:
        import_module(f"{__package__}.checks.{module}")
    return sorted(_checks, key=lambda check: check.mode not in (None, ONE_AT_A_TIME))


def applicable(check: Check, capabilities: Capabilities) -> tuple[Callable[[CheckContext], None], bool]:
    """Return what is to be run for ``check``, and whether that is the refusal of what isn't supported."""
    if check.needs is None or getattr(capabilities, check.needs):
        return check.run, False
    return _refusals[check.needs], True
