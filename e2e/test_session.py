"""The README's recorded session is what happens: its commands are run again, and their output compared."""

import os
import re
import subprocess
import sysconfig
from itertools import pairwise
from pathlib import Path
from typing import NamedTuple

import pytest

from brokers.fixtures import StartRedis

ROOT = Path(__file__).parents[1]
EXAMPLE = ROOT / "examples" / "worker"
README = ROOT / "README.md"
VARIABLE = "MINDTRACE_JOBS_BACKEND"

# What differs from run to run, and what stands for it.
CHANGES = [
    (r"\b[0-9a-f]{32}\b", "<id>"),
    (r"\d{4}-\d\d-\d\d \d\d:\d\d:\d\d", "<date>"),
    (r"\b\d\d:\d\d:\d\d \d+", "<time> <pid>"),
    (r"\b(?:in|In) [\d.]+ s", "in <seconds> s"),
    (r"[\d,]+ a second", "<rate> a second"),
    (r"[a-z+]+://\S*?(?=;|\s|$)", "<url>"),
    (r" +", " "),
]


class Step(NamedTuple):
    command: str
    output: str


def session() -> list[Step]:
    """The commands of the README's session, and what they are said to print."""
    (text,) = re.findall(r"^```console\n(.*?)^```", README.read_text("utf-8"), re.MULTILINE | re.DOTALL)
    starts = [match.start() for match in re.finditer(r"^\$ ", text, re.MULTILINE)]
    steps = [text[start:end] for start, end in pairwise([*starts, len(text)])]
    return [Step(*step.removeprefix("$ ").split("\n", 1)) for step in steps]


def told(text: str) -> list[str]:
    for pattern, stands_for in CHANGES:
        text = re.sub(pattern, stands_for, text)
    return [line.rstrip() for line in text.splitlines()]


@pytest.fixture
def environment(private_redis: StartRedis) -> dict[str, str]:
    kept = {name: value for name, value in os.environ.items() if not name.startswith("MINDTRACE_JOBS_")}
    scripts = sysconfig.get_path("scripts")
    return kept | {"PATH": f"{scripts}{os.pathsep}{os.environ['PATH']}", VARIABLE: private_redis().url}


def test_the_session_happens_as_it_is_told(environment: dict[str, str]) -> None:
    """From the first publish to a drained queue; installing and choosing the backend are not repeated."""
    ids: list[str] = []
    for command, output in session():
        if command.startswith(("pip install", "export ")):
            continue
        if written := re.search(r"\b[0-9a-f]{32}\b", command):  # an id that was printed before
            command = command.replace(written[0], ids[0])
        done = subprocess.run(
            command,
            shell=True,
            cwd=EXAMPLE,
            env=environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            encoding="utf-8",
            timeout=60,
        )
        ids += re.findall(r"^[0-9a-f]{32}$", done.stdout, re.MULTILINE)
        assert told(done.stdout) == told(output), command
