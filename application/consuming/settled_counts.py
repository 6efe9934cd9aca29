"""How the jobs of one consumer were settled."""

from collections.abc import Mapping, Sequence
from logging import Logger

from ...domain.printable import printable
from ...ports import Ack, Cancel, Dead, Delivery, Release, Retry, Settlement, SettleOutcome

_SETTLED = (SettleOutcome.OK, SettleOutcome.ALREADY)


class SettledCounts:
    """Counts settlements as the broker answers them.

    Args:
        logger: Where losses are told.
        expired: The receipts of jobs whose acks say that they have expired.
    """

    def __init__(self, logger: Logger, expired: set[str]) -> None:
        self._logger = logger
        self._expired = expired
        self.settled: dict[type[Settlement], int] = {Ack: 0, Retry: 0, Dead: 0, Release: 0, Cancel: 0}
        """How many were settled in each way."""
        self.expired = 0
        """How many of the acks were of jobs that have expired."""
        self.lost = 0
        """How many were finished, but lost before they were settled."""

    def add(
        self,
        settlements: Sequence[Settlement],
        outcomes: Sequence[SettleOutcome],
        jobs: Mapping[str, Delivery],
    ) -> list[Ack | Dead]:
        """Count settlements, and return those that were refused.

        Args:
            settlements: What was sent.
            outcomes: The answers, in the same order.
            jobs: The jobs by receipt.
        """
        if self._expired:
            self._count_expired(settlements, outcomes)
        if outcomes.count(SettleOutcome.OK) == len(settlements):  # as mostly
            kinds = list(map(type, settlements))
            for kind in set(kinds):
                self.settled[kind] += kinds.count(kind)
            return []
        refused: list[Ack | Dead] = []
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            if outcome is SettleOutcome.REFUSED and isinstance(settlement, Ack | Dead):
                refused.append(settlement)
            elif outcome is SettleOutcome.DEFERRED:
                continue
            elif outcome is SettleOutcome.CANCELLED:
                self.settled[Cancel] += 1
            elif outcome is not SettleOutcome.LOST:
                self.settled[type(settlement)] += 1
            elif not isinstance(settlement, Release):
                self.lost += 1
                self._logger.warning(
                    "job %s: its lease was lost before it was settled; another consumer may run it",
                    printable(jobs[settlement.receipt].id),
                )
        return refused

    def _count_expired(self, settlements: Sequence[Settlement], outcomes: Sequence[SettleOutcome]) -> None:
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            if settlement.receipt in self._expired and not outcome.keeps_receipt:
                self._expired.discard(settlement.receipt)
                self.expired += outcome in _SETTLED
