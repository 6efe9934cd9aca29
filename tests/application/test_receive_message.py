"""Taking one job by hand: at most once, done as soon as it is returned."""

from typing import Any

import pytest
from pydantic import field_validator

from mindtrace.jobs import JobInput, JobSchema, LocalClient, Orchestrator
from mindtrace.jobs.domain.errors import QueueNotFound
from mindtrace.jobs.ports import Message


def test_an_empty_queue_gives_none_at_once(orchestrator: Orchestrator) -> None:
    """It never waits."""
    assert orchestrator.receive_message("points") is None


def test_a_job_that_was_returned_is_done(orchestrator: Orchestrator) -> None:
    """Nothing waits or is in flight after it, and it has ended without a result (SET-1)."""
    first, second = (orchestrator.publish("points", {"x": n}) for n in (1, 2))

    job = orchestrator.receive_message("points")

    assert job is not None
    assert (job.id, job.payload.x, job.attempt) == (first, 1, 1)
    counts = orchestrator.counts("points")
    assert (counts.ready, counts.in_flight, counts.dead) == (1, 0, 0)
    assert orchestrator.result("points", first) is None
    assert orchestrator.receive_message("points").id == second


def test_a_body_that_cannot_be_decoded_is_passed_over(
    client: LocalClient, orchestrator: Orchestrator
) -> None:
    """It is dead-lettered with its reason, and the next job is returned (RCV-4)."""
    client.publish("points", [Message("bad", b"\x80\x04.")])
    good = orchestrator.publish("points", {})

    assert orchestrator.receive_message("points").id == good
    (letter,) = orchestrator.dead_letters("points")
    assert (letter.id, letter.reason, letter.body) == ("bad", "malformed", b"\x80\x04.")


def test_an_unknown_queue_is_refused(orchestrator: Orchestrator) -> None:
    """And nothing is created (PUB-3)."""
    for _ in range(2):
        with pytest.raises(QueueNotFound, match="queue 'nowhere'"):
            orchestrator.receive_message("nowhere")


def test_it_leaves_nothing_behind(client: LocalClient, orchestrator: Orchestrator, background: Any) -> None:
    """Not even an entry for the consumer that it opens, from however many threads (CON-2)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(100)])

    jobs = [background(orchestrator.receive_message, "points") for _ in range(100)]

    assert {job.result().payload.x for job in jobs} == set(range(100))
    assert not client._store("points")._tables


def test_a_body_whose_validator_breaks_is_passed_over(client: LocalClient) -> None:
    """Whatever a model's own validator raises, the job behind is reached (RCV-4)."""

    class Fussy(JobInput):
        x: int = 0

        @field_validator("x")
        @classmethod
        def look_up(cls, x: int) -> int:
            return {0: 0}[x] if armed else x

    armed = False
    orchestrator = Orchestrator(client)
    orchestrator.register(JobSchema("fussy", Fussy))
    orchestrator.publish_batch("fussy", [{"x": 1}, {"x": 0}])
    armed = True

    job = orchestrator.receive_message("fussy")

    assert job is not None
    assert job.payload.x == 0
    assert [letter.error for letter in orchestrator.dead_letters("fussy")] == ["KeyError: 1"]
