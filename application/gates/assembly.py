"""Put limits, gates and pauses around a broker's consumer."""

from collections.abc import Callable
from functools import partial
from logging import Logger
from time import monotonic
from typing import Any

from ...domain import JobSchema
from ...ports import ConsumerBackend, OrchestratorBackend
from ..broker.backends import detect_consumer_backend
from ..broker.broker_clock import Clock
from ..consuming.loop import ConsumeLoop
from ..consuming.stop_conditions import StopCondition
from ..limits.in_force import ConsumerLimits, InForce
from ..pausing.watch import PauseWatch
from .gate_list import gates_of
from .gated_consumer import GatedConsumer
from .pause_gate import PauseGate

Run = Callable[[int | None, StopCondition], int]
"""Runs a loop; see :meth:`ConsumeLoop.run`."""


def consumer_limits(schema: JobSchema[Any, Any], queue: str, watch: PauseWatch | None) -> ConsumerLimits:
    """Return the limits of a schema, for one consumer of a queue.

    Args:
        schema: The schema of the jobs.
        queue: The queue's name.
        watch: Tells of their changes; None if the backend has no coordination store.
    """
    limit, rate = schema.concurrency_limit, schema.rate
    refresh = (lambda: None) if watch is None else partial(watch.refresh_limits, queue)
    return ConsumerLimits(
        None if limit is None else InForce(queue, limit, refresh),
        None if rate is None else InForce(queue, rate, refresh),
    )


def open_consumer(
    backend: OrchestratorBackend,
    schema: JobSchema[Any, Any],
    queue: str,
    *,
    at_once: int,
    lease_s: float,
    prefetch: int | None,
    max_body_bytes: int,
    logger: Logger,
    clock: Clock,
    limits: ConsumerLimits,
    steady_clock: Callable[[], float] = monotonic,
) -> ConsumerBackend:
    """Open a consumer of a queue that keeps the limits of ``schema``; the gates come around it.

    Args:
        backend: Where the queue is.
        schema: The schema of the jobs.
        queue: The name of a declared queue.
        at_once: How many jobs run at once.
        lease_s: Seconds for which a job is leased.
        prefetch: How many jobs to take at once; at least ``at_once``. None leaves it to the backend.
        max_body_bytes: The largest body that is looked at.
        logger: Where outages of the coordination store are told.
        clock: The broker's, which says whether a job has expired.
        limits: The limits of ``schema``.
        steady_clock: What the limits wait by, in seconds.

    Raises:
        QueueNotFound: the queue isn't declared.
        BackendUnavailable: the broker can't be reached.
        UnsupportedCapability: the schema has limits, and the backend no coordination store.
    """
    opened = detect_consumer_backend(
        backend, queue, lease_s=lease_s, prefetch=None if prefetch is None else max(prefetch, at_once)
    )
    if not limits.all:
        return opened
    from .limited import limited  # here, as most queues have no limits

    return limited(
        opened,
        backend.coordination,
        schema,
        queue,
        at_once=at_once,
        lease_s=lease_s,
        max_body_bytes=max_body_bytes,
        logger=logger,
        clock=clock,
        limits=limits,
        steady_clock=steady_clock,
    )


def gated_loop(
    consumer: ConsumerBackend,
    backend: OrchestratorBackend,
    schema: JobSchema[Any, Any],
    queue: str,
    watch: PauseWatch | None,
    make_loop: Callable[[ConsumerBackend], ConsumeLoop],
    logger: Logger,
    limits: ConsumerLimits,
) -> tuple[ConsumeLoop, Run]:
    """Make a loop that runs only jobs which pass the gates, and none while their queue is paused.

    Args:
        consumer: Where the jobs come from.
        backend: Where the queue is.
        schema: The schema of the jobs.
        queue: The queue's name.
        watch: Who looks for pauses; None if the backend has no coordination store, and so no gates.
        make_loop: Makes the loop.
        logger: Where pauses are told.
        limits: The limits of ``schema``.

    Returns:
        The loop, and what runs it.
    """
    if watch is None:
        loop = make_loop(consumer)
        return loop, loop.run
    gates = gates_of(backend, schema, queue, watch)
    gated = GatedConsumer(consumer, gates, partial(watch.refresh, queue))
    loop = make_loop(gated)
    return loop, PauseGate(watch, queue, gated, loop, logger, limits.all).run
