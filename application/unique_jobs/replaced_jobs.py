"""Ends jobs that others took the place of, before they run."""

from collections.abc import Sequence
from time import monotonic

from ...domain.errors import JobsError
from ...ports import Ack, ConsumerBackend, Delivery, Settled, Settlement
from .consumer_backend import UniqueConsumerBackend
from .record import REPLACED_BY
from .records import UniqueRecords


class ReplacingConsumerBackend(UniqueConsumerBackend):
    """Settles each job that was replaced as it takes it, and returns the others (ADR 78).

    Args:
        inner: Where the jobs come from.
        records: The records of the queue.
        result_ttl_s: For how long those who wait for a replaced job can learn that; None if the backend keeps
            no results.
    """

    def __init__(self, inner: ConsumerBackend, records: UniqueRecords, result_ttl_s: float | None) -> None:
        super().__init__(inner, records)
        self._result_ttl_s = result_ttl_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        give_up_s = monotonic() + timeout_s
        while deliveries := super().receive(max_jobs, timeout_s):
            if current := self._without_replaced(deliveries):
                return current
            timeout_s = max(0.0, give_up_s - monotonic())
        return []

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        settled = super().settle(settlements, take=take)
        if not settled.deliveries:
            return settled
        return settled._replace(deliveries=self._without_replaced(settled.deliveries))

    def _without_replaced(self, deliveries: list[Delivery]) -> list[Delivery]:
        replaced = self._records.replaced(self._keys_of(deliveries))
        if not replaced:
            return deliveries
        acks = [
            self._ack(delivery.receipt, replaced[delivery.id])
            for delivery in deliveries
            if delivery.id in replaced
        ]
        try:
            super().settle(acks)
        except JobsError as error:  # they come again, once their leases end
            self.logger.warning("jobs that were replaced weren't settled: %s", error)
        for job_id, by in replaced.items():
            self.logger.info("job %s doesn't run: job %s took its place", job_id, by)
        return [delivery for delivery in deliveries if delivery.id not in replaced]

    def _ack(self, receipt: str, by: str) -> Ack:
        if self._result_ttl_s is None:
            return Ack(receipt)
        return Ack(receipt, REPLACED_BY + by.encode(), self._result_ttl_s)
