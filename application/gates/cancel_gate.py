"""Ends jobs that the coordination store has requests to cancel, for a broker that can't end them itself."""

from collections.abc import Callable, Mapping, Sequence, Set
from logging import Logger

from ...domain.errors import JobsError
from ...ports import Cancel, Dead, Delivery, Retry, Settlement
from ..broker.store_outage import StoreOutage
from ..cancelling.requests import CancelRequests
from .gate import Gate


class CancelGate(Gate):
    """Admits no job that is to be cancelled, and tells of those that run (ADR 80).

    While the store is away, jobs run as if nobody had cancelled any.

    Args:
        requests: The requests of the queue.
        has_requests: Whether there are any, as far as that is known.
        result_ttl_s: For how many seconds to remember that a job was cancelled.
        outage: When the store isn't asked.
        logger: Where it is told which jobs didn't run.
    """

    def __init__(
        self,
        requests: CancelRequests,
        has_requests: Callable[[], bool],
        result_ttl_s: float,
        outage: StoreOutage,
        logger: Logger,
    ) -> None:
        self._requests = requests
        self._has_requests = has_requests
        self._result_ttl_s = result_ttl_s
        self._outage = outage
        self._logger = logger
        self._asked: set[str] = set()
        """The ids of jobs that aren't settled yet, and are known to be asked for."""

    def admit(self, jobs: Sequence[Delivery]) -> Mapping[str, Settlement]:
        if not self._has_requests():
            return {}
        asked = {job.id: job.receipt for job in self._asked_for(jobs)}  # a request ends one job of its id
        for job_id in asked:
            self._logger.info("job %s: cancelled, not started yet", job_id)
        return {receipt: self._cancel(receipt) for receipt in asked.values()}

    def before_settling(
        self, settlements: Sequence[Settlement], jobs: Mapping[str, Delivery]
    ) -> Sequence[Settlement]:
        """Cancel jobs in place of a retry or a death (CAN-3)."""
        # Asked for in any case, as a request may be newer than the last look, and few jobs fail.
        failed = [each.receipt for each in settlements if isinstance(each, Retry | Dead)]
        if not failed:
            return settlements
        asked = {job.receipt for job in self._asked_for([jobs[each] for each in failed if each in jobs])}
        if not asked:
            return settlements
        return [self._cancel(each.receipt) if each.receipt in asked else each for each in settlements]

    def ended(self, jobs: Sequence[Delivery]) -> None:
        """Forget the requests of these jobs."""
        if self._asked and (ended := self._asked.intersection([job.id for job in jobs])):
            self._asked -= ended
            try:
                self._requests.forget(ended)
            except JobsError as error:  # the store drops the requests itself, after some days
                self._outage.begin(error)

    def cancelled(self, jobs: Sequence[Delivery]) -> Set[str]:
        return {job.receipt for job in self._asked_for(jobs)} if self._has_requests() else frozenset()

    def _asked_for(self, jobs: Sequence[Delivery]) -> list[Delivery]:
        """Return those of these jobs that are to be cancelled."""
        ids = list({job.id for job in jobs})
        if not ids or self._outage.is_on:
            return []
        try:
            found = self._requests.among(ids)
        except JobsError as error:
            self._outage.begin(error)
            return []
        self._asked |= found
        return [job for job in jobs if job.id in found]

    def _cancel(self, receipt: str) -> Cancel:
        return Cancel(receipt, self._result_ttl_s)
