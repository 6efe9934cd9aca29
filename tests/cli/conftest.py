"""The command line in this process, on queues that all commands of a test share."""

import json
import logging
from collections.abc import Callable, Iterator
from dataclasses import replace
from importlib.metadata import EntryPoint, entry_points
from pathlib import Path
from typing import Any, NamedTuple

import pytest

from mindtrace.jobs import Capabilities, LocalClient, Orchestrator
from mindtrace.jobs.application.broker import backends
from mindtrace.jobs.cli.main import run
from mindtrace.jobs.ports import Durability

URL = "shared://user:swordfish@host/0?token=swordfish"

TASKS = """
from mindtrace.jobs import Consumer, JobInput, JobOutput, JobSchema, LocalClient


class Image(JobInput):
    path: str


class Defects(JobOutput):
    count: int


class Inspector(Consumer):
    schema = JobSchema(name="inspect", input=Image, output=Defects)

    def run(self, job):
        return Defects(count=len(job.payload.path))


class Urgent(Inspector):
    schema = JobSchema(name="urgent", input=Image)
    queue_type = "priority"


class Nameless(Consumer):
    def run(self, job):
        pass


class Choosy(Inspector):
    def __init__(self, needed):
        super().__init__()


class Failing(Inspector):
    def __init__(self):
        super().__init__()
        raise RuntimeError("no GPU is free")


class Slipping(Inspector):
    def __init__(self):
        super().__init__()
        len(7)


def make_inspector():
    return Inspector()


def make_nothing():
    return 1


def handle(job):
    pass


inspector = Inspector()
number = 7


class NoConsumer:
    pass
"""


class SharedClient(LocalClient):
    """Queues in memory that say they are a broker's."""

    @classmethod
    def from_url(cls, url: str) -> "SharedClient":
        return cls("cli-tests")

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, durability=Durability.NONE)


class Answer(NamedTuple):
    code: int
    out: str
    err: str

    @property
    def json(self) -> Any:
        return json.loads(self.out)


Command = Callable[..., Answer]


@pytest.fixture
def orchestrator(monkeypatch: pytest.MonkeyPatch) -> Iterator[Orchestrator]:
    """On the queues that the commands work with."""
    entry = EntryPoint("shared", f"{__name__}:SharedClient.from_url", backends.GROUP)
    monkeypatch.setattr(EntryPoint, "load", _load)
    monkeypatch.setattr(backends, "entry_points", lambda group: [*entry_points(group=group), entry])
    with SharedClient("cli-tests") as client:
        yield Orchestrator(client)


_original_load = EntryPoint.load


def _load(entry: EntryPoint) -> Any:
    return SharedClient.from_url if entry.name == "shared" else _original_load(entry)


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working folder, with a module of consumers."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(str(tmp_path))
    monkeypatch.delitem(__import__("sys").modules, "tasks", raising=False)
    tmp_path.joinpath("tasks.py").write_text(TASKS, "utf-8")
    return tmp_path


@pytest.fixture
def command(
    folder: Path,
    orchestrator: Orchestrator,
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> Command:
    """Run a command, and return its exit code and what it printed."""
    monkeypatch.setenv("MINDTRACE_JOBS_BACKEND", URL)
    monkeypatch.setattr(logging.getLogger(), "handlers", [])  # a worker configures its own
    monkeypatch.setattr(logging.getLogger(), "level", logging.WARNING)

    def call(*words: str) -> Answer:
        code = run(list(words))
        out, err = capfd.readouterr()
        assert "swordfish" not in out + err, "a secret was printed"
        assert "this is a bug" not in err, err
        return Answer(code, out, err)

    return call
