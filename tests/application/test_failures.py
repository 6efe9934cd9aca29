"""Dead letters explain themselves: the traceback, and of each attempt when and where it failed."""

import os
import socket
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from mindtrace.jobs import (
    Consumer,
    DeadLetter,
    Job,
    JobInput,
    JobSchema,
    Orchestrator,
    Reject,
    RetryLater,
    RetryPolicy,
)
from mindtrace.jobs.ports import Message

SOON = timedelta(minutes=5)


@pytest.fixture
def die(orchestrator: Orchestrator, make_consumer: Any) -> Any:
    """Let a job die by its handler, and return its dead letter."""

    def die(handler: Any, *, attempts: int = 1) -> DeadLetter:
        orchestrator.publish("points", {})
        make_consumer(handler, policy=RetryPolicy(attempts, base_delay_s=0)).consume_until_empty()
        (letter,) = orchestrator.dead_letters("points")
        return letter

    return die


def fail(job: Job[Any]) -> None:
    raise ValueError(f"attempt {job.attempt}")


def test_each_attempt_says_when_and_where_it_failed(die: Any) -> None:
    letter = die(fail, attempts=3)

    here = (socket.gethostname(), os.getpid())
    assert [failure.error for failure in letter.attempts] == [f"ValueError: attempt {n}" for n in (1, 2, 3)]
    assert [(failure.host, failure.pid) for failure in letter.attempts] == [here] * 3
    assert all(abs(datetime.now(UTC) - failure.failed_at) < SOON for failure in letter.attempts)
    assert (letter.host, letter.pid) == here
    assert [failure.traceback for failure in letter.history] == [None, None]
    assert letter.attempts[-1].traceback == letter.traceback


def test_the_traceback_begins_with_the_handler_and_ends_with_the_error(die: Any) -> None:
    """Frames that lead to the handler are left out."""
    lines = die(fail).traceback.splitlines()

    assert lines[0] == "Traceback (most recent call last):"
    assert "application/consuming" not in "\n".join(lines)
    assert lines[-1] == "ValueError: attempt 1"
    assert any(line.strip().startswith('raise ValueError(f"attempt {job.attempt}")') for line in lines)


def test_causes_are_told_before_the_error(die: Any) -> None:
    def refuse(job: Job[Any]) -> None:
        try:
            fail(job)
        except ValueError as error:
            raise Reject("no good") from error

    traceback = die(refuse).traceback

    assert (
        traceback.index("ValueError: attempt 1") < traceback.index("direct cause") < traceback.index("Reject")
    )


def test_an_async_handler_has_its_own_frames_only(orchestrator: Orchestrator) -> None:
    class Async(Consumer):
        retry = RetryPolicy(1)

        async def run(self, job: Job[Any]) -> None:
            fail(job)

    orchestrator.publish("points", {})
    with Async("points") as consumer:
        consumer.connect(orchestrator)
        consumer.consume_until_empty()
    (letter,) = orchestrator.dead_letters("points")

    assert "asyncio" not in letter.traceback
    assert "in run" in letter.traceback


def test_endless_recursion_keeps_its_last_frames(die: Any) -> None:
    def recur(job: Any) -> None:
        recur(job)

    traceback = die(recur).traceback

    assert len(traceback) <= 8192
    assert traceback.splitlines()[-1].startswith("RecursionError")


def test_what_a_terminal_would_obey_is_escaped(die: Any) -> None:
    def attack(job: Any) -> None:
        raise ValueError("\x1b[2J\x1e{}\x1e")

    letter = die(attack)

    assert r"\x1b[2J" in letter.traceback
    assert letter.pid == os.getpid()


def test_an_error_that_cannot_be_shown_is_kept_all_the_same(die: Any) -> None:
    class Broken(Exception):
        __notes__ = property(lambda self: 1 / 0)

        def __str__(self) -> str:
            raise SystemExit

    letter = die(lambda job: (_ for _ in ()).throw(Broken()))

    assert letter.error == "Broken: its message can't be shown"


def test_a_death_that_no_code_of_the_handler_caused_has_no_traceback(
    die: Any, orchestrator: Orchestrator
) -> None:
    """Such as a result that doesn't fit."""
    letter = die(lambda job: {"total": "three"})

    assert letter.error.startswith("InvalidPayload: result")
    assert letter.traceback is None
    assert letter.pid == os.getpid()


def test_a_retry_that_the_handler_asks_for_is_told_as_well(die: Any) -> None:
    def wait(job: Job[Any]) -> None:
        raise RetryLater(0, "busy")

    letter = die(wait, attempts=2)

    assert [failure.error for failure in letter.attempts] == ["busy", "busy"]
    assert letter.history[0].pid == os.getpid()


def test_what_cannot_be_decoded_says_where_it_was_given_up(orchestrator: Orchestrator, client: Any) -> None:
    """By ``receive_message``, too."""

    class Other(JobInput):
        pass

    orchestrator.register(JobSchema("other", Other))
    client.publish("other", [Message("a", b"no JSON")])

    assert orchestrator.receive_message("other") is None
    (letter,) = orchestrator.dead_letters("other")
    assert (letter.host, letter.pid) == (socket.gethostname(), os.getpid())
