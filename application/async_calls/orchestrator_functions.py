"""Overloaded methods of the orchestrator as functions, as no ``Callable`` can carry their types."""

from collections.abc import Iterable
from typing import Any

from ...domain import Job
from ...ports import PublishOutcome
from ..orchestrator import Orchestrator
from ..publishing.messages import Work
from ..registry import QueueRef


def job(orchestrator: Orchestrator, queue: QueueRef, data: Any, id_: str | None) -> Job[Any]:
    """As :meth:`Orchestrator.job`."""
    return orchestrator.job(queue, data, id=id_)


def publish(
    orchestrator: Orchestrator, queue: QueueRef, job: Work, priority: int | None, delay_s: float | None
) -> str:
    """As :meth:`Orchestrator.publish`."""
    return orchestrator.publish(queue, job, priority=priority, delay_s=delay_s)


def publish_batch(
    orchestrator: Orchestrator,
    queue: QueueRef,
    jobs: Iterable[Work],
    priority: int | None,
    delay_s: float | None,
) -> list[PublishOutcome]:
    """As :meth:`Orchestrator.publish_batch`."""
    return orchestrator.publish_batch(queue, jobs, priority=priority, delay_s=delay_s)


def receive(orchestrator: Orchestrator, queue: QueueRef) -> Job[Any] | None:
    """As :meth:`Orchestrator.receive_message`."""
    return orchestrator.receive_message(queue)


def result(orchestrator: Orchestrator, queue: QueueRef, job_id: str) -> Any:
    """As :meth:`Orchestrator.result`."""
    return orchestrator.result(queue, job_id)
