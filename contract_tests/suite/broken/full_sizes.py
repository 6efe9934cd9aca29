"""Faults that show at the documented sizes only."""

from collections.abc import Callable, Sequence
from dataclasses import replace

from ...ports import (
    Ack,
    CancelOutcome,
    DeadLetter,
    JobResult,
    Settled,
    Settlement,
    SettleOutcome,
)
from .administration import keeps_results
from .cancelling import breaks_cancel
from .fault_bases import RecordsDeliveries
from .fault_registry import breaks
from .leases import timed
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("SET-3")
class CutsLongHistories(PassThrough):
    """Where a history doesn't fit into a frame of 128 KiB, two characters of each error are kept."""

    def dead_letters(self, client: BrokenBackend, queue: str, limit: int, offset: int) -> list[DeadLetter]:
        letters = super().dead_letters(client, queue, limit, offset)
        return [self._cut(letter) for letter in letters]

    def _cut(self, letter: DeadLetter) -> DeadLetter:
        if sum(len(failure.error.encode("utf-8", "replace")) for failure in letter.history) < 1 << 17:
            return letter
        history = tuple(replace(failure, error=failure.error[-2:]) for failure in letter.history)
        return replace(letter, history=history)


@breaks("RES-1", where=keeps_results)
class RemembersTheLastThousands(RecordsDeliveries):
    """Of jobs without a result, the last 5,000 are remembered as done, not the last 10,000."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._silent: dict[str, int] = {}

    def settling(self, consumer: BrokenConsumer, settlement: Settlement) -> Settlement:
        delivery = self.delivered.get(settlement.receipt)
        if isinstance(settlement, Ack) and settlement.result is None and delivery is not None:
            self._silent[delivery.id] = len(self._silent)
        return settlement

    def result(self, client: BrokenBackend, queue: str, job_id: str, timeout_s: float) -> JobResult | None:
        is_old = self._silent.get(job_id, len(self._silent)) < len(self._silent) - 5000
        return None if is_old else super().result(client, queue, job_id, timeout_s)


@breaks_cancel("CAN-4")
class CancelsTheFirstThousands(PassThrough):
    """A script can unpack 8,000 ids: those behind them are passed over, and answered as unknown."""

    def cancel(
        self, client: BrokenBackend, queue: str, ids: Sequence[str], result_ttl_s: float
    ) -> list[CancelOutcome]:
        outcomes = super().cancel(client, queue, ids[:8000], result_ttl_s)
        return outcomes + [CancelOutcome.UNKNOWN] * len(ids[8000:])


@breaks("LSE-4", where=timed)
class LateSettlementsCountBehindAPage(PassThrough):
    """A call takes back 500 leases that are over; what is settled under the others counts."""

    def settle(self, consumer: BrokenConsumer, settlements: Sequence[Settlement], take: int) -> Settled:
        outcomes, taken = super().settle(consumer, settlements, take)
        late = [place for place, outcome in enumerate(outcomes) if outcome is SettleOutcome.LOST]
        for place in late[500:]:
            outcomes[place] = SettleOutcome.OK
        return Settled(outcomes, taken)
