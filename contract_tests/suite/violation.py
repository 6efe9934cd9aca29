"""The error that a check raises if an adapter breaks the contract."""

from .clauses import CLAUSES


class ContractViolation(AssertionError):
    """An adapter broke a clause.

    Args:
        clause: The id of the clause, such as ``"SET-1"``.
        found: What was seen, in a sentence.
    """

    def __init__(self, clause: str, found: str) -> None:
        self.clause = clause
        super().__init__(f"[{clause}] {CLAUSES[clause]} - but {found}")


def demand(clause: str, holds: object, found: str) -> None:
    """Raise ContractViolation unless ``holds`` is true."""
    __tracebackhide__ = True  # of pytest: what is of interest is the check that demands
    if not holds:
        raise ContractViolation(clause, found)
