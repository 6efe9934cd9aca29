"""Run the suite against a fault, to see whether it is detected."""

from collections.abc import Mapping

from ..check_context import CheckContext
from ..harness import Harness
from ..profiles import PROFILES
from ..registry import all_checks
from ..run import Result, run_check, run_contract
from .fault_registry import Fault, all_faults
from .harness import BrokenHarness

_SEEDS = 20


def possible_faults(harness: Harness) -> tuple[Fault, ...]:
    """The faults that the adapter of ``harness`` can have, by what it declares to be able to do."""
    capabilities = CheckContext(harness, PROFILES["quick"]).capabilities
    return tuple(fault for fault in all_faults() if fault.applies(capabilities))


def detect(
    harness: Harness, fault: Fault, *, profile: str = "quick", known: Mapping[str, str] | None = None
) -> dict[str, Result | None]:
    """Build ``fault`` into the adapter of ``harness``, and run the checks of the clauses that it breaks.

    Which of several broken clauses the state machine meets first is chance, so other seeds are tried, too.

    Args:
        harness: The harness of the adapter.
        fault: What is wrong with it.
        profile: A name of ``PROFILES``: how hard to try.
        known: By clause, the name of the check that found it before. It is tried before the others.

    Returns:
        For each of these clauses the first check that found it broken; None where none did.
    """
    broken = BrokenHarness(harness, fault)

    def first(clause: str) -> Result | None:
        for check in all_checks():
            if known is not None and check.name == known.get(clause):
                result, _ = run_check(CheckContext(broken, PROFILES[profile]), check)
                if result.broken == clause:
                    return result
        for seed in (None, *range(_SEEDS)):
            results = run_contract(broken, profile=profile, seed=seed, clauses=[clause])
            if found := next((result for result in results if result.broken == clause), None):
                return found
        return None

    return {clause: first(clause) for clause in fault.clauses}
