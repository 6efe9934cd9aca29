"""Objects of this library behave the same where mindtrace-core is installed and where it isn't.

Each program runs in an interpreter of its own, also in one that is told that mindtrace-core isn't there.
"""

import os
import re
import subprocess
import sys
from collections.abc import Callable
from importlib.util import find_spec
from pathlib import Path
from typing import NamedTuple

import pytest

CORE = find_spec("mindtrace.core") is not None
MUST_HAVE_CORE = sys.version_info >= (3, 12) and os.environ.get("CI") == "true"
"""CI runs the tests on a Python that mindtrace-core supports, to see these programs with it."""

HIDE_CORE = "import sys; sys.modules['mindtrace.core'] = None"
USE_CORE = """
from mindtrace.core import Mindtrace

class Component(Mindtrace):
    pass

Component().logger.info("which sets up the logger of mindtrace-core")
"""

CONSUMER = """
from mindtrace.jobs import Consumer, JobInput, JobSchema, LocalClient, Orchestrator, Reject

class Nothing(JobInput):
    pass

class Loud(Consumer):
    schema = JobSchema(name="loud", input=Nothing)

    def run(self, job):
        self.logger.debug("a detail")
        self.logger.info("hello")
        if job.id == "bad":
            raise Reject("not a PNG")

def work(*ids):
    with Orchestrator(LocalClient()) as jobs, Loud() as consumer:
        consumer.connect(jobs)
        for id in ids:
            jobs.publish("loud", jobs.job("loud", {}, id=id))
        consumer.consume_until_empty()
"""
LIBRARY = """
import logging

logging.getLogger("mindtrace.jobs.adapters.local").warning("of an adapter")
logging.getLogger("mindtrace.jobs.adapters.local").debug("a detail")
"""


class Ran(NamedTuple):
    """What a program wrote to stdout and to stderr, and the files that it left in its home folder."""

    out: list[str]
    err: list[str]
    files: list[str]


Run = Callable[[str], Ran]


@pytest.fixture(params=["without core", "with core", "with core in use"])
def run(request: pytest.FixtureRequest, tmp_path: Path) -> Run:
    """Run a program, with mindtrace-core or without; or with a component of the platform beside it."""
    world: str = request.param
    if world != "without core" and not CORE:
        if MUST_HAVE_CORE:
            pytest.fail("mindtrace-core isn't installed: `make test` installs it on Python 3.12 or newer")
        pytest.skip("mindtrace-core needs Python 3.12")
    prelude = {"without core": HIDE_CORE, "with core in use": USE_CORE}.get(world, "")
    environment = {
        name: value for name, value in os.environ.items() if not name.startswith(("MINDTRACE_", "PYTHON"))
    }

    def run(program: str) -> Ran:
        command = [sys.executable, "-W", "error", "-c", f"{prelude}\n{program}"]
        done = subprocess.run(
            command,
            cwd=tmp_path,
            env=environment | {"HOME": str(tmp_path)},
            capture_output=True,
            encoding="utf-8",
            timeout=300,
        )
        assert done.returncode == 0, done.stderr
        files = [path.name for path in tmp_path.rglob("*") if path.is_file()]
        return Ran(done.stdout.splitlines(), done.stderr.splitlines(), files)

    return run


def test_importing_and_making_objects_prints_nothing_and_makes_no_file(
    run: Run, request: pytest.FixtureRequest
) -> None:
    ran = run(CONSUMER + "work('a')")

    assert (ran.out, ran.err) == ([], [])
    in_use = request.node.callspec.params["run"] == "with core in use"
    assert ran.files == (["mindtrace.log"] if in_use else [])


def test_an_error_that_leaves_a_with_block_is_told_by_nobody(run: Run) -> None:
    """Neither its traceback nor its text: the caller has it, and decides."""
    program = """
try:
    with LocalClient() as client, Orchestrator(client) as jobs, Loud() as consumer:
        raise LookupError("passed on")
except LookupError as error:
    print(repr(error))
"""
    ran = run("import logging; logging.basicConfig(level='DEBUG')" + CONSUMER + program)

    assert ran.out == ["LookupError('passed on')"]
    assert ran.err == []


def test_without_a_configuration_warnings_go_to_stderr(run: Run) -> None:
    """As Python has it, and nothing below a warning."""
    ran = run(CONSUMER + LIBRARY + "work('bad')")

    assert ran.out == []
    assert ran.err[0] == "of an adapter"
    assert [line for line in ran.err if "hello" in line or "detail" in line] == []
    (dead,) = [line for line in ran.err[1:] if "job bad" in line]
    assert "not a PNG" in dead


def test_a_handler_of_the_root_logger_gets_each_record_once(run: Run) -> None:
    """At the level of the root logger, under the name of the module and class."""
    configure = """
import logging, sys

logging.basicConfig(level="INFO", stream=sys.stdout, format="%(levelname)s %(name)s: %(message)s")
"""
    ran = run(configure + CONSUMER + LIBRARY + "work('a', 'bad')")

    assert ran.err == []
    assert ran.out[0] == "WARNING mindtrace.jobs.adapters.local: of an adapter"
    assert ran.out[1:3] == ["INFO __main__.Loud: hello"] * 2
    (dead,) = ran.out[3:]
    assert re.match(r"ERROR __main__\.Loud: .*job bad.*not a PNG", dead)


def test_the_level_of_the_library_is_that_of_its_logger(run: Run) -> None:
    """And of the consumer's module, of its own."""
    configure = """
import logging, sys

logging.basicConfig(level="WARNING", stream=sys.stdout, format="%(message)s")
logging.getLogger("mindtrace.jobs").setLevel("DEBUG")
logging.getLogger("__main__").setLevel("ERROR")
"""
    ran = run(configure + CONSUMER + LIBRARY + "work('a')")

    assert (ran.out, ran.err) == (["of an adapter", "a detail"], [])


def test_a_home_that_cannot_be_written_is_no_obstacle(run: Run) -> None:
    """There mindtrace-core's own loggers fail."""
    (told,) = run("import os; os.environ['HOME'] = os.devnull" + CONSUMER + "work('bad')").err

    assert "not a PNG" in told
