"""The broker is away when a program starts: what it registered is declared by its first publish."""

from typing import Any

import pytest

from mindtrace.jobs import JobSchema, Orchestrator
from mindtrace.jobs.errors import BackendUnavailable, QueueNotFound


@pytest.fixture
def fresh(far: Orchestrator) -> Orchestrator:
    """An orchestrator that has registered nothing."""
    return Orchestrator(far.backend)


def test_a_publish_says_that_the_broker_is_away_and_declares_the_queue_once_it_is_back(
    fresh: Orchestrator, line: Any, schema: JobSchema[Any, Any]
) -> None:
    line.breaks["declare"] = 2
    with pytest.raises(BackendUnavailable):
        fresh.register(schema, "priority", queue="later")
    with pytest.raises(BackendUnavailable):
        fresh.publish("later", {})

    fresh.publish("later", {}, priority=3)

    assert fresh.count_queue_messages("later") == 1


def test_a_queue_that_is_deleted_is_not_declared_again(
    fresh: Orchestrator, far: Orchestrator, line: Any, schema: JobSchema[Any, Any]
) -> None:
    far.register(schema, queue="later")
    line.breaks["declare"] = 1
    with pytest.raises(BackendUnavailable):
        fresh.register(schema, queue="later")
    fresh.delete_queue("later")

    with pytest.raises(QueueNotFound):
        fresh.publish("later", {})
