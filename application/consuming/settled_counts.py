"""How the jobs of one consumer were settled."""

from collections.abc import Mapping, Sequence
from logging import Logger

from ...domain.printable import printable
from ...ports import Ack, Cancel, Dead, Delivery, Release, Retry, Settlement, SettleOutcome


class SettledCounts:
    """Counts settlements as the broker answers them.

    Args:
        logger: Where losses are told.
    """

    def __init__(self, logger: Logger) -> None:
        self._logger = logger
        self.settled: dict[type[Settlement], int] = {Ack: 0, Retry: 0, Dead: 0, Release: 0, Cancel: 0}
        """How many were settled in each way."""
        self.lost = 0
        """How many were finished, but lost before they were settled."""

    def add(
        self,
        settlements: Sequence[Settlement],
        outcomes: Sequence[SettleOutcome],
        jobs: Mapping[str, Delivery],
    ) -> list[Ack]:
        """Count settlements, and return those that were refused.

        Args:
            settlements: What was sent.
            outcomes: The answers, in the same order.
            jobs: The jobs by receipt.
        """
        if outcomes.count(SettleOutcome.OK) == len(settlements):  # as mostly
            kinds = list(map(type, settlements))
            for kind in set(kinds):
                self.settled[kind] += kinds.count(kind)
            return []
        refused: list[Ack] = []
        for settlement, outcome in zip(settlements, outcomes, strict=True):
            if outcome is SettleOutcome.REFUSED and isinstance(settlement, Ack):
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
