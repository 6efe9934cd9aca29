"""Handlers that hang, in a real worker on each backend: each is ended, and nobody else is blamed."""

import signal
import subprocess
import sysconfig
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest

from conditions import LIMIT_S, eventually
from mindtrace.jobs import DeadLetter, Orchestrator
from mindtrace.jobs.domain.dead_reasons import DeadReason

from .backend_urls import own_url
from .hanging_handlers import ASYNC, BATCHES, PATIENT, PLAIN, Hang

COMMAND = str(Path(sysconfig.get_path("scripts"), "mindtrace-jobs"))
HANGS = {
    PLAIN: ("python", "c", "lock", "child"),
    ASYNC: ("await", "c"),
    BATCHES: ("python", "lock"),
}


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The backend that the test is run on, left as it was."""
    with own_url(request.param, request, tmp_path) as url, Orchestrator(url) as orchestrator:
        yield url
        for schema in (*HANGS, PATIENT):
            orchestrator.register(schema)
            orchestrator.backend.purge(schema.name)
            orchestrator.delete_queue(schema.name)


@pytest.fixture
def worker(url: str, tmp_path: Path) -> Iterator["subprocess.Popen[bytes]"]:
    consumers = ("Plain", "Async", "Batches", "Patient")
    words = [COMMAND, "worker", *(f"hanging_handlers:{each}" for each in consumers), "--grace", "1"]
    folder = Path(__file__).parent
    with Path(tmp_path, "log.txt").open("wb") as log:
        process = subprocess.Popen(
            [*words, "--backend", url, "--app-dir", str(folder)], cwd=tmp_path, stdout=log, stderr=log
        )
    yield process
    with suppress(ProcessLookupError):
        process.kill()
    process.wait()


@pytest.mark.parametrize(
    "url",
    ["sqlite", *(pytest.param(each, marks=pytest.mark.long) for each in ("redis", "rabbitmq", "postgresql"))],
    indirect=True,
)
def test_each_handler_that_hangs_is_ended_and_no_other_job_is_charged(
    url: str, worker: "subprocess.Popen[bytes]", tmp_path: Path
) -> None:
    with Orchestrator(url) as jobs:
        patient = jobs.publish(PATIENT, Hang())
        eventually(lambda: (tmp_path / "patient").exists(), "the neighbour runs")
        hanging = {
            schema: [jobs.publish(schema, Hang(how=how), timeout_s=0.5) for how in ways]
            for schema, ways in HANGS.items()
        }
        done = [jobs.publish(schema, Hang()) for schema in HANGS for _ in range(3)]

        def letters() -> list[DeadLetter]:
            return [letter for schema in HANGS for letter in jobs.dead_letters(schema)]

        expected = sum(map(len, hanging.values()))
        eventually(lambda: len(letters()) == expected, "each of them is dead")
        assert {letter.id for letter in letters()} == {id_ for ids in hanging.values() for id_ in ids}
        found = Counter((letter.reason, letter.attempt, letter.crashes) for letter in letters())
        assert found == {(DeadReason.TIMED_OUT, 2, 0): expected}
        assert all("JobTimedOut: the handler ran" in letter.error for letter in letters())
        eventually(lambda: {*_words(tmp_path / "done")} == {*done}, "the neighbours are done")

        (tmp_path / "go").touch()
        eventually(lambda: len(jobs.dead_letters(PATIENT)) == 1, "the neighbour ends in its own way")
        (letter,) = jobs.dead_letters(PATIENT)
        assert (letter.id, letter.reason) == (patient, DeadReason.REJECTED)
        assert (letter.attempt, letter.crashes) == (1, 0)
        assert len((tmp_path / "patient").read_text()) > 1, "it was given back, and ran again"
        for schema in (*HANGS, PATIENT):
            counts = jobs.counts(schema)
            assert (counts.ready, counts.delayed) == (0, 0)

    children = _words(tmp_path / "children")
    assert children
    eventually(lambda: all(map(_is_dead, children)), "what the handlers have started ended")
    worker.send_signal(signal.SIGTERM)
    assert worker.wait(LIMIT_S) == 0, (tmp_path / "log.txt").read_text()
    log = (tmp_path / "log.txt").read_text()
    assert "ended: a handler went on after its time limit" in log
    assert "died" not in log


def _words(file: Path) -> list[str]:
    return file.read_text("utf-8").split() if file.exists() else []


def _is_dead(pid: str) -> bool:
    with suppress(FileNotFoundError):
        return Path("/proc", pid, "stat").read_text("utf-8").rpartition(")")[2].split()[0] == "Z"
    return True
