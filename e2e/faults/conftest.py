"""The fixtures of the fault matrix: targets, started once a process, and experiments on them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from brokers.fixtures import fail_without_server

from .experiment import Experiment
from .matrix import Row
from .report import PROPERTY
from .targets import TARGETS, Target


@pytest.fixture(scope="session")
def targets(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Target]]:
    """The targets that were started so far."""
    started: dict[str, Target] = {}
    yield started
    for target in started.values():
        target.close()


@pytest.fixture
def target(
    request: pytest.FixtureRequest, targets: dict[str, Target], tmp_path_factory: pytest.TempPathFactory
) -> Target:
    """The target of this run of the row."""
    name: str = request.param
    if name not in targets:
        with fail_without_server():
            targets[name] = TARGETS[name](tmp_path_factory.mktemp(name))
    targets[name].ensure_running()
    return targets[name]


@pytest.fixture
def experiment(
    request: pytest.FixtureRequest,
    target: Target,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[Experiment]:
    """An experiment on that target. Its audit becomes a line of the table."""
    row: Row = request.function.row
    with ExitStack() as stack:
        experiment = Experiment(target, tmp_path, stack)
        yield experiment
    if experiment.totals is not None:
        found = {"backend": target.name, **row._asdict(), **experiment.totals._asdict()}
        record_property(PROPERTY, found)
