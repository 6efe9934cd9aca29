"""The suite in a project whose tests may take so long and no longer."""

import subprocess
import sys
from pathlib import Path

import pytest

from conditions import LIMIT_S

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
SECONDS = "LSE3_a_long_handler_keeps_its_job[concurrency-1]"
"""A check that takes some seconds, whatever the profile."""


@pytest.mark.parametrize(
    ("options", "passes"),
    [
        (["--contract-profile=ci"], False),
        (["--contract-profile=thorough"], True),
        (["--contract-profile=thorough", "--timeout=0.5"], False),
    ],
    ids=["the project's limit holds", "but not in a long run", "unless it is asked for"],
)
def test_a_long_run_takes_as_long_as_it_does(options: list[str], passes: bool) -> None:
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "contract_tests/test_local.py"]

    run = subprocess.run(
        [*suite, "-k", SECONDS, "-o", "timeout=0.5", *options],
        cwd=ROOT,
        capture_output=True,
        text=True,
        timeout=2 * LIMIT_S,
    )

    assert ("1 passed" in run.stdout) == passes, run.stdout
    assert ("Timeout" in run.stdout + run.stderr) != passes, run.stdout
