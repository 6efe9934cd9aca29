"""A file of jobs: what becomes of each line is told by its number."""

from collections.abc import Sequence

import pytest

from mindtrace.jobs import LocalClient, Orchestrator, PublishOutcome, PublishStatus
from mindtrace.jobs.application.tools.bulk_publish import bulk_publish
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Message


def test_a_job_that_was_in_the_queue_before_is_not_counted_as_published(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As an adapter may answer that sent a batch twice."""
    monkeypatch.setattr(
        orchestrator,
        "publish_batch_with",
        lambda *_, **__: [
            PublishOutcome("a", PublishStatus.DUPLICATE),
            PublishOutcome("b", PublishStatus.ACCEPTED),
        ],
    )
    report = bulk_publish(orchestrator, "points", [b"{}"] * 2)
    assert (report.lines, report.published, report.standing, report.is_whole) == (2, 1, 0, True)


def test_lines_that_could_not_be_sent_are_told_and_cost_no_other(
    client: LocalClient, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What was published before and after an outage stays published (PUB-4)."""
    publish, batches = client.publish, 0

    def away_for_the_second(queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        nonlocal batches
        batches += 1
        if batches == 2:
            raise BackendUnavailable("no broker answers")
        return publish(queue, messages)

    monkeypatch.setattr(client, "publish", away_for_the_second)
    report = bulk_publish(orchestrator, "points", [b'{"x": 1}'] * 1200)

    assert (report.counts[PublishStatus.ACCEPTED], report.counts[PublishStatus.REJECTED]) == (700, 500)
    assert (report.bad[0].number, report.bad[0].error) == (501, "no broker answers")
    assert client.counts("points").ready == 700
