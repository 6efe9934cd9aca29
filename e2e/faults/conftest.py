"""The backends of the matrix, started once for the tests of a process; what each trial found is reported."""

from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest

from brokers.fixtures import failing_without

from .report import PROPERTY
from .rigs import RIGS, Rig
from .table import Row
from .trial import Trial


@pytest.fixture(scope="session")
def rigs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, Rig]]:
    """Those that were started so far."""
    started: dict[str, Rig] = {}
    yield started
    for rig in started.values():
        rig.close()


@pytest.fixture
def rig(
    request: pytest.FixtureRequest, rigs: dict[str, Rig], tmp_path_factory: pytest.TempPathFactory
) -> Rig:
    """The backend that the row is tried on."""
    name: str = request.param
    if name not in rigs:
        with failing_without():
            rigs[name] = RIGS[name](tmp_path_factory.mktemp(name))
    rigs[name].repair()
    return rigs[name]


@pytest.fixture
def trial(
    request: pytest.FixtureRequest,
    rig: Rig,
    tmp_path: Path,
    record_property: Callable[[str, object], None],
) -> Iterator[Trial]:
    """A queue on that backend. What the account says in the end becomes a line of the table."""
    row: Row = request.function.row
    with ExitStack() as stack:
        trial = Trial(rig, tmp_path, stack)
        yield trial
    if trial.totals is not None:
        found = {"backend": rig.name, **row._asdict(), **trial.totals._asdict()}
        record_property(PROPERTY, found)
