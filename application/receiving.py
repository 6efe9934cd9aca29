"""Receiving jobs without a consumer: each is done as soon as it is returned."""

from functools import partial
from typing import Any

from ..domain import Job, JobSchema
from ..domain.dead_reasons import DeadReason
from ..domain.envelope import decode
from ..ports import Ack, Dead, Delivery, OrchestratorBackend, Settlement, SettleOutcome
from .failures import failed_attempt
from .handler_errors import describe
from .registry import Registration
from .signals.graceful_stop import asks_to_stop
from .unique_jobs.consumer_backend import freeing_keys


def receive_job(
    backend: OrchestratorBackend, registration: Registration, max_body_bytes: int
) -> Job[Any] | None:
    """Take one job off a queue without waiting; as :meth:`Orchestrator.receive_message`."""
    schema, queue = registration
    open_one = partial(backend.open_consumer, queue.name, prefetch=1)
    with backend.idle_consumers.borrowed(queue.name, open_one) as borrowed:
        consumer = freeing_keys(borrowed, backend, queue.name, schema)
        while deliveries := consumer.receive(1, 0.0):
            job, settlement = _accept(deliveries[0], schema, max_body_bytes)
            (outcome,) = consumer.settle([settlement]).outcomes
            if job is not None and outcome is SettleOutcome.OK:  # else it is another's
                return job
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
        if asks_to_stop(error):
            raise
        failure = failed_attempt(describe(error), error)
        return None, Dead(delivery.receipt, DeadReason.MALFORMED, failure)
    return job, Ack(delivery.receipt)
