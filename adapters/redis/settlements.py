"""Settlements on their way to the server and back.

ALREADY is remembered in the consumer's memory, by :mod:`..shared.receipts`.
"""

from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import replace

from ...ports import Ack, Cancel, Dead, Next, Release, Retry, Settlement, SettleOutcome
from .errors import RefusedByServer, is_out_of_memory
from .keys import QueueKeys
from .requests import CHUNK_BYTES, Request
from .scripts import SETTLE_AND_TAKE, SETTLE_PUBLISH_AND_TAKE
from .transport import Argument

_MOST_NEXT_JOBS = 2000
"""The most next jobs of one request, unless one settlement has more."""
_OWN_ARGUMENTS = 5
"""How many arguments of ``settle_and_take.lua`` come before the settlements."""

Held = tuple[str, str]
"""The id of a job, and the token of its lease, which is that of all that were taken together."""


class SettlementBatch:
    """The settlements of one request. The script answers plain acks first; the caller gets his own order.

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
                if type(settlement) is Dead and settlement.then:
                    chained.append(place)
        self.arguments: list[Argument] = [str(len(runs))]
        """What ``settle_and_take.lua`` is to be told."""
        for token, ids in runs:
            self.arguments += (token, ",".join(ids))
        self.arguments += others
        self.next_jobs: list[tuple[int, Next]] = self._number_next_jobs(chained) if chained else []
        """The jobs to publish, each with the number of its ack or its death among the script's outcomes."""

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
        for end, (queue, message) in self.next_jobs:
            delay_ms = _milliseconds(message.delay_s) if message.delay_s > 0 else 0
            told += (queues[queue], str(end), message.id, str(message.priority), str(delay_ms), message.body)
        return [*told, str(len(self.next_jobs))]

    def publishes_into(self, queues: Collection[str]) -> set[str]:
        """The receipts that are sent with a next job for any of these queues."""
        receipts = self.receipts()
        return {receipts[end - 1] for end, step in self.next_jobs if step.queue in queues}

    def receipts(self) -> list[str]:
        """The receipts that are sent, in the order of the arguments."""
        return [self._settlements[place].receipt for place in (*self._acked, *self._otherwise)]

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
        case Dead(_, reason, error, _, ttl_s):
            number = "0" if ttl_s is None else str(_milliseconds(ttl_s))
            return (f"d{reason}", *job, error.encode("utf-8", "replace"), number)
        case Release(_, delay_s):
            # At least 1, or a short delay would put it back to its old place.
            return ("l", *job, "", str(_milliseconds(delay_s)) if delay_s > 0 else "0")
        case Cancel(_, ttl_s):
            return ("c", *job, "", str(_milliseconds(ttl_s)))


def _milliseconds(seconds: float) -> int:
    """At least 1, as 0 would be none."""
    return max(1, round(seconds * 1000))


def add_next_jobs(request: Request[SettlementBatch], keys: QueueKeys) -> bool:
    """Have a request publish the next jobs of its settlements as well, unless one request can't hold so many.

    Args:
        request: The request without next jobs.
        keys: The keys of its queue.
    """
    batch = request.content
    size = sum(len(step.message.body) for _, step in batch.next_jobs)
    if len(batch.outcomes) > 1 and (len(batch.next_jobs) > _MOST_NEXT_JOBS or size > CHUNK_BYTES):
        return False
    _, own_keys, arguments = request.call
    next_keys = [key for name in batch.next_queues() for key in QueueKeys(keys.namespace, name).next]
    request.call = (
        SETTLE_PUBLISH_AND_TAKE,
        [*own_keys, *next_keys],
        [*arguments, *batch.next_arguments()],
    )
    return True


def looking_only(request: Request[SettlementBatch]) -> Request[SettlementBatch]:
    """Return a request that asks for the answer to ``request``, and takes its place if there was none.

    The returned request has the same number, settles and takes nothing, and runs even when memory is short.
    If the server hasn't carried out ``request``, it never will, and the answer has no outcomes.
    """
    _, keys, arguments = request.call
    own_keys = keys[: len(SETTLE_AND_TAKE.keys)]
    return replace(request, call=(SETTLE_AND_TAKE, own_keys, [*arguments[: _OWN_ARGUMENTS - 1], "0", "0"]))


def find_refused(error: Exception, batch: SettlementBatch) -> set[str]:
    """Read from the server's refusal whose next jobs can't be published; return their receipts."""
    if not (batch.next_jobs and isinstance(error, RefusedByServer)):
        return set()
    queues = batch.next_queues()
    if is_out_of_memory(error):
        return batch.publishes_into(queues)
    word, _, numbers = str(error).partition(" ")
    if word != "NONEXT":
        return set()
    return batch.publishes_into({queues[int(number) - 1] for number in numbers.split(",")})
