"""Settlements on their way to the server, and its answers: of ``settle_and_take`` and ``extend``."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from ...ports import Ack, Cancel, Dead, Next, Release, Retry, Settlement
from .binary_format import TRUE, byteas, float8s, int4s, int8s, parse_int, parse_ints, parse_record, texts
from .connection import Answer

_NO_NUMBERS = frozenset[int]()
_RESULT, _RESULT_TTL_S, _THEN = map(attrgetter, ("result", "result_ttl_s", "then"))


class LeasedJob(NamedTuple):
    """A leased job, as its holder knows it: what finds its present lease, and no later one."""

    place: int
    seq: int
    token: int
    """Names the lease. All jobs that one request took share it."""


class TakenJob(NamedTuple):
    """A job that ``settle_and_take`` took, as the server writes it: the columns of the type ``taken``."""

    place: bytes | None
    seq: bytes | None
    id: bytes | None
    body: bytes | None
    attempt: bytes | None
    number: bytes | None
    crashes: bytes | None


class Ends(NamedTuple):
    """What became of the items of a request, which are counted from 1."""

    lost: frozenset[int]
    """Those whose leases were lost."""
    cancelled: frozenset[int]
    """Those whose jobs ended as cancelled, or are to end so."""
    knew_last: bool
    """Whether the server knew the consumer's last request. If not, a crash of the server has undone that."""


class Summary(NamedTuple):
    """What ``settle_and_take`` returns once for each request, as the type ``summary``."""

    ends: Ends
    seen_before: int
    """The look saw what all transactions before this one wrote."""
    returned: int | None
    """How many jobs had returned to their old places; None if the request was carried out before."""
    is_swept: bool
    """Whether the sweep handled all due jobs and ended leases that it was to look for."""
    has_announced: bool
    """Whether the request announced that a consumer waits, which nobody had announced before."""
    next_event_s: float | None
    """Seconds until the next job is due or the next lease ends; None if the request didn't look for that."""


def read_summary(answer: Answer) -> Summary:
    """Read the summary, which stands in the last row."""
    fields = parse_record(answer.value(answer.rows - 1, len(TakenJob._fields)))
    lost, cancelled, knew_last, seen_before, returned, is_swept, has_announced, next_event_ms = fields
    return Summary(
        _ends(lost, cancelled, knew_last),
        parse_int(seen_before),
        None if returned is None else parse_int(returned),
        is_swept == TRUE,
        has_announced == TRUE,
        None if next_event_ms is None else max(0, parse_int(next_event_ms)) / 1000,
    )


def read_extension(answer: Answer) -> Ends:
    """Read what ``extend`` answers."""
    return _ends(*answer.row(0))


def _ends(lost: bytes | None, cancelled: bytes | None, knew_last: bytes | None) -> Ends:
    return Ends(_numbers(lost), _numbers(cancelled), knew_last == TRUE)


def _numbers(array: bytes | None) -> frozenset[int]:
    return _NO_NUMBERS if array is None else frozenset(parse_ints(array))


class SettlementBatch:
    """The settlements of one request: acks first, the others behind them.

    Args:
        known: What to settle, by receipt, each with its lease.
    """

    def __init__(self, known: Mapping[str, tuple[LeasedJob, Settlement]]) -> None:
        acks = [(receipt, job, end) for receipt, (job, end) in known.items() if type(end) is Ack]
        others = [(receipt, job, end) for receipt, (job, end) in known.items() if type(end) is not Ack]
        self.receipts = [receipt for receipt, _, _ in (*acks, *others)]
        """In the order of the parameters."""
        jobs, other_jobs = [job for _, job, _ in acks], [job for _, job, _ in others]
        acked = [end for _, _, end in acks]
        results = list(map(_RESULT, acked))
        has_results = any(result is not None for result in results)
        ends = [end for _, _, end in others]
        tokens = {job.token for job, _ in known.values()}
        self.parameters: list[bytes | None] = [
            int8s(list(tokens)),
            *_leases(jobs),
            byteas(results) if has_results else None,
            float8s(list(map(_RESULT_TTL_S, acked))) if has_results else None,
            texts(list(map(_word, ends))),
            *_leases(other_jobs),
            float8s(list(map(_seconds, ends))),
            byteas([_encoded(end.reason) if isinstance(end, Dead) else None for end in ends]),
            byteas([_encoded(end.error) if isinstance(end, Dead | Retry) else None for end in ends]),
        ]
        """The parameters of ``settle_and_take`` from ``p_tokens`` to ``p_errors``."""
        publishes = any(map(_THEN, acked)) or any(map(_next_jobs, ends))
        self.next_parameters = _next_parameters((*acked, *ends)) if publishes else []
        """The last parameters of ``settle_publish_and_take``; empty if nothing is to be published."""


def _leases(jobs: Sequence[LeasedJob]) -> tuple[bytes, bytes, bytes]:
    if not jobs:
        return _NO_LEASES
    places, seqs, tokens = zip(*jobs, strict=True)
    return int8s(places), int8s(seqs), int8s(tokens)


def _next_parameters(settlements: Sequence[Settlement]) -> list[bytes | None]:
    """Write the next jobs of settlements, each with the number of its settlement."""
    steps = [(number, step) for number, end in enumerate(settlements, 1) for step in _next_jobs(end)]
    messages = [step.message for _, step in steps]
    return [
        int4s([number for number, _ in steps]),
        texts([step.queue for _, step in steps]),
        texts([message.id for message in messages]),
        byteas([message.body for message in messages]),
        int4s([message.priority for message in messages]),
        float8s([message.delay_s for message in messages]),
    ]


def _next_jobs(settlement: Settlement) -> tuple[Next, ...]:
    return settlement.then if isinstance(settlement, Ack | Dead) else ()


def _seconds(settlement: Settlement) -> float:
    if isinstance(settlement, Cancel):
        return settlement.result_ttl_s
    if isinstance(settlement, Dead):
        return settlement.ttl_s or 0.0
    return settlement.delay_s if isinstance(settlement, Retry | Release) else 0.0


def _word(settlement: Settlement) -> str:
    """Return the word by which ``settle_one`` knows a settlement."""
    if isinstance(settlement, Cancel):
        return "cancel"
    if isinstance(settlement, Release):
        return "release_later" if settlement.delay_s > 0 else "release"
    return "retry" if isinstance(settlement, Retry) else "dead"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


_NO_LEASES = (int8s(()),) * 3
