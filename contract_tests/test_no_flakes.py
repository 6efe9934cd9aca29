"""A correct adapter passes every time: 20 runs with 20 seeds, several at once, to keep the machine busy."""

import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from functools import partial
from pathlib import Path

import pytest

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
