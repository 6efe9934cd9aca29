"""The pytest plugin of the suite: its options and its report."""

import json
from pathlib import Path
from typing import Any

import pytest

from .missing_hooks import untried

_PROPERTY = "mindtrace.jobs.contract"
_BEGINS_FIRST = "begins_first"
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
    """Declare the marker of tests that take long, and collect results where a report was asked for."""
    config.addinivalue_line("markers", f"{_BEGINS_FIRST}: where pytest-xdist runs tests, as it takes long")
    path: Path | None = config.getoption("contract_report")
    if path is not None and not hasattr(config, "workerinput"):  # of pytest-xdist: the controller reports
        config.pluginmanager.register(
            _Reporter(path, config.getoption("contract_profile")), "contract-report"
        )


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Put in order what pytest-xdist runs; and let the checks of a long run take as long as they do.

    The order depends on how many tests there are, so those that ``-m`` or ``-k`` leaves out must be gone.
    The time is for where the project's tests have a limit of it. A limit that the command line gives stands.
    """
    items[:] = _long_first(items, getattr(config, "workerinput", {}).get("workercount", 1))
    is_long = config.getoption("contract_profile") == "thorough"
    if is_long and config.pluginmanager.hasplugin("timeout") and config.getoption("timeout") is None:
        for item in items:
            if "contract_context" in getattr(item, "fixturenames", ()):
                item.add_marker(pytest.mark.timeout(0), append=False)


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Say what wasn't tried, for lack of an optional method of the harness."""
    tried: dict[str, list[tuple[list[str], list[str]]]] = {}
    for reports in terminalreporter.stats.values():
        for report in reports:
            for record in _records(report):
                result = record["result"]
                tried.setdefault(record["backend"], []).append((result["missing_hooks"], result["clauses"]))
    for backend, results in sorted(tried.items()):
        for line in untried(results):
            terminalreporter.write_line(f"contract of {backend}: {line}")


def _records(report: object) -> list[dict[str, Any]]:
    """Return the results of the suite that a report carries; reports of other kinds carry none."""
    if getattr(report, "when", None) != "call":
        return []
    properties: list[tuple[str, Any]] = getattr(report, "user_properties", [])
    return [json.loads(value) for name, value in properties if name == _PROPERTY]


def _long_first(items: list[pytest.Item], workers: int) -> list[pytest.Item]:
    """Return the tests in an order in which each of pytest-xdist's workers begins with some that take long.

    With ``--dist worksteal`` each gets as many as stand together. One that takes long and began last would
    keep the others waiting.
    """
    is_long = {item: item.get_closest_marker(_BEGINS_FIRST) is not None for item in items}
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
        for record in _records(report):
            about = {"capabilities": record["capabilities"], "needs": record["needs"]}
            entry = self._backends.setdefault(record["backend"], {**about, "checks": []})
            entry["checks"].append(record["result"])

    def pytest_sessionfinish(self) -> None:
        self._path.parent.mkdir(parents=True, exist_ok=True)
        document = {"profile": self._profile, "backends": self._backends}
        self._path.write_text(json.dumps(document, indent=1) + "\n", "utf-8")
