"""The recorded session of docs/first_worker.md happens: its commands run again, and print the same."""

import os
import re
import shutil
import subprocess
import sysconfig
from collections.abc import Callable
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from mindtrace.jobs.cli.settings import masked_with_stores

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "worker"
PAGE = ROOT / "docs" / "first_worker.md"
VARIABLE = "MINDTRACE_JOBS_BACKEND"

# What differs from run to run, and what stands for it.
CHANGES = [
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "<date>"),
    (r"\b\d\d:\d\d:\d\d \d+", "<time> <pid>"),
    (r"\b(in|In|ran for) [\d.]+ s", r"\1 <seconds> s"),
    (r"[\d,]+ a second", "<rate> a second"),
    (r" +", " "),
    # On a busy machine a worker may give back what it holds, and take it again.
    (r"<time> <pid> INFO released \d jobs?, not started yet\n", ""),
]


class Step(NamedTuple):
    command: str
    output: str


def session() -> list[Step]:
    """The commands of the page's session, and what they are said to print."""
    (text,) = re.findall(r"^```console\n(.*?)^```", PAGE.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    starts = [match.start() for match in re.finditer(r"^\$ ", text, re.MULTILINE)]
    steps = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    return [Step(*step.removeprefix("$ ").split("\n", 1)) for step in steps]


def told(text: str) -> list[str]:
    for pattern, stands_for in CHANGES:
        text = re.sub(pattern, stands_for, text)
    return [line.rstrip() for line in text.splitlines()]


# What starts a broker of each kind and answers its URL, but for the default, which needs neither.
BACKENDS: dict[str, Callable[[pytest.FixtureRequest], str | None]] = {
    "file": lambda _: None,
    "redis": lambda request: request.getfixturevalue("private_redis")().url,
    "rabbitmq": lambda request: (
        f"{request.getfixturevalue('private_rabbitmq')().address.url}"
        f"?results={request.getfixturevalue('private_redis')().url}"
    ),
    "postgresql": lambda request: request.getfixturevalue("start_postgresql")(fsync="off").url(),
    "rabbitmq and postgresql": lambda request: (
        f"{request.getfixturevalue('private_rabbitmq')().address.url}"
        f"?results={request.getfixturevalue('start_postgresql')(fsync='off').url()}"
    ),
}


TOLD_URL = "sqlite:////home/me/mindtrace-jobs.db"
"""Where the page has the default file."""


def as_told_by(url: str, output: str) -> str:
    """What a backend prints where the page shows what the default prints."""
    if url.startswith("amqp://"):  # which knows no queue's type, and not what is in flight
        output = re.sub(r"^(inspect  )fifo( +\d+ +)0", r"\1-   \2-", output, flags=re.MULTILINE)
    return output.replace(TOLD_URL, url)


# On the default backend, which the page shows, each time; on the others it takes as long again.
@pytest.fixture(
    params=[pytest.param(name, marks=[] if name == "file" else pytest.mark.long) for name in BACKENDS]
)
def environment(request: pytest.FixtureRequest) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINDTRACE_JOBS_")}
    kept["PATH"] = f"{sysconfig.get_path('scripts')}{os.pathsep}{os.environ['PATH']}"
    url = BACKENDS[request.param](request)
    return kept if url is None else kept | {VARIABLE: url}


def test_the_session_happens_as_it_is_told(environment: dict[str, str], tmp_path: Path) -> None:
    """From the first publish to a drained queue, on each backend."""
    folder = Path(shutil.copytree(EXAMPLE, tmp_path / "worker"))
    url = masked_with_stores(environment.get(VARIABLE, f"sqlite:///{folder}/mindtrace-jobs.db"))
    ids: list[str] = []
    for command, output in session():
        if written := re.search(r"\b[0-9a-f]{32}\b", command):  # an id that was printed before
            command = command.replace(written[0], ids[0])
        done = subprocess.run(
            command,
            shell=True,
            cwd=folder,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=120,
        )
        ids += re.findall(r"^[0-9a-f]{32}$", done.stdout, re.MULTILINE)
        assert told(done.stdout) == told(as_told_by(url, output)), command
