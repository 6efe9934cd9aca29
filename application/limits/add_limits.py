"""Put limits around a consumer backend."""

from logging import Logger
from time import monotonic
from typing import Any

from ...domain import JobSchema
from ...ports import ConsumerBackend, CoordinationStore
from .consumer_backend import LimitedConsumerBackend
from .places import Places
from .turns import Turns


def add_limits(
    backend: ConsumerBackend,
    schema: JobSchema[Any, Any],
    queue: str,
    store: CoordinationStore,
    *,
    at_once: int,
    lease_s: float,
    max_body_bytes: int,
    logger: Logger,
) -> ConsumerBackend:
    """Return a consumer backend that keeps the rate and the concurrency limit of ``schema``.

    Args:
        backend: Where the jobs come from.
        schema: What has limits.
        queue: The queue's name. Two queues of one schema have limits of their own.
        store: Where all consumers of the queue count.
        at_once: How many jobs the consumer runs at once.
        lease_s: After how many seconds the place of a consumer that died is free.
        max_body_bytes: The largest body that is looked at.
        logger: Where outages of the store are told.
    """
    rate, limit = schema.rate, schema.concurrency_limit
    places = turns = None
    if limit is not None:
        places = Places(
            store, queue, schema, limit, lease_s=lease_s, max_body_bytes=max_body_bytes, clock=monotonic
        )
    if rate is not None:
        turns = Turns(store, queue, rate, lease_s=lease_s, clock=monotonic)
    return LimitedConsumerBackend(backend, places, turns, at_once, logger)
