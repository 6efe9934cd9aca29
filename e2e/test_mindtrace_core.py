"""With mindtrace-core, which needs Python 3.12, the base classes are its own and everything works."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from .virtual_environments import ROOT, make_environment, run

pytestmark = [pytest.mark.long, pytest.mark.begins_first, pytest.mark.timeout(1800)]

CANDIDATES = (sys.executable, "python3.12", "python3.13", "/usr/bin/python3")
MAKES_ENVIRONMENTS = "import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 12))"

CONSUME = """
from mindtrace import core
from mindtrace.jobs import *

for class_ in (Consumer, ConsumerBackend, OrchestratorBackend, LocalClient, LocalConsumerBackend):
    assert issubclass(class_, core.MindtraceABC), class_
assert issubclass(Orchestrator, core.Mindtrace)

class Numbers(JobInput):
    x: float
    y: float

class Total(JobOutput):
    total: float

class Adder(Consumer):
    def run(self, job):
        self.logger.info("%s adds", self.unique_name)
        return Total(total=job.payload.x + job.payload.y)

with LocalClient() as backend, Orchestrator(backend) as orchestrator, Adder("sums") as adder:
    orchestrator.register(JobSchema("sums", Numbers, Total))
    job_id = orchestrator.publish("sums", Numbers(x=1, y=2))
    adder.connect(orchestrator)
    adder.consume(num_messages=1)
    print(type(adder.consumer_backend).__name__, orchestrator.result("sums", job_id).total)
"""


@pytest.fixture(scope="module")
def base() -> str:
    """A Python that mindtrace-core supports; a name on the PATH may lead nowhere, so each is tried."""
    for candidate in CANDIDATES:
        command = [candidate, "-c", MAKES_ENVIRONMENTS]
        if shutil.which(candidate) and subprocess.run(command, capture_output=True).returncode == 0:
            return candidate
    reason = f"mindtrace-core needs Python 3.12 or newer, with venv; none of {', '.join(CANDIDATES)} is one"
    if os.environ.get("CI") == "true":
        pytest.fail(reason)
    pytest.skip(reason)


@pytest.fixture(scope="module")
def python(base: str, wheel: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The Python of a clean environment with the wheel, mindtrace-core and pytest."""
    home = tmp_path_factory.mktemp("core")
    return make_environment(home, f"{wheel}[mindtrace,contract]", base=base)


@pytest.fixture
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A home folder of its own, since mindtrace-core writes its logs there."""
    monkeypatch.setenv("HOME", str(tmp_path))
    return tmp_path


def test_a_consumer_works_on_the_real_base_classes(python: Path, home: Path) -> None:
    assert run(python, "-I", "-c", CONSUME, cwd=home).splitlines()[-1] == "LocalConsumerBackend 3.0"


SAMPLE = """
from importlib.metadata import files

from mindtrace.core import EchoInput, echo_task
from mindtrace.jobs import Orchestrator

shared = set(map(str, files("mindtrace-jobs"))) & set(map(str, files("mindtrace-core")))
assert not shared, shared

orchestrator = Orchestrator()
orchestrator.register(echo_task)
orchestrator.publish("echo", EchoInput(message="Hello, world!"))
print(orchestrator.receive_message("echo").payload)
"""


def test_a_schema_of_mindtrace_core_is_registered_as_it_is(python: Path, home: Path) -> None:
    """As in a sample of 0.x; and the two distributions have no file together."""
    assert run(python, "-I", "-c", SAMPLE, cwd=home).splitlines()[-1] == "message='Hello, world!' delay=0.0"


TASKS = """
from mindtrace.core import Mindtrace
from mindtrace.jobs import Consumer, JobInput, JobSchema

class Model(Mindtrace):
    pass

class Nothing(JobInput):
    pass

class Loud(Consumer):
    schema = JobSchema(name="loud", input=Nothing)

    def run(self, job):
        self.logger.info("hello")
        self.logger.error("an error")
        Model().logger.error("of a component")
"""


def test_a_worker_logs_to_stderr_and_each_line_once(python: Path, home: Path) -> None:
    """Those of other components too, though mindtrace-core keeps them from the root logger."""
    home.joinpath("tasks.py").write_text(TASKS, "utf-8")
    command = python.with_name("mindtrace-jobs")
    for words in (
        ["publish", "loud", "--json", "{}", "--schema", "tasks:Loud", "--id", "a"],
        ["worker", "tasks:Loud", "--burst"],
    ):
        done = subprocess.run([command, *words], cwd=home, capture_output=True, encoding="utf-8", timeout=300)
        assert done.returncode == 0, done.stderr

    lines = [line.split(maxsplit=3)[-1] for line in done.stderr.splitlines()]
    assert lines.count("[loud a 1] hello") == 1
    assert lines.count("[loud a 1] an error") == 1
    assert lines.count("[loud a 1] of a component") == 1
    assert "hello" not in home.joinpath(".cache/mindtrace/logs/mindtrace.log").read_text("utf-8")
    assert sum(line.startswith("job a of loud: attempt 1 ran for") for line in lines) == 1
    assert not [line for line in done.stderr.splitlines() if "DEBUG" in line]


def test_what_the_tests_say_of_the_bases_holds_of_the_real_ones(python: Path, home: Path) -> None:
    tests = shutil.copy(ROOT / "tests" / "ports" / "test_base_classes.py", home)

    report = run(python, "-m", "pytest", "-W", "error", tests, cwd=home)

    assert " passed" in report
    assert "skipped" not in report
