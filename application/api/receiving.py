"""Receiving jobs without a consumer: each is done as soon as it is returned."""

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from typing import Any

from ...domain import Job, JobSchema
from ...domain.dead_reasons import DeadReason
from ...domain.defaults import DEFAULT_LEASE_S
from ...domain.envelope import decode
from ...domain.errors import BackendUnavailable, JobsError
from ...domain.wording import quantity
from ...ports import (
    Ack,
    ConsumerBackend,
    CoordinationStore,
    Dead,
    Delivery,
    OrchestratorBackend,
    Release,
    Settlement,
    SettleOutcome,
)
from ...ports.idle_consumers import IdleConsumer
from ..broker.broker_clock import Clock
from ..broker.deferral import MOST_DEFERRED
from ..consuming.expiry import expiry_of
from ..failures.failed_attempts import FollowDeath, failed_attempt, not_dead_yet
from ..failures.handler_errors import describe
from ..gates.assembly import consumer_limits
from ..gates.gate_list import gates_of
from ..gates.gated_consumer import GatedConsumer
from ..limits.changes import changes_among
from ..limits.in_force import ConsumerLimits
from ..pausing.watch import PauseWatch
from ..process.graceful_stop import raised_by_signal
from ..registration.registry import Registration

_LOOKED_AT = 32
"""At how many jobs a call looks to find one that may run, where limits count the jobs of each key."""


def receive_job(
    backend: OrchestratorBackend,
    registration: Registration,
    watch: PauseWatch | None,
    max_body_bytes: int,
    clock: Clock,
    follow_death: FollowDeath,
) -> Job[Any] | None:
    """Take one job off a queue without waiting; as :meth:`Orchestrator.receive_message`."""
    schema, queue = registration
    open_one = partial(backend.open_consumer, queue.name, prefetch=1)
    with backend.idle_consumers.borrowed(queue.name, open_one) as borrowed:
        if watch is not None and watch.pause_of(queue.name) is not None:
            return None
        with _within_limits(borrowed, backend, registration, watch, max_body_bytes, clock) as within:
            consumer = within
            if watch is not None and (gates := gates_of(backend, schema, queue.name, watch)):
                consumer = GatedConsumer(within, gates)
            _settle_again(consumer, borrowed.deferred)
            return _receive(
                consumer,
                borrowed.deferred,
                schema,
                max_body_bytes,
                clock,
                follow_death,
                keeps_results=backend.capabilities.results,
            )


@contextmanager
def _within_limits(
    borrowed: IdleConsumer,
    backend: OrchestratorBackend,
    registration: Registration,
    watch: PauseWatch | None,
    max_body_bytes: int,
    clock: Clock,
) -> Iterator[ConsumerBackend]:
    """Yield a consumer that returns only jobs which may run; afterwards, release the others that it took."""
    schema, queue = registration
    if watch is None or not schema.is_limited:
        borrowed.deferred += [Release(job.receipt) for job in borrowed.take_kept()]  # another schema's
        yield borrowed.backend
        return
    from ..gates.limited import limited  # here, as most queues have no limits

    limits = consumer_limits(schema, queue.name, None)
    _note_changes(limits, backend.coordination)
    consumer = limited(
        borrowed.backend,
        backend.coordination,
        schema,
        queue.name,
        at_once=1,
        lease_s=borrowed.backend.lease_s or DEFAULT_LEASE_S,
        max_body_bytes=max_body_bytes,
        logger=watch.logger,
        clock=clock,
        limits=limits,
        most_held=_LOOKED_AT if any(each.declared.fields for each in limits.all) else 1,
    )
    consumer.hold(borrowed.take_kept())
    try:
        yield consumer
    finally:
        borrowed.kept = consumer.return_held()


def _note_changes(limits: ConsumerLimits, store: CoordinationStore) -> None:
    """Ask how limits are changed. While the store is away, they allow what the code declares."""
    with suppress(JobsError):
        changes = changes_among(store.get([each.key for each in limits.all]))
        for each in limits.all:
            each.note(changes)


def _settle_again(consumer: ConsumerBackend, deferred: list[Settlement]) -> None:
    if deferred:
        outcomes = consumer.settle(deferred).outcomes
        pairs = zip(deferred, outcomes, strict=True)
        deferred[:] = [each for each, outcome in pairs if outcome.keeps_receipt]


def _receive(
    consumer: ConsumerBackend,
    deferred: list[Settlement],
    schema: JobSchema[Any, Any],
    max_body_bytes: int,
    clock: Clock,
    follow_death: FollowDeath,
    *,
    keeps_results: bool,
) -> Job[Any] | None:
    while deliveries := consumer.receive(1, 0.0):
        job, settlement = _accept(deliveries[0], schema, max_body_bytes)
        if job is not None:
            expiry = expiry_of(job, settlement.receipt, schema, clock, keeps_results=keeps_results)
            job, settlement = (job, settlement) if expiry is None else (None, expiry)
        if isinstance(settlement, Dead):
            settlement = follow_death(deliveries[0], settlement)
        (outcome,) = consumer.settle([settlement]).outcomes
        if outcome is SettleOutcome.REFUSED and isinstance(settlement, Dead):
            settlement = not_dead_yet(settlement, "its next jobs couldn't be published")
            (outcome,) = consumer.settle([settlement]).outcomes
        if job is not None and outcome is SettleOutcome.OK:  # else it is another's
            return job
        if outcome.keeps_receipt:  # a job that is to be dead, while the broker takes no messages
            deferred.append(settlement)
        if len(deferred) >= MOST_DEFERRED:
            raise BackendUnavailable(
                f"the broker takes no messages at present: {quantity(len(deferred), 'job')} that can't be "
                "read wait here to become dead letters"
            )
    return None


def _accept(
    delivery: Delivery, schema: JobSchema[Any, Any], max_body_bytes: int
) -> tuple[Job[Any] | None, Settlement]:
    """Return the job of a delivery and its ack; for a body that is no job, None and its death (RCV-4)."""
    try:
        job = decode(delivery.body, schema, attempt=delivery.attempt, max_bytes=max_body_bytes)
    except KeyboardInterrupt:  # the caller's, who has pressed Ctrl-C
        raise
    except BaseException as error:  # a validator of the user's model may raise anything
        if raised_by_signal(error):
            raise
        failure = failed_attempt(describe(error), error)
        return None, Dead(delivery.receipt, DeadReason.MALFORMED, failure)
    return job, Ack(delivery.receipt)
