"""Settlements on their way to the server and back.

ALREADY is remembered in the consumer's memory, by :mod:`..shared.receipts`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence

from ...ports import Ack, Cancel, Dead, Next, Release, Retry, Settlement, SettleOutcome
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
        acked, otherwise, runs, others = self._acked, self._otherwise, self._runs, self._others
        chained: list[int] = []
        token_of_run = ""
        ids: list[str] = []
        for place, settlement in enumerate(settlements):
            job = held.pop(settlement.receipt, None)
            if job is None:
                self.outcomes[place] = why_not_held(settlement.receipt)
            elif type(settlement) is Ack and settlement.result is None:
                acked.append(place)
                id_, token = job
                if token != token_of_run:
                    token_of_run, ids = token, []
                    runs.append((token, ids))
                ids.append(id_)
                if settlement.then:
                    chained.append(place)
            elif isinstance(settlement, Ack):
                otherwise.append(place)
                others += ("a", *job, settlement.result or b"", str(_milliseconds(settlement.result_ttl_s)))
                if settlement.then:
                    chained.append(place)
            else:
                otherwise.append(place)
                others += _operation(settlement, job)
        self.arguments: list[Argument] = [str(len(runs))]
        """What ``settle_and_take.lua`` is to be told."""
        for token, ids in runs:
            self.arguments += (token, ",".join(ids))
        self.arguments += others
        self.next_jobs: list[tuple[int, Next]] = self._number_next_jobs(chained) if chained else []
        """The jobs that acks publish, each with the number of its ack among the script's outcomes."""

    def _number_next_jobs(self, chained: list[int]) -> list[tuple[int, Next]]:
        number_of = {place: number for number, place in enumerate((*self._acked, *self._otherwise), 1)}
        return [
            (number_of[place], step)
            for place in sorted(chained)
            for step in getattr(self._settlements[place], "then", ())
        ]

    def next_queues(self) -> list[str]:
        """The names of the queues that the next jobs go to."""
        return list(dict.fromkeys(step.queue for _, step in self.next_jobs))

    def next_arguments(self) -> list[Argument]:
        """What ``settle_publish_and_take.lua`` is to be told of the next jobs."""
        queues = {name: str(number) for number, name in enumerate(self.next_queues(), 1)}
        told: list[Argument] = []
        for ack, (queue, message) in self.next_jobs:
            delay_ms = _milliseconds(message.delay_s) if message.delay_s > 0 else 0
            told += (queues[queue], str(ack), message.id, str(message.priority), str(delay_ms), message.body)
        return [*told, str(len(self.next_jobs))]

    def publishes_into(self, queues: Collection[str]) -> set[str]:
        """The receipts that are sent of acks with a next job for any of these queues."""
        receipts = self.receipts()
        return {receipts[ack - 1] for ack, step in self.next_jobs if step.queue in queues}

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
        if b"0" not in answers and b"2" not in answers:
            return
        for place, kept in zip((*self._acked, *self._otherwise), answers.decode(), strict=True):
            if kept == "0":
                self.outcomes[place] = SettleOutcome.LOST
                yield self._settlements[place].receipt
            elif kept == "2":
                self.outcomes[place] = SettleOutcome.CANCELLED


def _operation(settlement: Retry | Dead | Release | Cancel, job: Held) -> tuple[Argument, ...]:
    """A settlement as the script reads it: op, id, token, text, number."""
    match settlement:
        case Retry(_, delay_s, error):
            return ("r", *job, error.encode("utf-8", "replace"), str(round(delay_s * 1000)))
        case Dead(_, reason, error):
            return (f"d{reason}", *job, error.encode("utf-8", "replace"), "0")
        case Release(_, delay_s):
            # At least 1, or a short delay would put it back to its old place.
            return ("l", *job, "", str(_milliseconds(delay_s)) if delay_s > 0 else "0")
        case Cancel(_, ttl_s):
            return ("c", *job, "", str(_milliseconds(ttl_s)))


def _milliseconds(seconds: float) -> int:
    """At least 1, as 0 would be none."""
    return max(1, round(seconds * 1000))
