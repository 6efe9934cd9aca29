"""A limit that is raised and lowered while jobs of two processes run: judged by the log of places."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from conditions import eventually
from mindtrace.jobs import LimitUse, Orchestrator
from place_audit import Answer, PlaceLog, most_at_once

from .changed_limits_worker import SCHEMA, SLOTS, Frame
from .test_limits import url_of

WORKER = Path(__file__).with_name("changed_limits_worker.py")
TESTING = Path(__file__).parents[1] / "testing"
PROCESSES = 2
JOBS = 20
RAISED = 6
LOWERED = 2


@pytest.fixture
def orchestrator(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[Orchestrator]:
    """The backend that the test is run on, left as it was."""
    with Orchestrator(url_of(request.param, request, tmp_path)) as made:
        made.register(SCHEMA)
        yield made
        made.reset_limit("gpu")
        made.backend.purge(SCHEMA.name)
        made.backend.delete(SCHEMA.name)


class Workers:
    """Two processes, and what they wrote down."""

    def __init__(self, orchestrator: Orchestrator, folder: Path) -> None:
        self._orchestrator = orchestrator
        self._folder = folder
        folder.joinpath("end").mkdir()
        self.places = PlaceLog(folder / "places")
        url = orchestrator.backend.make_url(with_passwords=True)
        command = [sys.executable, str(WORKER), url, str(folder)]
        environment = os.environ | {"PYTHONPATH": str(TESTING)}
        self._processes = [subprocess.Popen(command, env=environment) for _ in range(PROCESSES)]

    def close(self) -> None:
        for process in self._processes:
            process.kill()
            process.wait()

    @property
    def started(self) -> set[int]:
        """The jobs that have started."""
        return {int(path.name.partition("-")[2]) for path in self._folder.glob("started-*")}

    def end(self, count: int) -> None:
        """Have so many of the jobs end that run."""
        ended = {int(path.name) for path in self._folder.joinpath("end").iterdir()}
        for number in sorted(self.started - ended)[:count]:
            self._folder.joinpath("end", str(number)).touch()

    def end_all(self) -> None:
        """Have all end, and those that come."""
        for number in range(JOBS):
            self._folder.joinpath("end", str(number)).touch()

    def all_know(self, limit: int) -> bool:
        """Whether each process obeys a limit of so many places."""
        known = [path.read_text("ascii") for path in self._folder.glob("knows-*")]
        return known == [str(limit)] * PROCESSES

    @property
    def use(self) -> LimitUse:
        """What is seen from outside, by somebody who has no code."""
        (found,) = self._orchestrator.limits()
        assert isinstance(found, LimitUse)
        return found


@pytest.fixture
def workers(orchestrator: Orchestrator, tmp_path: Path) -> Iterator[Workers]:
    orchestrator.publish_batch(SCHEMA, [Frame(number=number) for number in range(JOBS)])
    made = Workers(orchestrator, tmp_path)
    yield made
    made.close()


@pytest.mark.parametrize("orchestrator", ["sqlite", "redis", "postgresql", "rabbitmq"], indirect=True)
def test_processes_obey_a_limit_that_is_raised_and_lowered_while_jobs_run(
    orchestrator: Orchestrator, workers: Workers
) -> None:
    eventually(lambda: len(workers.started) == 1, "one job starts")
    orchestrator.change_limit("gpu", RAISED)
    eventually(lambda: len(workers.started) == RAISED, "as many start as are allowed now")
    assert workers.use.used == RAISED > SLOTS, "in both processes"

    orchestrator.change_limit("gpu", LOWERED)
    eventually(lambda: workers.all_know(LOWERED), "both processes know")
    started = workers.started
    workers.end(RAISED - LOWERED)
    eventually(lambda: workers.use.used == LOWERED, "those that end give their places back")
    lowered_at = orchestrator.backend.coordination.now()
    assert workers.started == started, "no job starts while as many run as are allowed"
    workers.end(1)
    eventually(lambda: len(workers.started) == RAISED + 1, "the next one starts")

    workers.end_all()
    eventually(lambda: len(workers.started) == JOBS, "all jobs run")
    eventually(lambda: orchestrator.counts(SCHEMA).in_flight in (0, None), "all jobs are done")
    answers = workers.places.answers()
    assert set(most_at_once(answers).values()) == {RAISED}
    assert set(most_at_once(since(answers, lowered_at)).values()) <= {1, LOWERED}


def since(answers: list[Answer], moment: float) -> list[Answer]:
    """What was given, as if it began at ``moment`` or later: what was left before that is gone."""
    return [each if each.ttl_s is None else each._replace(after=max(each.after, moment)) for each in answers]
