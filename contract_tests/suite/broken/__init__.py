"""Broken adapters: the contract suite's own test.

Each is a correct adapter with one realistic fault, and the suite must fail it by the clause that this breaks.
``python -m mindtrace.jobs.contract.broken module:MyHarness`` tries all of them on the adapter of a harness.
"""

from .detection import detect, possible_faults
from .fault_registry import NO_FAULT, Fault, all_faults
from .harness import BrokenHarness

FAULTS: tuple[Fault, ...] = all_faults()

__all__ = ["FAULTS", "NO_FAULT", "BrokenHarness", "Fault", "detect", "possible_faults"]
