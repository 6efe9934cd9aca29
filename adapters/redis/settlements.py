"""Settlements on their way to the server and back."""

from collections.abc import Callable, Iterator, Sequence

from ...ports import Ack, Dead, Release, Retry, Settlement, SettleOutcome
from .transport import Argument

Held = tuple[str, str]
"""The id of a job, and the token of its lease, which is that of all that were taken together."""


class SettlementBatch:
    """The settlements of one request. The script answers plain acks first, the caller wants his own order.

    Args:
        settlements: What to settle, at most a thousand.
        held: The jobs of a consumer, by receipt; those that are settled are taken out.
        why_not_held: Says what to answer for a receipt that isn't held.
    """

    def __init__(
        self,
        settlements: Sequence[Settlement],
        held: dict[str, Held],
        why_not_held: Callable[[str], SettleOutcome],
    ) -> None:
        self.outcomes = [SettleOutcome.OK] * len(settlements)
        self._settlements = settlements
        self._acked: list[int] = []
        self._otherwise: list[int] = []
        self._runs: list[tuple[str, list[str]]] = []
        self._others: list[Argument] = []
        runs, others = self._runs, self._others
        token_of_run, ids = "", list[str]()
        for place, settlement in enumerate(settlements):
            job = held.pop(settlement.receipt, None)
            if job is None:
                self.outcomes[place] = why_not_held(settlement.receipt)
            elif type(settlement) is Ack and settlement.result is None:
                self._acked.append(place)
                id_, token = job
                if token != token_of_run:
                    token_of_run, ids = token, []
                    runs.append((token, ids))
                ids.append(id_)
            else:
                self._otherwise.append(place)
                others += _operation(settlement, job)
        self.arguments: list[Argument] = [str(len(runs))]
        """What ``settle_and_take.lua`` is to be told."""
        for token, ids in runs:
            self.arguments += (token, ",".join(ids))
        self.arguments += others

    def receipts(self) -> list[str]:
        """The receipts that are sent, in the order of the arguments."""
        return [self._settlements[place].receipt for place in (*self._acked, *self._otherwise)]

    def held(self) -> Iterator[tuple[str, Held]]:
        """The receipts that are sent, each with what was held under it."""
        acked = [(id_, token) for token, ids in self._runs for id_ in ids]
        others = self._others
        otherwise = [(str(others[at + 1]), str(others[at + 2])) for at in range(0, len(others), 5)]
        return zip(self.receipts(), (*acked, *otherwise), strict=True)

    def answer(self, answers: bytes) -> Iterator[str]:
        """Take the script's answers; yield the receipts that were lost."""
        if b"0" not in answers:
            return
        for place, kept in zip((*self._acked, *self._otherwise), answers.decode(), strict=True):
            if kept == "0":
                self.outcomes[place] = SettleOutcome.LOST
                yield self._settlements[place].receipt


def _operation(settlement: Settlement, job: Held) -> tuple[Argument, ...]:
    """A settlement as the script reads it: op, id, token, text, number."""
    match settlement:
        case Ack(_, result, ttl_s):
            return ("a", *job, result or b"", str(max(1, round(ttl_s * 1000))))
        case Retry(_, delay_s, error):
            return ("r", *job, error.encode("utf-8", "replace"), str(round(delay_s * 1000)))
        case Dead(_, reason, error):
            return (f"d{reason}", *job, error.encode("utf-8", "replace"), "0")
        case Release():
            return ("l", *job, "", "0")
