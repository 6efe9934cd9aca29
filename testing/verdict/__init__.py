"""What gives each run of the tests a verdict, and soon: what hangs, or has died, ends it by name.

After a long run it tells which files cost the most.

A plugin of pytest, which the ``conftest.py`` at the root names.
"""

import pytest

from .costs import LONG_S, CostMeter, CostsByFile
from .dead_servers import PATIENCE_S, DeadServers
from .forked_children import keep_channel_from_children
from .hung_phases import HungPhases
from .overdue_run import OverdueRun

_DIVISOR = "hang_limits_divided_by"
_PATIENCE = "patience_with_dead_servers"
_LONG = "costs_are_told_after"


def pytest_addoption(parser: pytest.Parser) -> None:
    """Let the tests of this plugin be quick."""
    parser.addini(_DIVISOR, "the limits of what hangs, but for `timeout`, are divided by this", default="1")
    parser.addini(_LONG, "how many seconds the tests must take together", default=str(LONG_S))
    parser.addini(_PATIENCE, "how many seconds a server may take to answer", default=str(PATIENCE_S))


def pytest_configure(config: pytest.Config) -> None:
    """Watch each process, and from the one that controls the run the servers and the other processes."""
    config.pluginmanager.register(HungPhases(config, divisor=float(config.getini(_DIVISOR))))
    config.pluginmanager.register(CostMeter())
    if hasattr(config, "workerinput"):
        keep_channel_from_children(config)
    else:
        config.pluginmanager.register(DeadServers(config, patience_s=float(config.getini(_PATIENCE))))
        config.pluginmanager.register(OverdueRun(config))
        config.pluginmanager.register(CostsByFile(long_s=float(config.getini(_LONG))))
