"""What each command answers, to people and as JSON, and with which exit code."""

import os
import re
import socket
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs import Consumer, Job, Orchestrator, Reject, RetryLater
from mindtrace.jobs.application.tools import pause_and_wait
from mindtrace.jobs.errors import BackendUnavailable, QueueNotFound
from mindtrace.jobs.ports import Ack

from .conftest import Command


@pytest.fixture
def inspect(command: Command, orchestrator: Orchestrator) -> Orchestrator:
    """With the queue ``inspect`` declared by its schema."""
    assert command("publish", "inspect", "--json", '{"path": "a"}', "--schema", "tasks:Inspector").code == 0
    orchestrator.clean_queue("inspect")
    orchestrator.attach("inspect")
    return orchestrator


def work(orchestrator: Orchestrator, handler: Any, jobs: int = 1) -> None:
    class Handler(Consumer):
        def run(self, job: Job[Any]) -> Any:
            return handler(job)

    with Handler("inspect") as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.01)
        consumer.consume(jobs)


def reject(job: Job[Any]) -> None:
    raise Reject("no such image")


# -- publish --------------------------------------------------------------------------------------


def test_publish_prints_the_id(command: Command, inspect: Orchestrator) -> None:
    """Which can be chosen."""
    answer = command("publish", "inspect", "--json", '{"path": "a.png"}', "--id", "a-1")
    assert (answer.code, answer.out) == (0, "a-1\n")
    assert command("--json", "publish", "inspect", "--json", "{}", "--id", "a-2").json == {"id": "a-2"}
    assert inspect.counts("inspect").ready == 2


def test_publish_keeps_a_job_back(command: Command, inspect: Orchestrator) -> None:
    assert command("publish", "inspect", "--json", "{}", "--delay", "60").code == 0
    assert inspect.counts("inspect").delayed == 1
    at_nine = (datetime.now(UTC) + timedelta(days=1)).isoformat()
    assert command("publish", "inspect", "--json", "{}", "--not-before", at_nine).code == 0
    assert inspect.counts("inspect").delayed == 2


def test_publish_takes_a_priority_where_there_are_any(command: Command, orchestrator: Orchestrator) -> None:
    """With the schema or without."""
    words = ("publish", "urgent", "--json", '{"path": "a"}')
    first = command(*words, "--schema", "tasks:Urgent", "--priority", "3")
    assert first.code == 0
    assert command(*words, "--priority", "9").code == 0
    assert command(*words, "--priority", "10").code == 2


def test_publish_takes_a_file_of_many_jobs(command: Command, inspect: Orchestrator, folder: Path) -> None:
    """A line each; what is wrong in one is told with its number, and costs no other."""
    lines = [f'{{"path": "{n}"}}' for n in range(1200)]
    folder.joinpath("jobs.jsonl").write_text("\n".join([*lines, "", "{oops", "[1]"]) + "\n", "utf-8")
    answer = command("publish", "inspect", "--file", "jobs.jsonl")

    assert answer.code == 1
    assert answer.out.startswith("published 1,200 of 1,202 jobs in ")
    assert "line 1202: rejected: not JSON" in answer.err
    assert "line 1203: rejected: not a JSON object but an array" in answer.err
    assert inspect.counts("inspect").ready == 1200


def test_publish_validates_a_file_where_the_schema_is_given(
    command: Command, inspect: Orchestrator, folder: Path
) -> None:
    folder.joinpath("jobs.jsonl").write_text('{"path": "a"}\n{"path": 7}\n', "utf-8")
    answer = command("--json", "publish", "inspect", "--file", "jobs.jsonl", "--schema", "tasks:Inspector")

    assert answer.code == 1
    told = answer.json
    assert (told["accepted"], told["rejected"], told["bad"][0]["number"]) == (1, 1, 2)
    assert "path: Input should be a valid string" in told["bad"][0]["error"]


def test_publish_tells_duplicates_of_unique_jobs_apart(
    command: Command, orchestrator: Orchestrator, folder: Path
) -> None:
    folder.joinpath("once.py").write_text(
        "from mindtrace.jobs import JobInput, JobSchema, Unique\n"
        "class Image(JobInput):\n    path: str\n"
        "ONCE = JobSchema('once', Image, unique=Unique(by='path'))\n",
        "utf-8",
    )
    lines = ['{"path": "a"}', '{"path": "b"}', '{"path": "a"}', '{"path": "a"}']
    folder.joinpath("jobs.jsonl").write_text("\n".join(lines), "utf-8")
    words = ("publish", "once", "--file", "jobs.jsonl", "--schema", "once:ONCE")
    answer = command(*words)
    assert answer.code == 0
    assert answer.out.startswith("published 2 of 4 jobs in ")
    assert answer.out.endswith("; 2 duplicates of unique jobs\n")
    answer = command("--json", *words)
    assert answer.code == 0
    told = answer.json
    assert [told[key] for key in ("accepted", "duplicate", "standing", "rejected")] == [0, 4, 4, 0]
    assert orchestrator.counts("once").ready == 2


# -- queues, purge --------------------------------------------------------------------------------


def test_queues_counts_the_jobs_by_state(command: Command, inspect: Orchestrator) -> None:
    inspect.publish("inspect", {"path": "a"}, delay_s=60)
    inspect.publish("inspect", {"path": "b"})

    assert command("queues").out.split("\n")[1].split() == ["inspect", "fifo", "1", "0", "1", "0"]
    assert command("queues", "inspect", "--json").json == [
        {
            "queue": "inspect",
            "type": "fifo",
            "ready": 1,
            "in_flight": 0,
            "delayed": 1,
            "dead": 0,
            "change_per_s": None,
            "progress": {},
            "paused": None,
        }
    ]


def test_queues_says_so_where_there_are_none(command: Command) -> None:
    answer = command("queues")
    assert answer.code == 0
    assert "no queues are declared here" in answer.out
    assert command("queues", "--json").json == []


def test_queues_shows_the_progress_of_jobs(command: Command, inspect: Orchestrator) -> None:
    seen: list[Any] = []

    def handler(job: Job[Any]) -> None:
        job.progress(1, 4)
        seen.append(command("queues").out)

    job_id = inspect.publish("inspect", {"path": "a"})
    work(inspect, handler)

    assert f"inspect/{job_id}: 1/4 (25%)" in seen[0]


def test_a_queue_is_paused_and_resumed(command: Command, inspect: Orchestrator) -> None:
    answer = command("pause", "inspect", "--reason", "the disk is [full]")
    assert answer.code == 0
    assert answer.out.startswith("inspect is paused since ")
    assert answer.out.endswith(": the disk is [full]\n")
    assert answer.out in command("queues").out
    (view,) = command("queues", "--json").json
    assert view["paused"]["reason"] == "the disk is [full]"
    assert "mindtrace-jobs resume inspect" in command("doctor").out

    assert command("resume", "inspect").out == "inspect goes on\n"
    assert command("resume", "inspect").out == "inspect wasn't paused\n"
    assert command("resume", "inspect", "--json").json == {"was_paused": False}
    assert inspect.paused("inspect") is None
    for name in ("pause", "resume"):
        assert command(name, "inpsect").code == 4


def test_jobs_are_cancelled(command: Command, inspect: Orchestrator) -> None:
    waiting, running, done = (inspect.publish("inspect", {"path": path}) for path in "abc")
    assert command("cancel", "inspect", waiting).out == f"{waiting}: cancelled\n"
    consumer = inspect.backend.open_consumer("inspect")
    deliveries = consumer.receive(2, 0)
    consumer.settle([Ack(each.receipt) for each in deliveries if each.id == done])

    answer = command("cancel", "inspect", waiting, running)
    assert (answer.code, answer.out) == (0, f"{waiting}: cancelled\n{running}: is asked to end\n")
    late = command("cancel", "inspect", running, done)
    assert (late.code, late.out.splitlines()[1]) == (1, f"{done}: too late: it is done or dead")
    unknown = command("cancel", "inspect", done, "never", "--json")
    assert (unknown.code, unknown.json) == (4, {done: "too late", "never": "unknown"})
    assert command("result", waiting, "--queue", "inspect").code == 1
    assert command("cancel", "inpsect", waiting).code == 4
    assert command("cancel", "inspect").code == 2
    consumer.close()


def test_queues_are_counted_while_the_store_of_their_pauses_is_away(
    command: Command, inspect: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On RabbitMQ that is another system."""

    def away(*_: Any) -> Any:
        raise BackendUnavailable("no Redis answers")

    monkeypatch.setattr(Orchestrator, "pauses", away)
    answer = command("queues", "inspect")
    assert (answer.code, "isn't known: no Redis answers" in answer.out) == (0, True)
    (view,) = command("queues", "inspect", "--json").json
    assert (view["ready"], view["paused"], view["pause_error"]) == (0, None, "no Redis answers")


def test_pause_waits_for_the_jobs_that_run(
    command: Command, inspect: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A job ends while it waits, so that it looks more than once."""
    inspect.publish("inspect", {"path": "a"})
    consumer = inspect.backend.open_consumer("inspect")
    (delivery,) = consumer.receive(1, 0)
    looks: list[float] = []

    def look(seconds: float) -> None:
        looks.append(seconds)
        if len(looks) == 3:
            consumer.settle([Ack(delivery.receipt)])

    monkeypatch.setattr(pause_and_wait, "SEEN_S", 0.0)
    monkeypatch.setattr(pause_and_wait, "sleep", look)
    assert command("pause", "inspect", "--drain", "--json").json["reason"] is None
    assert len(looks) == 3
    consumer.close()
    assert inspect.resume("inspect")


def test_pause_cannot_wait_where_jobs_that_run_are_not_counted(
    command: Command, inspect: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    able = replace(inspect.backend.capabilities, counts_in_flight=False)
    monkeypatch.setattr(type(inspect.backend), "capabilities", property(lambda client: able))
    answer = command("pause", "inspect", "--drain")
    assert answer.code != 0
    assert "can't count the jobs that run" in answer.err
    assert inspect.paused("inspect") is None


def test_purge_drops_what_waits(command: Command, inspect: Orchestrator) -> None:
    inspect.publish_batch("inspect", [{"path": "a"}] * 3)

    assert command("purge", "inspect").code == 2, "nobody was asked"
    assert command("purge", "inspect", "--yes").out == "dropped 3 jobs\n"
    assert command("purge", "inspect", "--yes", "--json").json == {"purged": 0}


def test_delete_removes_a_queue_with_all_that_is_in_it(command: Command, inspect: Orchestrator) -> None:
    done = inspect.publish("inspect", {"path": "a"})
    work(inspect, lambda job: {"count": 1})
    inspect.publish("inspect", {"path": "b"})
    work(inspect, reject)
    inspect.publish("inspect", {"path": "c"}, delay_s=60)
    refused = command("delete", "inspect")

    assert refused.code == 2
    assert "Delete inspect for good, with 2 jobs and all results?" in refused.err
    assert command("delete", "inspect", "--yes").out == "deleted inspect\n"
    assert command("queues", "--json").json == []
    assert command("publish", "inspect", "--json", '{"path": "a"}', "--schema", "tasks:Inspector").code == 0
    assert command("result", done, "--queue", "inspect").code == 4
    assert command("delete", "inspect", "--yes", "--json").json == {"deleted": "inspect"}


def test_delete_counts_no_jobs_if_it_asks_nobody(
    command: Command, inspect: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """So it can be repeated where a store of another system was away, and the queue is gone already."""

    def counts(client: object, queue: str) -> None:
        raise QueueNotFound(f"queue {queue!r}: not declared")

    monkeypatch.setattr(type(inspect.backend), "counts", counts)

    assert command("delete", "inspect").code == 4
    assert command("delete", "inspect", "--yes").code == 0


# -- dead -----------------------------------------------------------------------------------------


def test_dead_jobs_are_listed_shown_redriven_and_discarded(command: Command, inspect: Orchestrator) -> None:
    ids = [handle.id for handle in inspect.publish_batch("inspect", [{"path": "[red]a"}] * 3)]
    work(inspect, reject, 3)

    answer = command("dead", "list", "inspect", "--limit", "2")
    listed = answer.out
    assert answer.err == "1 more: list them by --offset 2, or a higher --limit\n"
    for_scripts = command("dead", "list", "inspect", "--limit", "1", "--offset", "1", "--json")
    assert (len(for_scripts.json), for_scripts.err) == (1, answer.err)
    assert ids[0] in listed
    assert "no such image" in listed
    assert "2 of 3 dead jobs" in listed
    assert [letter["id"] for letter in command("dead", "list", "inspect", "--json").json] == ids

    shown = command("dead", "show", "inspect", ids[1]).out
    assert "{'path': '[red]a'}" in shown
    assert command("dead", "show", "inspect", ids[1], "--json").json["payload"] == {"path": "[red]a"}

    assert command("dead", "redrive", "inspect", ids[0]).out == "redriven 1 job of 1 named\n"
    again = command("dead", "redrive", "inspect", ids[0])
    assert (again.code, again.out) == (4, "redriven 0 jobs of 1 named\n")
    assert "the others aren't dead" in again.err
    assert command("dead", "discard", "inspect", ids[1], "--yes", "--json").json == {"discarded": 1}
    assert command("dead", "redrive", "inspect", "--all").out == "redriven 1 job\n"
    assert inspect.counts("inspect").dead == 0


def test_a_dead_job_is_shown_with_its_attempts_and_its_traceback(
    command: Command, inspect: Orchestrator
) -> None:
    """Of each attempt when, on which host and in which process; the same as JSON."""

    def fail(job: Job[Any]) -> None:
        if job.attempt == 1:
            raise RetryLater(0, "no camera")
        raise Reject("no such image")

    job_id = inspect.publish("inspect", {"path": "a"})
    work(inspect, fail, 2)
    shown = command("dead", "show", "inspect", job_id).out.splitlines()
    place = (
        rf"\d{{4}}-\d\d-\d\d \d\d:\d\d:\d\d UTC on {re.escape(socket.gethostname())}, process {os.getpid()}"
    )

    assert any(re.fullmatch(f"attempt 1 {place}: no camera", line) for line in shown)
    assert any(re.fullmatch(f"attempt 2 {place}: no such image", line) for line in shown)
    assert "    Traceback (most recent call last):" in shown
    assert '        raise Reject("no such image")' in shown
    assert shown[-1].endswith("Reject: no such image")

    found = command("dead", "show", "inspect", job_id, "--json").json
    assert (found["host"], found["pid"]) == (socket.gethostname(), os.getpid())
    assert found["traceback"].endswith("Reject: no such image")
    (first,) = found["history"]
    assert first.keys() == {"attempt", "error", "failed_at", "host", "pid"}
    assert datetime.fromisoformat(first["failed_at"]).tzinfo is not None
    inspect.discard("inspect")


HOSTILE = "\x1b]0;owned\x07\x9b31m[red]:bug:\bover\x7f\u202e\udcff"
"""A title and a colour for a terminal, markup, a shortcode, a backspace, turned writing, half a character."""
HARMLESS = r"\x1b]0;owned\x07\x9b31m[red]:bug:\x08over\x7f\u202e\udcff"


def test_text_of_a_job_gives_no_orders_to_a_terminal(command: Command, inspect: Orchestrator) -> None:
    """Neither in a table, nor in lines, nor as JSON, which stays JSON; what is stored stays as it was."""

    def hostile(job: Job[Any]) -> None:
        raise Reject(HOSTILE)

    job_id = inspect.publish("inspect", {"path": HOSTILE[:-1]})
    work(inspect, hostile)
    answers = [
        command("dead", "list", "inspect"),
        command("dead", "show", "inspect", job_id),
        command("result", job_id),
    ]

    for answer in answers:
        assert HARMLESS in answer.out + answer.err
    listed = command("dead", "list", "inspect", "--json")
    assert listed.json[0]["error"] == HOSTILE.replace("\udcff", r"\udcff")
    for answer in (*answers, listed):
        assert all(character.isprintable() or character == "\n" for character in answer.out + answer.err)


def test_a_job_that_is_not_dead_is_not_found(command: Command, inspect: Orchestrator) -> None:
    assert command("dead", "show", "inspect", "nobody").code == 4
    assert command("dead", "redrive", "inspect", "nobody").code == 4
    assert command("dead", "discard", "inspect", "nobody", "--yes").code == 4


def test_redrive_and_discard_want_ids_or_all(command: Command, inspect: Orchestrator) -> None:
    for action in ("redrive", "discard"):
        assert command("dead", action, "inspect").code == 2
        assert command("dead", action, "inspect", "--all", "a").code == 2


# -- result ---------------------------------------------------------------------------------------


def test_result_prints_what_the_handler_returned(command: Command, inspect: Orchestrator) -> None:
    job_id = inspect.publish("inspect", {"path": "a"})
    assert command("result", job_id).code == 4
    work(inspect, lambda job: {"count": 3})

    assert command("result", job_id).json == {"count": 3}
    assert command("result", job_id, "--queue", "inspect", "--json").json == {
        "id": job_id,
        "result": {"count": 3},
    }


def test_result_of_a_dead_job_is_its_traceback_and_its_error(command: Command, inspect: Orchestrator) -> None:
    job_id = inspect.publish("inspect", {"path": "a"})
    work(inspect, reject)
    answer = command("result", job_id)

    assert (answer.code, answer.out) == (1, "")
    assert answer.err.startswith("    Traceback (most recent call last):\n")
    told = f"error: job {job_id} of type 'inspect' failed: no such image\n"
    assert answer.err.endswith(f"Reject: no such image\n{told}")
    found = command("result", job_id, "--json").json
    assert (found["id"], found["error"]) == (job_id, "no such image")
    assert found["traceback"].endswith("Reject: no such image")


def test_result_says_why_there_is_none(command: Command, inspect: Orchestrator) -> None:
    """The job waits, or nobody knows it."""
    job_id = inspect.publish("inspect", {"path": "a"})

    assert (
        command("result", job_id).err
        == f"error: job {job_id}: it is waiting; --wait SECONDS waits for its result\n"
    )
    assert "not known in queue 'inspect'" in command("result", "nobody", "--queue", "inspect").err
    assert "not known in queue 'inspect'" in command("result", "nobody").err


# -- migrate --------------------------------------------------------------------------------------


def test_migrate_says_that_most_backends_need_nothing(command: Command) -> None:
    """Nor does one whose queues no other process sees."""
    for options in ([], ["--check"], ["--sql"]):
        answer = command("migrate", *options)
        assert (answer.code, answer.err) == (0, "")
        assert answer.out == "shared://***@host/0 has no migrations: nothing is needed\n"
        assert command("migrate", *options, "--json").json == []
    assert command("migrate", "-b", "memory://").code == 0


# -- health, contract -----------------------------------------------------------------------------


def test_health_is_a_date_held_against_the_clock(command: Command, folder: Path) -> None:
    folder.joinpath("health").touch()

    assert command("health", "health").code == 0
    assert command("health", "health", "--within", "0").code == 1
    assert command("health", "nobody").code == 1
    assert command("health", "nobody", "--json").json == {"healthy": False, "age_s": None}


HARNESS = """
from mindtrace.jobs.contract import Harness
from mindtrace.jobs import LocalClient

class Sound(Harness):
    def make(self, namespace): return LocalClient(namespace)
    def crash(self, consumer): pass
    def sever(self, backend): pass
    def destroy(self, namespace): pass

class Deaf(Sound):
    def make(self, namespace):
        client = LocalClient(namespace)
        client.purge = lambda queue: 0
        return client
"""


def test_contract_runs_the_suite_against_a_harness(command: Command, folder: Path) -> None:
    folder.joinpath("harness.py").write_text(HARNESS, "utf-8")
    sound = command("contract", "harness:Sound", "--clause", "ADM-1")
    deaf = command("contract", "harness:Deaf", "--clause", "ADM-2", "--json")

    assert (sound.code, "holds" in sound.out, "0 failed" in sound.out) == (0, True, True)
    assert deaf.code == 1
    assert '"broken": "ADM-2"' in deaf.out
