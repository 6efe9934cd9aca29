"""Frees the keys of unique jobs as they end."""

from collections.abc import Sequence
from typing import Any

from ...domain import JobSchema
from ...ports import (
    Ack,
    Cancel,
    ConsumerBackend,
    Dead,
    Delivery,
    OrchestratorBackend,
    Settled,
    Settlement,
    SettleOutcome,
)
from ..consumer_decorator import ConsumerDecorator
from .records import UniqueRecords


def freeing_keys(
    consumer: ConsumerBackend, backend: OrchestratorBackend, queue: str, schema: JobSchema[Any, Any]
) -> ConsumerBackend:
    """Return a consumer backend that also frees the keys of jobs, if those are unique."""
    if schema.unique is None or not backend.capabilities.coordination:
        return consumer
    records = UniqueRecords(backend, queue, schema)
    freeing = UniqueConsumerBackend(consumer, records)
    if not schema.unique.replaces:
        return freeing
    from .replaced_jobs import ReplacingConsumerBackend  # here, as few schemas are of this kind

    result_ttl_s = schema.result_ttl_s if backend.capabilities.results else None
    return ReplacingConsumerBackend(freeing, records, result_ttl_s)


class UniqueConsumerBackend(ConsumerDecorator):
    """Deletes the record of each job once it is done or dead (ADR 70).

    Args:
        inner: Where the jobs come from.
        records: The records of the queue.
    """

    def __init__(self, inner: ConsumerBackend, records: UniqueRecords) -> None:
        super().__init__(inner)
        self._records = records
        self._taken: dict[str, Delivery] = {}
        """The jobs that aren't settled yet, by their receipts."""

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        deliveries = self._inner.receive(max_jobs, timeout_s)
        self._note(deliveries)
        return deliveries

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        settled = self._inner.settle(settlements, take=take)
        self._note(settled.deliveries)
        ended = []
        for settlement, outcome in zip(settlements, settled.outcomes, strict=True):
            if outcome.keeps_receipt:
                continue
            delivery = self._taken.pop(settlement.receipt, None)
            ends = isinstance(settlement, Ack | Dead | Cancel) or outcome is SettleOutcome.CANCELLED
            if delivery is not None and ends and outcome is not SettleOutcome.LOST:
                ended.append(delivery)
        if ended:
            self._records.free(self._records.keys_of(ended))
        return settled

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        outcomes = self._inner.extend(receipts)
        for receipt, outcome in zip(receipts, outcomes, strict=True):
            if outcome is SettleOutcome.LOST:  # it may never be settled
                self._taken.pop(receipt, None)
        return outcomes

    def _note(self, deliveries: Sequence[Delivery]) -> None:
        self._taken.update((delivery.receipt, delivery) for delivery in deliveries)
