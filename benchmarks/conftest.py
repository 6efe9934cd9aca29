"""Shows what each benchmark says of itself under pytest-benchmark's table."""

import pytest


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter, config: pytest.Config) -> None:
    benchmarks = config._benchmarksession.benchmarks
    if benchmarks:
        terminalreporter.section("jobs per second, by the median round")
    for benchmark in benchmarks:
        terminalreporter.write_line(f"{benchmark.name:40} {benchmark.extra_info['jobs/s']:>12,}")
