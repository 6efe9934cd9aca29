"""Compare each benchmark with a reference of the same run, and that ratio with the one that was saved.

A machine's speed cancels out of the ratio, so a baseline of one machine serves another.
"""

import json
import time
from pathlib import Path

import pytest
from pydantic import TypeAdapter

BASELINE = Path(__file__).parent / "baseline.json"
WORSE = 1.5
"""What counts as a regression. Machines differ by less, and so do runs of one that others use."""
_PAIRS = TypeAdapter(dict[str, float])
_TEXT = b'{"x":1.5,"y":2.5}'


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--save-baseline", action="store_true", help=f"write {BASELINE.name} from this run")


def reference_s() -> float:
    """The least seconds that a validation by pydantic, and json's dumping, take right now."""
    least = float("inf")
    for _ in range(200):
        began = time.perf_counter()
        for _ in range(20):
            json.dumps(_PAIRS.validate_json(_TEXT))
        least = min(least, time.perf_counter() - began)
    return least / 20


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    benchmarks = config._benchmarksession.benchmarks
    if not benchmarks:
        return
    terminalreporter.section("jobs per second by the median round; cost of a job, in references")
    saved = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    for one in benchmarks:
        ratio, before = one.extra_info["ratio"], saved.get(one.name)
        told = f"{one.name:40} {one.extra_info['jobs/s']:>12,}/s {ratio:8.2f}"
        if before is not None:
            told += f"  {ratio / before:5.2f} of the baseline's {before:.2f}"
        terminalreporter.write_line(told)
        if "loop_us" in one.extra_info:
            terminalreporter.write_line(f"  of it the loop's own: {one.extra_info['loop_us']:.2f} µs a job")


@pytest.hookimpl(trylast=True)
def pytest_sessionfinish(session: pytest.Session) -> None:
    """Save the baseline, or fail where something became slower by more than runs differ."""
    ratios = {one.name: one.extra_info["ratio"] for one in session.config._benchmarksession.benchmarks}
    if session.config.getoption("--save-baseline"):
        BASELINE.write_text(json.dumps(ratios, indent=2) + "\n", "utf-8")
        return
    saved = json.loads(BASELINE.read_text("utf-8")) if BASELINE.exists() else {}
    worse = [name for name, ratio in ratios.items() if ratio > WORSE * saved.get(name, ratio)]
    if worse:
        print(f"\nslower than the baseline by more than {WORSE} times: {', '.join(worse)}")
        session.exitstatus = pytest.ExitCode.TESTS_FAILED
