"""Connecting the consumers of a worker, by its settings."""

from dataclasses import dataclass
from functools import partial
from typing import Literal

from ...domain.defaults import DEFAULT_LEASE_S
from ...domain.errors import InvalidInput, QueueConflict, SchemaConflict, UnsupportedCapability
from ..api.batch_consumer import BatchConsumer
from ..api.consumer import Consumer
from ..api.orchestrator import Orchestrator
from ..consuming.job_permits import JobPermits
from ..consuming.permit_order import StrictOrder, WeightedOrder


@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """How a worker process works."""

    concurrency: int | None = None
    """How many jobs each consumer runs at once; None is what its class says."""
    lease_s: float = DEFAULT_LEASE_S
    prefetch: int | None = None
    batch_size: int | None = None
    """How many jobs a batch has at most; None is what its class says. Likewise the next."""
    batch_wait_s: float | None = None
    poll_timeout_s: float = 5.0
    timeout_s: float | None = None
    """For how many seconds a handler may run; None is what its class says, else its schema."""
    grace_s: float = 30.0
    """How many seconds, after the first signal, a handler may take to end."""
    jobs: int | None = None
    """How many handlers all consumers of the process run at once; None is as many as each may."""
    order: Literal["strict", "weighted"] = "weighted"
    """Which consumer is the next, if that is limited: the first that has jobs, or each by its weight."""
    weights: tuple[int, ...] = ()
    """The weights of the consumers, in the order of what makes them; 1 where none is given."""
    burst: bool = False
    """End once no job waits."""
    follows_a_death: bool = False
    """Whether a process of the same worker died before: a burst also waits for the leases of its jobs."""


def make_permits(settings: WorkerSettings) -> JobPermits | None:
    """Make the permits that the consumers of a process share, if there is a limit."""
    if settings.jobs is None:
        return None
    return JobPermits(settings.jobs, StrictOrder() if settings.order == "strict" else WeightedOrder())


def connect(consumer: Consumer, orchestrator: Orchestrator, settings: WorkerSettings) -> None:
    """Connect a consumer.

    Raises:
        JobsError: it can't be connected. If that is due to what the consumer asks for, the message names its
            class.
    """
    connecting = consumer.connect
    if isinstance(consumer, BatchConsumer):
        connecting = partial(
            consumer.connect, batch_size=settings.batch_size, batch_wait_s=settings.batch_wait_s
        )
    try:
        connecting(
            orchestrator,
            concurrency=settings.concurrency,
            lease_s=settings.lease_s,
            prefetch=settings.prefetch,
            poll_timeout_s=settings.poll_timeout_s,
            timeout_s=settings.timeout_s,
        )
    except (InvalidInput, QueueConflict, SchemaConflict, UnsupportedCapability) as error:
        name = type(consumer).__name__
        if not str(error).startswith(name):
            error.args = (f"{name}: {error}",)
        raise
