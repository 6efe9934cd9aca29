"""Publishing jobs of which one at a time is in a queue."""

from collections.abc import Sequence
from time import monotonic, sleep
from typing import Any

from ...domain import JobSchema
from ...domain.errors import BackendUnavailable, UnsupportedCapability
from ...ports import Message, Observer, OrchestratorBackend, PublishOutcome, PublishStatus, Record
from ..broker.guarded_publish import CLAIM_S, publish_guarded
from ..checks.await_misuse import returned_id
from ..registration.registry import Registration
from ..unique_jobs.records import UniqueRecords, replaced_by
from .messages import confirmed_id

_LOOK_S = 0.005
_SLOWEST_LOOK_S = 0.1


def refuse_transaction(schema: JobSchema[Any, Any]) -> None:
    """Refuse to publish a unique job in a transaction of the caller's.

    Raises:
        UnsupportedCapability: the schema is unique.
    """
    if schema.unique is not None:
        raise UnsupportedCapability(
            f"schema {schema.name!r} is unique, and its jobs can't be published in your transaction: publish "
            "after the commit, without connection="
        )


def publish_one_unique(
    backend: OrchestratorBackend,
    registration: Registration,
    message: Message,
    connection: object,
    observer: Observer | None,
) -> str:
    """Publish a job unless another is in its place, and return the id of the one that is in the queue.

    Raises:
        JobsError: as of :func:`publish_unique` and :func:`confirmed_id`.
    """
    (outcome,) = publish_unique(backend, registration, [message], connection, observer)
    return returned_id(outcome.standing or confirmed_id(registration.queue.name, outcome, backend))


def publish_unique(
    backend: OrchestratorBackend,
    registration: Registration,
    messages: Sequence[Message],
    connection: object,
    observer: Observer | None,
) -> list[PublishOutcome]:
    """Publish each job unless another is in its place, and return one outcome for each, in order.

    Raises:
        BackendUnavailable: broker or store are away, and nothing was sent.
        UnsupportedCapability: the backend has no coordination store, or ``connection`` is given.
    """
    if connection is not None:
        refuse_transaction(registration.schema)
    outcomes = _publish_each(_Publisher(backend, registration), messages)
    if observer is not None:
        queue = registration.queue.name
        if stood := sum(outcome.standing is not None for outcome in outcomes):
            observer.stood(queue, stood)
        if replaced := sum(outcome.replaced is not None for outcome in outcomes):
            observer.replaced(queue, replaced)
    return outcomes


def _publish_each(publisher: "_Publisher", messages: Sequence[Message]) -> list[PublishOutcome]:
    found = publisher.records.get([publisher.records.key_of(message.body) for message in messages])
    outcomes: list[PublishOutcome] = []
    for message in messages:
        try:
            outcomes.append(publisher.publish(message, found))
        except BackendUnavailable as error:
            if not outcomes:
                raise
            unknown = [PublishOutcome(each.id, PublishStatus.UNKNOWN, error) for each in messages]
            return outcomes + unknown[len(outcomes) :]
    return outcomes


class _Publisher:
    def __init__(self, backend: OrchestratorBackend, registration: Registration) -> None:
        self._backend = backend
        self._queue = registration.queue.name
        self.records = UniqueRecords(backend, self._queue, registration.schema)

    def publish(self, message: Message, found: dict[str, Record]) -> PublishOutcome:
        """Publish one job unless another is in its place.

        Args:
            message: The job.
            found: The records as they were found, of which this one's may have changed since.
        """
        key = self.records.key_of(message.body)
        record = found.get(key)
        give_up_s, pause_s = monotonic() + 2 * CLAIM_S, _LOOK_S
        while True:
            standing = None if record is None else self.records.standing(record)
            if standing is not None:
                return _duplicate(message, standing)
            if self.records.is_published(record, message):
                return _duplicate(message)
            guard = self.records.guard(key, message, record)
            outcome = publish_guarded(self._backend, self._queue, message, guard, may_be_freed=True)
            if outcome is not None:
                if outcome.status is PublishStatus.DUPLICATE:  # of a job with this id, maybe of other fields
                    self.records.take_back(guard, record)
                is_new = outcome.status is PublishStatus.ACCEPTED
                return outcome._replace(replaced=replaced_by(guard)) if is_new else outcome
            before, record = record, self.records.get([key]).get(key)
            if record is not None and record.value == guard.value:  # the answer to it was lost
                return PublishOutcome(message.id, PublishStatus.ACCEPTED, replaced=replaced_by(guard))
            if record == before:  # another publisher has the claim
                if monotonic() > give_up_s:
                    raise BackendUnavailable(f"queue {self._queue!r}: another publisher holds this key")
                sleep(pause_s)
                pause_s = min(2 * pause_s, _SLOWEST_LOOK_S)


def _duplicate(message: Message, standing: str | None = None) -> PublishOutcome:
    return PublishOutcome(message.id, PublishStatus.DUPLICATE, standing=standing)
