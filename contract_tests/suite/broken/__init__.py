"""Broken adapters: the contract suite's own test.

Each is a sound adapter with one realistic fault, and the suite must fail it by the clause that this breaks.
``python -m mindtrace.jobs.contract.broken module:MyHarness`` tries all of them on the adapter of a harness.
"""

from .catalogue import SOUND, Fault, all_faults
from .harness import BrokenHarness
from .hunt import faults_of, hunt

FAULTS: tuple[Fault, ...] = all_faults()

__all__ = ["FAULTS", "SOUND", "BrokenHarness", "Fault", "faults_of", "hunt"]
