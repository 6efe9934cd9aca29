"""Open what a consumer needs of its backend, with what its schema asks for around it."""

from collections.abc import Callable
from functools import partial
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
    logger: Logger,
) -> ConsumerBackend:
    """Open a consumer backend that keeps the limits of ``schema``, and frees the keys of its unique jobs.

    Args:
        backend: Where the queue is.
        schema: The schema of the jobs.
        queue: The name of a declared queue.
        at_once: How many jobs run at once.
        lease_s: Seconds for which a job is leased.
        prefetch: How many jobs to take at once; at least ``at_once``. None leaves it to the backend.
        max_body_bytes: The largest body that is looked at.
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
        from .limits.add_limits import add_limits  # here, as most queues have no limits

        opened = add_limits(
            opened,
            schema,
            queue,
            backend.coordination,
            at_once=at_once,
            lease_s=lease_s,
            max_body_bytes=max_body_bytes,
            logger=logger,
        )
    return freeing_keys(opened, backend, queue, schema)


def obeying_cancels(
    consumer: ConsumerBackend,
    backend: OrchestratorBackend,
    schema: JobSchema[Any, Any],
    queue: str,
    has_cancels: Callable[[str], bool],
) -> ConsumerBackend:
    """Return a consumer backend that cancels jobs as the coordination store says, if the broker itself can't.

    Args:
        consumer: Where the jobs come from, as they are about to start.
        backend: Where the queue is.
        schema: The schema of the jobs.
        queue: The queue's name.
        has_cancels: Whether jobs of a queue are to be cancelled, as far as that is known.
    """
    if backend.capabilities.cancel or not backend.capabilities.coordination:
        return consumer
    from .cancelling.consumer_backend import CancellingConsumerBackend  # here, as most brokers cancel jobs

    requests = CancelRequests(backend.coordination, queue)
    return CancellingConsumerBackend(consumer, requests, partial(has_cancels, queue), schema.result_ttl_s)
