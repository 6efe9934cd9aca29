"""Run the suite without pytest."""

import time
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass

from .check_context import CheckContext
from .clauses import CLAUSES
from .harness import Harness
from .modes import ONE_AT_A_TIME
from .profiles import PROFILES
from .registry import Check, all_checks, applicable
from .violation import ContractViolation


@dataclass(frozen=True, slots=True)
class Result:
    """The result of one check."""

    check: str
    clauses: tuple[str, ...]
    mode: str | None
    """How its consumers ran their jobs; None where the check needs no consumer of the application's."""
    refusal: bool
    """Whether the refusal of an unsupported capability was checked in place of the clause."""
    broken: str | None
    """The clause that was broken, None where the check passed."""
    error: str | None
    examples: int
    """How many examples of properties it took: all of the profile's, or as many as the failure needed."""
    seconds: float

    def as_json(self) -> dict[str, object]:
        """The result as a JSON object."""
        return asdict(self)


def run_check(context: CheckContext, check: Check) -> tuple[Result, BaseException | None]:
    """Run one check on ``context``; return its result, and what it raised."""
    __tracebackhide__ = True
    examples, began, context.failed = context.examples, time.perf_counter(), False
    context.mode = check.mode or ONE_AT_A_TIME
    run, refused = applicable(check, context.capabilities)
    error: Exception | None = None
    try:
        run(context)
    except Exception as raised:
        error = raised
    broken = None
    if isinstance(error, ContractViolation):
        broken = error.clause
    elif error is not None:
        broken = check.clauses[0]
        error.add_note(f"[{broken}] {CLAUSES[broken]}")
    result = Result(
        check=check.name,
        clauses=check.clauses,
        mode=None if check.mode is None else check.mode.name,
        refusal=refused,
        broken=broken,
        error=None if error is None else _described(error, broken),
        examples=context.examples - examples,
        seconds=round(time.perf_counter() - began, 3),
    )
    return result, error


def _described(error: Exception, clause: str | None) -> str:
    """What was seen, with the clause that it breaks."""
    named = "" if isinstance(error, ContractViolation) else f"[{clause}] "
    return f"{type(error).__name__}: {named}{error}"


def run_contract(
    harness: Harness, *, profile: str = "ci", seed: int | None = None, clauses: Iterable[str] | None = None
) -> Iterator[Result]:
    """Run the suite against the adapter of ``harness``, one result after the other.

    Args:
        harness: The adapter.
        profile: A name of ``PROFILES``: how hard to try.
        seed: Fixes the random numbers of properties; without it they are as the profile says.
        clauses: Only the checks that prove one of these; all by default.
    """
    context = CheckContext(harness, PROFILES[profile], seed)
    wanted = None if clauses is None else set(clauses)
    for check in all_checks():
        if wanted is None or wanted.intersection(check.clauses):
            yield run_check(context, check)[0]
