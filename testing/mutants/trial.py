"""Run the contract suite on one mutant."""

import json
import os
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from .mutant import Mutant
from .mutated_package import mutated_package

_LONGEST_CHECK_S = 240
"""A check that takes longer hangs; it takes seconds on an adapter without a fault."""
_LONGEST_TRIAL_S = 1800.0
_MODULES = {
    name: [f"contract_tests/test_{name}.py"] for name in ("local", "sqlite", "redis", "postgresql")
} | {"rabbitmq": ["contract_tests/test_rabbitmq.py", "contract_tests/test_rabbitmq_with_redis.py"]}


@dataclass(frozen=True, slots=True)
class Verdict:
    """What the suite said of a mutant."""

    mutant: Mutant
    check: str | None
    """The first check that failed; None if all passed."""
    clause: str | None
    """The clause that this check named; None if it named none, as a check that hangs."""
    error: str | None
    """What it printed."""
    seconds: float

    @property
    def is_caught(self) -> bool:
        """Whether the suite found a fault."""
        return self.check is not None

    @property
    def by_its_clause(self) -> bool:
        """Whether it was found by a clause that the fault breaks."""
        return self.clause in self.mutant.clauses


class TrialFailed(Exception):
    """The suite couldn't be run."""


def try_mutant(
    mutant: Mutant | None,
    backend: str,
    *,
    folder: Path,
    servers: Mapping[str, str],
    profile: str,
    workers: int,
    nearest: bool,
) -> tuple[str | None, str | None, str | None, float]:
    """Run the suite until a check fails; return the check, the clause, its words, and the seconds it took.

    With ``nearest``, only the checks of the clauses that the mutant breaks run, if it names any.
    """
    report = folder.with_suffix(".json")
    report.unlink(missing_ok=True)
    began = time.monotonic()
    with mutated_package(folder, mutant) as path:
        command = [
            *(sys.executable, "-m", "pytest", "--quiet", "--exitfirst", "-p", "mutants.only_the_suite"),
            *("--numprocesses", str(workers), "--dist", "worksteal", "--timeout", str(_LONGEST_CHECK_S)),
            *("--contract-profile", profile, "--contract-report", str(report), "-p", "no:cacheprovider"),
            *("--tb", "line", "-rf", *_MODULES[backend]),
            *(_only_checks_of(mutant.clauses) if nearest and mutant is not None else ()),
        ]
        environment = os.environ | servers | {"PYTHONPATH": os.pathsep.join((str(path), "testing"))}
        try:
            ran = subprocess.run(
                command,
                env=environment,
                capture_output=True,
                text=True,
                timeout=_LONGEST_TRIAL_S,
                check=False,
            )
        except subprocess.TimeoutExpired:
            return "the run", None, f"it took over {_LONGEST_TRIAL_S:g} s", time.monotonic() - began
    seconds = time.monotonic() - began
    if ran.returncode == 0:
        return None, None, None, seconds
    if broken := _first_broken(report, backend):
        return broken["check"], broken["broken"], broken["error"], seconds
    return _first_failure(ran), None, ran.stdout[-2000:], seconds


def _only_checks_of(clauses: Sequence[str]) -> Sequence[str]:
    """Return the arguments that leave only the checks of these clauses; none, for no clause."""
    return ("-k", " or ".join(clause.replace("-", "") for clause in clauses)) if clauses else ()


def _first_broken(report: Path, backend: str) -> dict[str, str] | None:
    if not report.exists():
        return None
    document = json.loads(report.read_text("utf-8"))
    checks = [check for each in document["backends"].values() for check in each["checks"]]
    return next((check for check in checks if check["broken"]), None)


def _first_failure(ran: subprocess.CompletedProcess[str]) -> str:
    """What failed outside any check: a fixture, the import of the adapter, a process that hung."""
    lines = [line for line in ran.stdout.splitlines() if line.startswith(("FAILED", "ERROR"))]
    if ran.returncode == 5 or not lines:
        raise TrialFailed(f"pytest ended with {ran.returncode}:\n{ran.stdout[-3000:]}{ran.stderr[-3000:]}")
    return lines[0][:200]
