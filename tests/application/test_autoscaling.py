"""How many processes a worker runs, by how long jobs wait."""

import itertools
import logging
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs import Orchestrator
from mindtrace.jobs.application.worker import autoscaling
from mindtrace.jobs.application.worker.autoscaling import (
    CALM_LOOKS,
    LONG_S,
    SHORT_S,
    ProcessCount,
    WaitingFile,
    report_waiting,
)
from mindtrace.jobs.application.worker.waiting_time import WaitingTimes
from mindtrace.jobs.domain.errors import BackendUnavailable


def note(count: ProcessCount, *waits_s: float) -> list[int]:
    """Return how many processes there are to be after each look."""
    found = []
    for waiting_s in waits_s:
        count.note(waiting_s)
        found.append(count.now)
    return found


def test_while_jobs_wait_for_long_each_look_adds_one_up_to_the_most() -> None:
    assert note(ProcessCount(1, 3), *[LONG_S] * 4) == [2, 3, 3, 3]


def test_one_ends_after_many_looks_at_which_none_waits_down_to_the_least() -> None:
    count = ProcessCount(1, 3)
    note(count, LONG_S, LONG_S)
    assert note(count, *[0.0] * (3 * CALM_LOOKS)) == (
        [3] * (CALM_LOOKS - 1) + [2] * CALM_LOOKS + [1] * (CALM_LOOKS + 1)
    )


@pytest.mark.parametrize("waiting_s", [SHORT_S, (SHORT_S + LONG_S) / 2, LONG_S - 0.1])
def test_between_the_two_nothing_changes_so_that_it_does_not_flap(waiting_s: float) -> None:
    count = ProcessCount(1, 3)
    note(count, LONG_S)
    assert set(note(count, *[waiting_s] * (3 * CALM_LOOKS))) == {2}


def test_a_job_that_waits_begins_the_calm_anew() -> None:
    count = ProcessCount(1, 3)
    note(count, LONG_S)
    assert set(note(count, *([0.0] * (CALM_LOOKS - 1) + [SHORT_S]) * 3)) == {2}


def test_a_look_is_read_once(tmp_path: Path) -> None:
    file = WaitingFile(tmp_path / "waiting")
    assert file.read() is None
    file.write(1, 7.0)
    assert (file.read(), file.read()) == (7.0, None)
    file.write(2, 7.0)
    assert (file.read(), file.read()) == (7.0, None)


class Enough(Exception):
    """Ends what goes on until the process ends."""


def test_the_longest_wait_of_all_queues_is_reported_but_for_an_outage(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    file, answers = WaitingFile(tmp_path / "waiting"), iter([BackendUnavailable("no answer"), 3.0, None, 8.0])
    found: list[float | None] = []
    looks = itertools.count()

    class Times(WaitingTimes):
        def __init__(self) -> None: ...

        def of(self, queue: str) -> Any:
            if isinstance(answer := next(answers), BackendUnavailable):
                raise answer
            return answer

    def queues() -> list[str]:
        found.append(file.read())
        if next(looks) == 3:
            raise Enough
        return [[], ["a"], ["a", "b", "c"]][len(found) - 1]

    monkeypatch.setattr(autoscaling, "LOOK_S", 0.0)
    with pytest.raises(Enough):
        report_waiting(file, Times(), queues, logging.getLogger("tests.autoscaling"))
    assert found == [None, None, None, 8.0]
    assert "the number of processes stays as it is: no answer" in caplog.text


def test_a_queue_without_ready_jobs_has_none_that_waits(orchestrator: Orchestrator) -> None:
    times = WaitingTimes(orchestrator.backend)
    assert times.of("points") == 0.0
    orchestrator.publish("points", {"x": 1}, delay_s=3600)
    assert times.of("points") == 0.0
    orchestrator.publish("points", {"x": 1})
    assert (times.of("points") or 0.0) >= 0.0
