"""The samples of mindtrace-jobs 0.x, as docs/coming_from_0x.md changes them, run on every backend."""

import secrets
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from mindtrace.jobs import Orchestrator

from .virtual_environments import ROOT

SAMPLES = ROOT / "examples" / "from_0x"


def run(sample: str, *arguments: str, cwd: Path) -> list[str]:
    done = subprocess.run(
        [sys.executable, "-W", "error", SAMPLES / sample, *arguments],
        cwd=cwd,
        capture_output=True,
        encoding="utf-8",
        timeout=60,
    )
    assert (done.returncode, done.stderr) == (0, ""), done.stdout + done.stderr
    return done.stdout.splitlines()


@pytest.fixture(params=["local", "sqlite", "redis", "rabbitmq"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """A backend, with a namespace of its own."""
    namespace = f"samples-{secrets.token_hex(4)}"
    if request.param == "local":
        yield "local"
        return
    if request.param == "sqlite":
        yield f"sqlite:///{tmp_path}/jobs.db"
        return
    address = request.getfixturevalue(f"{request.param}_address")
    with address.client(namespace) as client, Orchestrator(client) as orchestrator:
        yield client.make_url(with_passwords=True)
        for queue in ("maths_operations", "maths_priority"):
            orchestrator.delete_queue(queue)


def test_the_demo_works(url: str, tmp_path: Path) -> None:
    """It publishes three jobs and runs them, and three more by priority."""
    printed = run("sample_jobs_demo.py", "--backend", url, cwd=tmp_path)

    assert [line for line in printed if line.startswith("Maths result")] == [
        f"Maths result: {result}" for result in ("15.0", "21.0", "256.0", "8.0", "100.0", "2.0")
    ]
    assert "Queue status: maths_operations=3" in printed
    assert "All messages in queue: 3" in printed
    assert printed.count("Remaining in queue: maths_operations=0") == 1


def test_the_simple_sample_works(tmp_path: Path) -> None:
    """Without a backend, its queue is in a file of the working folder."""
    (printed,) = run("orchestrator_simple.py", cwd=tmp_path)

    assert "payload=EchoInput(message='Hello, world!', delay=0.0)" in printed
    assert tmp_path.joinpath("mindtrace-jobs.db").is_file()
