"""Open what a consumer needs of its backend, with what its schema asks for around it."""

from collections.abc import Callable
from logging import Logger
from typing import Any

from ..domain import JobSchema
from ..ports import ConsumerBackend, OrchestratorBackend
from .backends import detect_consumer_backend
from .cancelling.requests import CancelRequests
from .unique_jobs.consumer_backend import freeing_keys


def open_consumer_backend(
    backend: OrchestratorBackend,
    schema: JobSchema[Any, Any],
    queue: str,
    *,
    at_once: int,
    lease_s: float,
    prefetch: int | None,
    max_body_bytes: int,
    has_cancels: Callable[[], bool] | None,
    logger: Logger,
) -> ConsumerBackend:
    """Open a consumer backend that keeps the limits of ``schema``, and frees the keys of its unique jobs.

    Where the broker can't, it cancels jobs, too.

    Args:
        backend: Where the queue is.
        schema: The schema of the jobs.
        queue: The name of a declared queue.
        at_once: How many jobs run at once.
        lease_s: Seconds for which a job is leased.
        prefetch: How many jobs to take at once; at least ``at_once``. None leaves it to the backend.
        max_body_bytes: The largest body that is looked at.
        has_cancels: Whether jobs of the queue are to be cancelled; None without a coordination store.
        logger: Where outages of the coordination store are told.

    Raises:
        QueueNotFound: the queue isn't declared.
        BackendUnavailable: the broker can't be reached.
        UnsupportedCapability: the schema has limits, and the backend no coordination store.
    """
    opened = detect_consumer_backend(
        backend, queue, lease_s=lease_s, prefetch=None if prefetch is None else max(prefetch, at_once)
    )
    if schema.is_limited:
        from .limits.limited import limited  # here, as most queues have no limits

        opened = limited(
            opened,
            schema,
            queue,
            backend.coordination,
            at_once=at_once,
            lease_s=lease_s,
            max_body_bytes=max_body_bytes,
            logger=logger,
        )
    opened = freeing_keys(opened, backend, queue, schema)
    if has_cancels is None or backend.capabilities.cancel:
        return opened
    from .cancelling.consumer_backend import CancellingConsumerBackend  # here, as most brokers cancel jobs

    requests = CancelRequests(backend.coordination, queue)
    return CancellingConsumerBackend(opened, requests, has_cancels, schema.result_ttl_s)
