"""What ships, built once for all tests."""

import shutil
import sys
from pathlib import Path

import pytest

from .environments import ROOT, run
from .faults.report import Gathering


def pytest_configure(config: pytest.Config) -> None:
    """Gather what the fault matrix found where the run is told of it: not in the processes of xdist."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(Gathering())


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The wheel, built in isolation from an sdist that was built in isolation.

    Of a copy: to make an sdist writes into the tree, where another process of xdist may be making one, too.
    """
    dist = tmp_path_factory.mktemp("dist")
    unwanted = shutil.ignore_patterns(".*", "build", "dist", "*.egg-info", "__pycache__")
    tree = shutil.copytree(ROOT, tmp_path_factory.mktemp("tree") / "tree", ignore=unwanted)
    run(sys.executable, "-m", "build", "--outdir", dist, tree, cwd=dist)
    assert len(list(dist.glob("*.tar.gz"))) == 1
    (wheel,) = dist.glob("*.whl")
    return wheel
