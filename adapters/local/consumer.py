"""A consumer's side of a queue in memory."""

from collections.abc import Sequence

from ...domain.errors import QueueNotFound
from ...domain.job_progress import Progress
from ...ports import ConsumerBackend, Delivery, Settled, Settlement, SettleOutcome
from ..shared.error_messages import consumer_closed
from .namespace import Namespace
from .queue import LocalQueue


class LocalConsumerBackend(ConsumerBackend):
    """Receives by condition variable: no polling, and a publish wakes it at once (RCV-1, RCV-2).

    Made by :meth:`LocalClient.open_consumer`.
    """

    def __init__(self, namespace: Namespace, queue: str, lease_s: float) -> None:
        super().__init__()
        self._namespace = namespace
        self._queue = queue
        self._lease_s = lease_s
        self._local_queue = namespace.queue(queue)
        self._table = self._local_queue.open_table(lease_s)

    @property
    def lease_s(self) -> float:
        return self._lease_s

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        try:
            return self._local_queue.receive(self._table, max_jobs, timeout_s)
        except QueueNotFound:
            self._follow_redeclared()
            return self._local_queue.receive(self._table, max_jobs, timeout_s)

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        try:
            return self._local_queue.settle(self._table, settlements, take)
        except QueueNotFound:
            return Settled([SettleOutcome.LOST] * len(settlements), [])

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        try:
            return self._local_queue.extend(self._table, receipts)
        except QueueNotFound:
            return [SettleOutcome.LOST] * len(receipts)

    def report(self, receipt: str, progress: Progress) -> None:
        self._local_queue.report(self._table, receipt, progress)

    def interrupt(self) -> None:
        self._local_queue.interrupt(self._table)

    def close(self) -> None:
        self._local_queue.close_table(self._table)

    def _follow_redeclared(self) -> None:
        """Serve the queue that was declared anew under the name of one that was deleted."""
        found: LocalQueue = self._namespace.queue(self._queue)
        if self._table.closed:
            raise consumer_closed(self._queue)
        self._local_queue, self._table = found, found.open_table(self._lease_s)
