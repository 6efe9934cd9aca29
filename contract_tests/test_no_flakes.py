"""A correct adapter passes every time: with 20 seeds.

And however fast its broker's time goes by, and on a machine that stands still now and then.
"""

import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from random import Random
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs.contract import Harness, run_contract
from mindtrace.jobs.contract.broken import BrokenHarness, Fault
from mindtrace.jobs.contract.broken.fault_registry import everywhere
from mindtrace.jobs.contract.broken.pass_through import PassThrough
from mindtrace.jobs.contract.check_context import CheckContext
from mindtrace.jobs.contract.checks.leases import a_long_handler_keeps_its_job
from mindtrace.jobs.contract.profiles import PROFILES
from mindtrace.jobs.contract.registry import all_checks
from mindtrace.jobs.contract.run import run_check

from .harnesses import LocalHarness

pytestmark = pytest.mark.long

ROOT = Path(__file__).parents[1]
CALLS = [
    *("declare", "publish", "counts", "purge", "redrive", "result", "receive", "settle", "extend"),
    *("publish_guarded", "get", "scan", "put", "delete_record", "take_places", "leave_places"),
    *("reserve", "reserve_each"),
]
"""Methods of an adapter for whose calls a slow machine takes its time."""


def test_a_correct_adapter_passes_under_pytest_with_a_seed() -> None:
    words = "-m pytest -q -p no:cacheprovider contract_tests/test_local.py --contract-profile=quick"
    command = [sys.executable, *words.split(), "--contract-seed", "20"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, timeout=2 * LIMIT_S)

    assert run.returncode == 0, run.stdout


@pytest.mark.parametrize("seeds", [range(first, first + 5) for first in range(0, 20, 5)], ids=str)
def test_a_correct_adapter_passes_with_any_seed(seeds: range) -> None:
    """The whole suite with the first of them; with the others, what draws examples."""
    results = [*run_contract(LocalHarness(), profile="quick", seed=seeds[0])]
    drawing = {result.check for result in results if result.examples}
    for seed in seeds[1:]:
        context = CheckContext(LocalHarness(), PROFILES["quick"], seed)
        results += [run_check(context, check)[0] for check in all_checks() if check.name in drawing]

    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
    assert any("model" in check for check in drawing)


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


class ShortLeaseHarness(LocalHarness):
    lease_s = 1.0


def standing_still(harness: Harness, seed: int) -> Harness:
    """The adapter of ``harness``, on a machine on which a call may take longer than its shortest lease."""
    chance = Random(seed)

    def pause() -> None:
        if chance.random() < 0.2:
            harness.advance(chance.uniform(0.0, 1.5 * harness.lease_s))

    def paused(method: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any) -> Any:
            pause()
            try:
                return method(*arguments)
            finally:
                pause()

        return call

    class StandsStill(PassThrough):
        """Takes its time before and after each call."""

    for name in CALLS:
        setattr(StandsStill, name, paused(getattr(PassThrough, name)))
    return BrokenHarness(harness, Fault(StandsStill, (), everywhere))


@pytest.mark.parametrize("seed", range(3))
def test_a_correct_adapter_passes_on_a_machine_that_stands_still_now_and_then(seed: int) -> None:
    """But for one check, which has to wait for several of the longer leases that it would then need."""
    checks = [check for check in all_checks() if check.run is not a_long_handler_keeps_its_job]
    context = CheckContext(standing_still(ShortLeaseHarness(), seed), PROFILES["quick"])

    results = [run_check(context, check)[0] for check in checks]

    assert [f"{result.check}: {result.error}" for result in results if result.broken] == []
