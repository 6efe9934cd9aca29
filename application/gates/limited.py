"""Put the limits of a schema around a broker's consumer."""

from collections.abc import Callable
from logging import Logger
from time import monotonic
from typing import Any

from ...domain import JobSchema
from ...ports import ConsumerBackend, CoordinationStore
from ..broker.broker_clock import Clock
from ..limits.consumer_backend import LimitedConsumerBackend
from ..limits.in_force import ConsumerLimits
from ..limits.keyed_turns import turns_of
from ..limits.places import Places


def limited(
    consumer: ConsumerBackend,
    store: CoordinationStore,
    schema: JobSchema[Any, Any],
    queue: str,
    *,
    at_once: int,
    lease_s: float,
    max_body_bytes: int,
    logger: Logger,
    clock: Clock,
    limits: ConsumerLimits,
    steady_clock: Callable[[], float] = monotonic,
    most_held: int | None = None,
) -> LimitedConsumerBackend:
    """Return a consumer that keeps the limits of ``schema``.

    Args:
        consumer: Where the jobs come from.
        store: Where the limits are counted.
        schema: The schema of the jobs.
        queue: The name of the queue.
        at_once: How many jobs run at once.
        lease_s: Seconds for which a job is leased.
        max_body_bytes: The largest body that is looked at.
        logger: Where outages of the coordination store are told.
        clock: The broker's, which says whether a job has expired.
        limits: The limits of ``schema``.
        steady_clock: The clock of waits.
        most_held: As for :class:`LimitedConsumerBackend`.
    """
    places = turns = None
    if limits.limit is not None:
        places = Places(
            store,
            queue,
            schema,
            limits.limit,
            lease_s=lease_s,
            max_body_bytes=max_body_bytes,
            clock=steady_clock,
        )
    if limits.rate is not None:
        turns = turns_of(
            store,
            queue,
            schema,
            limits.rate,
            slots=at_once,
            lease_s=lease_s,
            max_body_bytes=max_body_bytes,
            clock=steady_clock,
        )
    return LimitedConsumerBackend(
        consumer, places, turns, at_once, logger, steady_clock, clock, most_held=most_held
    )
