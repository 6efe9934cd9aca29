"""A correct adapter passes every time: 20 runs with 20 seeds, several at once, to keep the machine busy.

And however fast its broker's time goes by.
"""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path
from random import Random

import pytest

from mindtrace.jobs.contract import run_contract

from .harnesses import LocalHarness

ROOT = Path(__file__).parents[1]
SEEDS = range(20)

Run = subprocess.CompletedProcess[str]


@pytest.fixture(scope="module")
def runs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[list[Future[Run]]]:
    """The suite against the Local adapter, once for each seed."""
    suite = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "contract_tests/test_local.py"]
    options = ["--contract-profile=quick", "--contract-seed"]
    run = partial(subprocess.run, cwd=ROOT, capture_output=True, text=True)
    with ThreadPoolExecutor(7) as pool:
        yield [pool.submit(run, [*suite, *options, str(seed)]) for seed in SEEDS]


@pytest.mark.parametrize("seed", SEEDS)
def test_a_correct_adapter_passes_with_any_seed(runs: list[Future[Run]], seed: int) -> None:
    run = runs[seed].result()

    assert run.returncode == 0, run.stdout


class UnevenHarness(LocalHarness):
    """Time goes by while calls are made, as it does with a real clock, now faster, now slower."""

    def __init__(self) -> None:
        super().__init__()
        self._random = Random(1)

    def now(self) -> float:
        """The clock's time, a moment later."""
        self.advance(self._random.uniform(0, 0.1))
        return super().now()


def test_the_state_machine_goes_the_same_way_again_however_fast_time_goes_by() -> None:
    results = [*run_contract(UnevenHarness(), profile="ci", clauses=["I8"])]

    assert [result.error for result in results] == [None] * len(results)
    assert any("model" in result.check for result in results)
