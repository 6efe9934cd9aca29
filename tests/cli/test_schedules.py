"""``schedules`` and ``scheduler``: what they answer, and what they change."""

import logging
import os
import signal
import threading
from datetime import timedelta
from typing import Any

import pytest

from mindtrace.jobs import AnyJSON, JobSchema, Orchestrator, Scheduler
from mindtrace.jobs.cli.logs import WORKER

from .conftest import Command

HOUR = timedelta(hours=1)


@pytest.fixture
def scheduled(orchestrator: Orchestrator) -> Orchestrator:
    """With a schedule that has a slot each hour."""
    orchestrator.register(JobSchema("reports", AnyJSON))
    orchestrator.schedule("hourly", "reports", {"pages": 2}, every=HOUR, misfire="all")
    return orchestrator


def test_they_are_listed(command: Command, scheduled: Orchestrator) -> None:
    scheduled.schedule("nightly", "reports", cron="0 3 * * *", timezone="Europe/Vienna")
    scheduled.schedules.pause("nightly")
    header, hourly, nightly = command("schedules", "list").out.splitlines()

    assert header.split("  ")[0] == "name"
    (found,) = (each for each in scheduled.schedules.list() if each.name == "hourly")
    assert hourly.split() == [
        *("hourly", "reports", "every", "1:00:00", "all"),
        *f"{found.next_slot:%Y-%m-%d %H:%M:%S}".split(),
        "-",
    ]
    assert " ".join(nightly.split()) == "nightly reports 0 3 * * * (Europe/Vienna) latest paused -"


def test_they_are_listed_as_json(command: Command, scheduled: Orchestrator) -> None:
    (found,) = scheduled.schedules.list()

    assert command("schedules", "list", "--json").json == [
        {
            "name": "hourly",
            "queue": "reports",
            "payload": {"pages": 2},
            "priority": 0,
            "every_s": 3600.0,
            "misfire": "all",
            "grace_s": 60.0,
            "paused": False,
            "next_slot": found.next_slot.isoformat(),
            "last_slot": None,
            "last_job_id": None,
        }
    ]


def test_that_there_are_none_is_said(command: Command, orchestrator: Orchestrator) -> None:
    assert "no schedules are defined here" in command("schedules", "list").out
    assert command("schedules", "list", "--json").json == []


def test_a_job_is_run_now(command: Command, scheduled: Orchestrator) -> None:
    said = command("schedules", "run", "hourly")
    said_as_json = command("schedules", "run", "hourly", "--json")

    ids = [said.out.strip(), said_as_json.json["id"]]
    assert [scheduled.receive_message("reports").id for _ in ids] == ids  # type: ignore[union-attr]


def test_one_is_paused_and_resumed(command: Command, scheduled: Orchestrator) -> None:
    assert command("schedules", "pause", "hourly").out == "paused hourly\n"
    assert scheduled.schedules.list()[0].paused
    assert "resumed hourly; its next slot is 20" in command("schedules", "resume", "hourly").out
    assert not scheduled.schedules.list()[0].paused
    assert command("schedules", "pause", "hourly", "--json").json["paused"] is True


def test_one_is_removed(command: Command, scheduled: Orchestrator) -> None:
    assert command("schedules", "remove", "hourly").code == 2, "nobody was asked"
    assert command("schedules", "remove", "hourly", "--yes").out == "removed hourly\n"
    assert scheduled.schedules.list() == ()


@pytest.mark.parametrize("words", ["run", "pause", "resume", "remove --yes"])
def test_one_that_is_not_defined_is_not_found(
    command: Command, orchestrator: Orchestrator, words: str
) -> None:
    said = command("schedules", *words.split(), "weekly")

    assert said.code == 4
    assert "schedule 'weekly': not defined" in said.err


def test_a_scheduler_runs_until_it_is_told_to_stop(
    command: Command,
    scheduled: Orchestrator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """It publishes meanwhile."""
    caplog.set_level("INFO")
    due = scheduled.schedules.list()[0].next_slot
    store = scheduled.backend.coordination
    monkeypatch.setattr(type(store), "now", lambda _: due.timestamp())
    advance = Scheduler._advance

    def then_stop(self: Scheduler, *arguments: Any) -> bool:
        done = advance(self, *arguments)
        threading.Timer(0, os.kill, [os.getpid(), signal.SIGTERM]).start()
        return done

    monkeypatch.setattr(Scheduler, "_advance", then_stop)

    assert command("scheduler").code == 0
    assert "scheduler on shared://***@host" in caplog.text
    assert f"schedule hourly: published its slot {due.isoformat()} as job hourly." in caplog.text
    assert scheduled.count_queue_messages("reports") == 1


def test_a_scheduler_can_be_told_to_stop_as_soon_as_it_says_that_it_runs(
    command: Command, scheduled: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    """Who waits for its line may send SIGTERM at once, and the exit code is 0 all the same."""
    caplog.set_level("INFO")

    class StopAtOnce(logging.Handler):
        def emit(self, record: logging.LogRecord) -> None:
            if record.getMessage().startswith("scheduler on"):
                assert signal.getsignal(signal.SIGTERM) is not signal.SIG_DFL
                os.kill(os.getpid(), signal.SIGTERM)

    at_once = StopAtOnce()
    WORKER.addHandler(at_once)
    try:
        assert command("scheduler").code == 0
    finally:
        WORKER.removeHandler(at_once)
    assert "scheduler on" in caplog.text


def test_queues_in_memory_have_no_scheduler_of_another_process(command: Command) -> None:
    said = command("scheduler", "--backend", "memory://")

    assert said.code == 2
    assert "in the memory of one process" in said.err
