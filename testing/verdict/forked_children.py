"""Have the end of a process noticed while a child that it has forked still runs.

pytest-xdist notices it as the pipe to the process closes. A forked child has that pipe, too: a run whose
process was ended would wait for the child. A child that came back would also report the rest of the tests.
"""

import os
from typing import Any

import pytest


def keep_channel_from_children(config: pytest.Config) -> None:
    """Have each forked child of this process close its copy of the pipe to the controlling process."""
    plugins = config.pluginmanager.get_plugins()
    (channel,) = (plugin.channel for plugin in plugins if hasattr(plugin, "channel"))
    pipe: Any = channel.gateway._io

    def close() -> None:
        nowhere = os.open(os.devnull, os.O_RDWR)
        for file in (pipe.infile, pipe.outfile):
            os.dup2(nowhere, file.fileno())
        os.close(nowhere)

    os.register_at_fork(after_in_child=close)
