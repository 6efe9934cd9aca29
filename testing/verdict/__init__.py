"""What gives each run of the tests a verdict, and soon: what hangs, or has died, ends it by name.

A plugin of pytest, which the ``conftest.py`` at the root names.
"""

import pytest

from .dead_servers import DeadServers
from .hung_phases import HungPhases
from .overdue_run import OverdueRun

_DIVISOR = "verdict_limits_divided_by"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of this plugin be quick."""
    parser.addini(
        _DIVISOR, "the limits of what hangs or is dead, but for `timeout`, are divided by this", default="1"
    )


def pytest_configure(config: pytest.Config) -> None:
    """Watch each process, and from the one that controls the run the servers and the other processes."""
    divisor = float(config.getini(_DIVISOR))
    config.pluginmanager.register(HungPhases(config, divisor))
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(DeadServers(config, divisor))
        config.pluginmanager.register(OverdueRun(config))
