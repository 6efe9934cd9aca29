"""Frees the keys of unique jobs as they end, and ends jobs that others took the place of."""

from collections.abc import Mapping, Sequence
from logging import Logger

from ...domain.errors import JobsError
from ...ports import Ack, Delivery
from ..broker.store_outage import StoreOutage
from ..unique_jobs.record import REPLACED_BY
from ..unique_jobs.records import UniqueRecords
from .gate import Gate


class UniqueGate(Gate):
    """Deletes the record of each job once it has ended (ADR 70).

    A record that is left goes with its time. If the backend can say that its job has ended, it gives way to
    the next publish before.

    Args:
        records: The records of the queue.
        outage: When the store isn't asked.
    """

    def __init__(self, records: UniqueRecords, outage: StoreOutage) -> None:
        self._records = records
        self._outage = outage

    def ended(self, jobs: Sequence[Delivery]) -> None:
        if self._outage.is_on:
            return
        try:
            self._records.free(self._records.keys_of(jobs))
        except JobsError as error:  # away, or the backend was closed meanwhile
            self._outage.begin(error)


class ReplacedGate(Gate):
    """Admits no job that was replaced: it is acked (ADR 78). While the store is away, none is known.

    Args:
        records: The records of the queue.
        result_ttl_s: For how long those who wait for a replaced job can learn that; None if the backend keeps
            no results.
        outage: When the store isn't asked.
        logger: Where it is told which jobs didn't run.
    """

    def __init__(
        self, records: UniqueRecords, result_ttl_s: float | None, outage: StoreOutage, logger: Logger
    ) -> None:
        self._records = records
        self._result_ttl_s = result_ttl_s
        self._outage = outage
        self._logger = logger

    def admit(self, jobs: Sequence[Delivery]) -> Mapping[str, Ack]:
        if self._outage.is_on:
            return {}
        try:
            replaced = self._records.replaced(self._records.keys_of(jobs))
        except JobsError as error:
            self._outage.begin(error)
            return {}
        for job_id, by in replaced.items():
            self._logger.info("job %s doesn't run: job %s took its place", job_id, by)
        return {job.receipt: self._ack(job.receipt, replaced[job.id]) for job in jobs if job.id in replaced}

    def _ack(self, receipt: str, by: str) -> Ack:
        if self._result_ttl_s is None:
            return Ack(receipt)
        return Ack(receipt, REPLACED_BY + by.encode(), self._result_ttl_s)
