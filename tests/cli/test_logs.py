"""The worker's logging: it configures what nobody else has, and no line comes twice."""

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager

import pytest

from mindtrace.jobs.cli.logs import configure


@contextmanager
def unconfigured() -> Iterator[logging.Logger]:
    """The root logger, with nothing configured, as when a process begins; pytest's own handlers, too."""
    root, core = logging.getLogger(), logging.getLogger("mindtrace")
    level = root.level
    with pytest.MonkeyPatch.context() as patch:
        for logger in (root, core):
            patch.setattr(logger, "handlers", [])
            patch.setattr(logger, "propagate", True)
        yield root
    root.setLevel(level)


def test_a_configuration_that_is_there_is_left_alone() -> None:
    """Handlers, level and all."""
    handler = logging.NullHandler()
    with unconfigured() as root:
        root.addHandler(handler)
        root.setLevel(logging.ERROR)

        assert not configure("json", "debug")
        assert root.handlers == [handler]
        assert root.level == logging.ERROR


def test_lines_of_mindtrace_core_come_once(capfd: pytest.CaptureFixture[str]) -> None:
    """Which writes its errors to stderr, keeps records from the root logger, and takes every level."""
    core, kept = logging.getLogger("mindtrace"), logging.NullHandler()
    mine = logging.getLogger("mindtrace.mine")
    with unconfigured():
        core.addHandler(logging.StreamHandler(sys.stderr))
        core.addHandler(kept)
        core.propagate = False

        assert configure("text", "info")
        mine.setLevel(logging.DEBUG)
        mine.debug("a detail")
        mine.error("an error")
        assert core.handlers == [kept]

    (line,) = capfd.readouterr().err.splitlines()
    assert line.endswith(" ERROR   an error")
