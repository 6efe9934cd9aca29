"""Running the suite against a fault, until it has named every clause that the fault breaks."""

from collections.abc import Iterator

from ..bench import Bench
from ..harness import Harness
from ..profiles import PROFILES
from ..run import Result, run_contract
from .catalogue import Fault, all_faults
from .harness import BrokenHarness


def faults_of(harness: Harness) -> tuple[Fault, ...]:
    """The faults that the adapter of ``harness`` can have, by what it declares to be able to do."""
    capabilities = Bench(harness, PROFILES["quick"]).capabilities
    return tuple(fault for fault in all_faults() if fault.applies(capabilities))


def hunt(harness: Harness, fault: Fault, *, profile: str = "quick") -> dict[str, Result | None]:
    """Build ``fault`` into the adapter of ``harness``, and run the checks of the clauses that it breaks.

    Returns:
        For each of these clauses the first check that found it broken; None where none did.
    """
    broken = BrokenHarness(harness, fault)
    return {
        clause: _first(run_contract(broken, profile=profile, clauses=[clause]), clause)
        for clause in fault.clauses
    }


def _first(results: Iterator[Result], clause: str) -> Result | None:
    return next((result for result in results if result.broken == clause), None)
