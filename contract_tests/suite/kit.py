"""The suite as pytest sees it."""

import json
from collections.abc import Callable, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pytest

from .bench import Bench
from .harness import Harness
from .profiles import PROFILES
from .registry import Check, all_checks
from .run import run_check

PROPERTY = "mindtrace.jobs.contract"
"""Under which name a test's result travels in its pytest report: as JSON, which pytest-xdist can carry."""


def contract_suite(harness: type[Harness]) -> dict[str, Any]:
    """Make a pytest function of every check, for the adapter that ``harness`` makes.

    In the module of your tests: ``globals().update(contract_suite(MyHarness))``.
    """
    tests: dict[str, Any] = {"contract_bench": _bench_fixture(harness)}
    for check in all_checks():
        if check.name in tests:
            raise RuntimeError(f"two checks are named {check.name}")
        tests[check.name] = _as_test(check, harness)
    return tests


def _bench_fixture(harness: type[Harness]) -> Any:
    @pytest.fixture(scope="module", name="contract_bench")
    def contract_bench(request: pytest.FixtureRequest) -> Iterator[Bench]:
        config = request.config
        with closing(harness()) as made:
            yield Bench(
                made, PROFILES[config.getoption("contract_profile")], config.getoption("contract_seed")
            )

    return contract_bench


def _as_test(check: Check, harness: type[Harness]) -> Callable[..., None]:
    def test(contract_bench: Bench, request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        result, error = run_check(contract_bench, check)
        told = {
            "backend": harness.backend_name(),
            "capabilities": asdict(contract_bench.capabilities),
            "result": result.as_json(),
        }
        request.node.user_properties.append((PROPERTY, json.dumps(told)))
        if error is not None:
            raise error

    test.__name__ = check.name
    test.__doc__ = check.sentence
    return test
