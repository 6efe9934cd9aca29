"""Run the suite without pytest."""

import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import asdict, dataclass

from .check_context import CheckContext
from .clauses import CLAUSES
from .harness import Harness
from .lateness import Lateness
from .modes import ONE_AT_A_TIME
from .profiles import PROFILES
from .registry import Check, all_checks, applicable
from .violation import ContractViolation

_TRIES = 3
"""How often a check is tried that fails each time while this machine stands still."""
_LATE_S = 0.5
"""How long it stands still then: checks allow a broker less to do what needs no time."""


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
    """The clause that was broken, None where the check passed; its first where ``error`` names none."""
    error: str | None
    examples: int
    """How many examples of properties it took: all of the profile's, or as many as the failure needed."""
    seconds: float
    missing_hooks: tuple[str, ...] = ()
    """The optional methods that the harness lacks, so that the check tried less than it could."""
    late_s: float = 0.0
    """For how long this machine stood still at most meanwhile. If a check failed then, it was repeated."""

    def as_json(self) -> dict[str, object]:
        """The result as a JSON object."""
        return asdict(self)


def run_check(context: CheckContext, check: Check) -> tuple[Result, BaseException | None]:
    """Run one check on ``context``; return its result, and what it raised.

    One that fails while this machine stands still proves nothing, and is repeated, twice at most.
    """
    __tracebackhide__ = True
    began = time.perf_counter()
    context.missing_hooks.clear()
    context.mode = check.mode or ONE_AT_A_TIME
    run, refused = applicable(check, context.capabilities)
    late_s = 0.0
    for _ in range(_TRIES):
        examples, context.failed = context.examples, False
        with Lateness() as lateness:
            error = _raised_by(run, context)
        late_s = max(late_s, lateness.worst_s)
        if error is None or lateness.worst_s < _LATE_S:
            break
    broken = None
    if isinstance(error, ContractViolation):
        broken = error.clause
    elif error is not None:
        broken = check.clauses[0]
    described = None if error is None else _described(error, check, late_s)
    if error is not None and not isinstance(error, ContractViolation):
        error.add_note(_whose(error, check))  # for pytest
    result = Result(
        check=check.name,
        clauses=check.clauses,
        mode=None if check.mode is None else check.mode.name,
        refusal=refused,
        broken=broken,
        error=described,
        examples=context.examples - examples,
        seconds=round(time.perf_counter() - began, 3),
        missing_hooks=tuple(sorted(context.missing_hooks)),
        late_s=round(late_s, 3),
    )
    return result, error


def _raised_by(run: Callable[[CheckContext], None], context: CheckContext) -> Exception | None:
    __tracebackhide__ = True
    try:
        run(context)
    except Exception as error:
        return error
    return None


def _described(error: Exception, check: Check, late_s: float) -> str:
    """What was seen, the clause that it breaks as far as that is known, the example, and how late it was."""
    clause = "" if isinstance(error, ContractViolation) else f"{_whose(error, check)} - "
    lines = [f"{type(error).__name__}: {clause}{error}", *getattr(error, "__notes__", ())]
    if late_s >= _LATE_S:
        lines.append(f"this machine stood still for {late_s:.1f} s meanwhile: try again when it is idle")
    return "\n".join(lines)


def _whose(error: Exception, check: Check) -> str:
    """Which clause an error breaks that names none: a call that raised may break any of its check's."""
    first = check.clauses[0]
    if isinstance(error, AssertionError) or len(check.clauses) == 1:
        return f"[{first}] {CLAUSES[first]}"
    return f"a call raised this in a check of {', '.join(check.clauses)}; which of them is broken isn't known"


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
