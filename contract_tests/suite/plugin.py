"""The pytest plugin of the suite: its options and its report."""

import json
from pathlib import Path
from typing import Any

import pytest

_PROPERTY = "mindtrace.jobs.contract"
_TAKES_LONG = "contract_takes_long"
_PROFILES = ("quick", "ci", "random", "thorough")


def pytest_addoption(parser: pytest.Parser) -> None:
    """Add the suite's options."""
    group = parser.getgroup("contract", "mindtrace-jobs contract suite")
    group.addoption(
        "--contract-profile",
        dest="contract_profile",
        choices=_PROFILES,
        default="ci",
        help="how hard the contract suite tries (default: ci)",
    )
    group.addoption(
        "--contract-seed",
        dest="contract_seed",
        type=int,
        default=None,
        help="fix the random numbers of the contract suite's properties",
    )
    group.addoption(
        "--contract-report",
        dest="contract_report",
        type=Path,
        default=None,
        help="write the result of each check, for each backend, to this JSON file",
    )


def pytest_configure(config: pytest.Config) -> None:
    """Declare the suite's marker, and collect results where a report was asked for."""
    config.addinivalue_line("markers", f"{_TAKES_LONG}: begins first where pytest-xdist runs several tests")
    path: Path | None = config.getoption("contract_report")
    if path is not None and not hasattr(config, "workerinput"):  # of pytest-xdist: the controller reports
        config.pluginmanager.register(
            _Reporter(path, config.getoption("contract_profile")), "contract-report"
        )


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put in order what pytest-xdist runs; and let the checks of a long run take as long as they do.

    That is for where the project's tests have a limit of time. A limit that the command line gives stands.
    """
    items[:] = _long_first(items, getattr(config, "workerinput", {}).get("workercount", 1))
    is_long = config.getoption("contract_profile") == "thorough"
    if is_long and config.pluginmanager.hasplugin("timeout") and config.getoption("timeout") is None:
        for item in items:
            if "contract_context" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(0), append=False)


def _long_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return the tests in an order in which each of pytest-xdist's workers begins with some that take long.

    With ``--dist worksteal`` each gets as many as stand together. One that takes long and began last would
    keep the others waiting.
    """
    is_long = {item: item.get_closest_marker(_TAKES_LONG) is not None for item in items}
    long, short = [item for item in items if is_long[item]], [item for item in items if not is_long[item]]
    if workers == 1 or not long:
        return items
    ordered: list[pytest.Item] = []
    for worker in range(workers):
        first = long[worker::workers]
        share = (len(items) - len(ordered)) // (workers - worker)
        others = max(0, share - len(first))
        ordered += first + short[:others]
        del short[:others]
    return ordered


class _Reporter:
    def __init__(self, path: Path, profile: str) -> None:
        self._path = path
        self._profile = profile
        self._backends: dict[str, dict[str, Any]] = {}

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        if report.when != "call":
            return
        properties: list[tuple[str, Any]] = report.user_properties
        for name, value in properties:
            if name == _PROPERTY:
                record = json.loads(value)
                entry = self._backends.setdefault(
                    record["backend"], {"capabilities": record["capabilities"], "checks": []}
                )
                entry["checks"].append(record["result"])

    def pytest_sessionfinish(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        document = {"profile": self._profile, "backends": self._backends}
        self._path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
