"""What a failure of the suite says."""

import subprocess
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import ClassVar

import pytest

from mindtrace.jobs import JobsError, LocalClient
from mindtrace.jobs.contract import Result, run_contract
from mindtrace.jobs.ports import Message, PublishOutcome, PublishStatus, QueueCounts

from .harnesses import LocalHarness


def results_of(client_of: type[LocalClient], *clauses: str) -> dict[str, Result]:
    """Run the checks of some clauses on an adapter; return the results by check."""

    class ClientHarness(LocalHarness):
        client = client_of
        timeout_s = 1.0

    results = run_contract(ClientHarness(), profile="quick", clauses=clauses)
    return {result.check: result for result in results}


class RejectingClient(LocalClient):
    """Rejects each message, and says why."""

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        error = JobsError("the stream is sealed")
        return [PublishOutcome(message.id, PublishStatus.REJECTED, error) for message in messages]


@pytest.mark.parametrize(
    "check",
    [
        "PUB1_a_published_job_is_visible_at_once",
        "PUB1_a_body_arrives_as_it_was",
        "PUB2_an_id_is_kept_to_the_end",
    ],
)
def test_a_publish_that_was_rejected_is_shown_with_its_error(check: str) -> None:
    error = results_of(RejectingClient, "PUB-1", "PUB-2")[f"test_{check}"].error

    assert error is not None
    assert "rejected" in error
    assert "JobsError: the stream is sealed" in error


class MiscountingOnceClient(LocalClient):
    """Counts wrongly once, and never again."""

    counted: ClassVar[int] = 0

    def counts(self, queue: str) -> QueueCounts:
        MiscountingOnceClient.counted += 1
        counts = super().counts(queue)
        return replace(counts, dead=counts.dead + 1) if MiscountingOnceClient.counted == 40 else counts


def test_a_failure_of_the_state_machine_that_is_not_repeated_has_its_steps_and_its_clause() -> None:
    (result,) = results_of(MiscountingOnceClient, "I9").values()

    assert result.broken == "I9"
    assert result.error is not None
    assert "1 are dead, expected 0" in result.error
    assert "state.declare(" in result.error
    assert "state.publish(count=" in result.error


class FailingClient(LocalClient):
    """Its driver raises what no caller expects."""

    def counts(self, queue: str) -> QueueCounts:
        raise OSError("the driver gave up")


def test_what_a_call_raised_is_shown_under_no_clause_that_it_may_not_break() -> None:
    results = results_of(FailingClient, "SET-4")
    error = next(result.error for result in results.values() if len(result.clauses) > 1 and result.broken)

    assert error is not None
    assert "OSError" in error
    assert "the driver gave up" in error
    assert "which of them is broken isn't known" in error


@pytest.mark.parametrize(("words", "code"), [(["--help"], 0), ([], 2), (["harness"], 2)])
def test_the_command_that_breaks_adapters_says_how_it_is_used(words: list[str], code: int) -> None:
    command = [sys.executable, "-m", "mindtrace.jobs.contract.broken", *words]
    ran = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)

    assert ran.returncode == code
    assert "usage: python -m mindtrace.jobs.contract.broken" in ran.stdout + ran.stderr
    assert "Traceback" not in ran.stderr
