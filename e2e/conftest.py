"""The wheel and a node of RabbitMQ, made once for all tests, and the report of the fault matrix."""

import shutil
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from brokers.fixtures import fail_without_server
from brokers.rabbitmq_server import PrivateRabbitMQ

from .faults.report import FaultReporter
from .virtual_environments import ROOT, run


def pytest_configure(config: pytest.Config) -> None:
    """Report the fault matrix from the controlling process only: not from the processes of xdist."""
    if not hasattr(config, "workerinput"):
        config.pluginmanager.register(FaultReporter())


@pytest.fixture(scope="session")
def rabbitmq_node(tmp_path_factory: pytest.TempPathFactory) -> Iterator[PrivateRabbitMQ]:
    """A node that all tests share which don't break theirs: it takes as long to start as most of them run."""
    with fail_without_server():
        node = PrivateRabbitMQ(tmp_path_factory.mktemp("rabbitmq"))
    try:
        yield node.start()
    finally:
        node.kill()


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
