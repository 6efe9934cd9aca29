"""Ends jobs that others took the place of, before they run."""

from ...domain.errors import JobsError
from ...ports import Ack, ConsumerBackend, Delivery
from ..consumer_filter import ConsumerFilter
from .record import REPLACED_BY
from .records import UniqueRecords


class ReplacingConsumerBackend(ConsumerFilter):
    """Settles each job that was replaced as it takes it, and returns the others (ADR 78).

    Args:
        inner: Where the jobs come from; it frees their keys as they end.
        records: The records of the queue.
        result_ttl_s: For how long those who wait for a replaced job can learn that; None if the backend keeps
            no results.
    """

    def __init__(self, inner: ConsumerBackend, records: UniqueRecords, result_ttl_s: float | None) -> None:
        super().__init__(inner)
        self._records = records
        self._result_ttl_s = result_ttl_s

    def _keep(self, deliveries: list[Delivery]) -> list[Delivery]:
        replaced = self._records.replaced(self._records.keys_of(deliveries))
        if not replaced:
            return deliveries
        acks = [
            self._ack(delivery.receipt, replaced[delivery.id])
            for delivery in deliveries
            if delivery.id in replaced
        ]
        try:
            self._inner.settle(acks)
        except JobsError as error:  # they come again, once their leases end
            self.logger.warning("jobs that were replaced weren't settled: %s", error)
        for job_id, by in replaced.items():
            self.logger.info("job %s doesn't run: job %s took its place", job_id, by)
        return [delivery for delivery in deliveries if delivery.id not in replaced]

    def _ack(self, receipt: str, by: str) -> Ack:
        if self._result_ttl_s is None:
            return Ack(receipt)
        return Ack(receipt, REPLACED_BY + by.encode(), self._result_ttl_s)
