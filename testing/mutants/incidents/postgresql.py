"""Faults in the adapter of PostgreSQL."""

from ..mutant import Mutant

MUTANTS: tuple[Mutant, ...] = ()
