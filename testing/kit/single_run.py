"""Run one handler once, without a kit at hand."""

from collections.abc import Mapping
from typing import Any

from ..domain.model_types import InT, OutT
from .job_kit import JobKit
from .workers import Handler


def run_job(handler: Handler[InT, OutT], payload: InT | Mapping[str, Any]) -> OutT | None:
    """Run a handler once in a kit of its own, and return what it returned; as :meth:`JobKit.run_job`.

    What the handler publishes is thrown away. To see it, use :meth:`JobKit.run_job`.

    Args:
        handler: A consumer, its class, or a function with ``@job_handler`` or ``@batch_handler``.
        payload: The payload of the job.

    Raises:
        BaseException: whatever the handler raised, the very object.
        AssertionError: the job wasn't done for another reason, as where its output doesn't fit the schema.
        InvalidPayload: the payload doesn't fit the schema.
    """
    with JobKit() as kit:
        return kit.run_job(handler, payload)
