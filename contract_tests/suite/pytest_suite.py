"""Make pytest functions of the checks."""

import json
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from dataclasses import asdict
from typing import Any

import pytest

from .check_context import CheckContext
from .harness import Harness
from .profiles import PROFILES
from .registry import Check, Feature, all_checks
from .run import run_check

BORROWED: tuple[Feature, ...] = ("results", "coordination", "freed_places")
"""What a broker may have by stores of other systems only."""
PROPERTY = "mindtrace.jobs.contract"
"""The name under which a pytest report carries a result: as JSON, which pytest-xdist can send."""


def contract_suite(harness: type[Harness], *, needs: Collection[Feature] | None = None) -> dict[str, Any]:
    """Make a pytest function of every check, for the adapter that ``harness`` makes.

    In the module of your tests: ``globals().update(contract_suite(MyHarness))``.

    Args:
        harness: The adapter's harness.
        needs: Only the checks that need one of these capabilities; all checks by default. For an adapter that
            has them by a store that it borrows: ``needs=BORROWED`` tries that store without all the rest.
    """
    tests: dict[str, Any] = {"contract_context": _context_fixture(harness)}
    for check in all_checks():
        if needs is not None and check.needs not in needs:
            continue
        if check.name in tests:
            raise RuntimeError(f"two checks are named {check.name}")
        tests[check.name] = _as_test(check, harness, needs)
    return tests


def _context_fixture(harness: type[Harness]) -> Any:
    @pytest.fixture(scope="module", name="contract_context")
    def contract_context(request: pytest.FixtureRequest) -> Iterator[CheckContext]:
        config = request.config
        with closing(harness()) as made:
            yield CheckContext(
                made, PROFILES[config.getoption("contract_profile")], config.getoption("contract_seed")
            )

    return contract_context


def _as_test(check: Check, harness: type[Harness], needs: Collection[Feature] | None) -> Callable[..., None]:
    def test(contract_context: CheckContext, request: pytest.FixtureRequest) -> None:
        __tracebackhide__ = True
        result, error = run_check(contract_context, check)
        record = {
            "backend": harness.backend_name(),
            "capabilities": asdict(contract_context.capabilities),
            "needs": None if needs is None else sorted(needs),
            "result": result.as_json(),
        }
        request.node.user_properties.append((PROPERTY, json.dumps(record)))
        if error is not None:
            raise error

    test.__name__ = check.name
    test.__doc__ = check.sentence
    return pytest.mark.begins_first(test) if check.takes_long else test
