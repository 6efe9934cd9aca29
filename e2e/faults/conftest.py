"""The fixtures of the fault matrix: targets, started once a process, and experiments on them."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from brokers.fixtures import fail_without_server
from job_audit import Totals

from .coordination import CoordinatedExperiment
from .experiment import Experiment
from .matrix import Row
from .report import PROPERTY
from .server_targets import TARGETS
from .targets import Target


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
    with ExitStack() as stack:
        experiment = Experiment(target, tmp_path, stack)
        yield experiment
    report(request, target, experiment.totals, record_property)


@pytest.fixture
def coordinated(
    request: pytest.FixtureRequest,
    target: Target,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[CoordinatedExperiment]:
    """An experiment with a coordination store; otherwise as :func:`experiment`."""
    with ExitStack() as stack:
        experiment = CoordinatedExperiment(target, tmp_path, stack)
        yield experiment
    report(request, target, experiment.totals, record_property)


def report(
    request: pytest.FixtureRequest,
    target: Target,
    totals: Totals | None,
    record_property: Callable[[str, object], None],
) -> None:
    """Make the audit a line of the table."""
    row: Row = request.function.row
    if totals is not None:
        record_property(PROPERTY, {"backend": target.name, **row._asdict(), **totals._asdict()})
