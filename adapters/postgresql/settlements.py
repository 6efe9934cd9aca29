"""Settlements on their way to the server and back."""

from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import NamedTuple

from ...ports import Ack, Cancel, Dead, Release, Retry, Settlement
from .binary_format import byteas, float8s, int4s, int8s, texts

_RESULT, _RESULT_TTL_S, _THEN = map(attrgetter, ("result", "result_ttl_s", "then"))


class LeasedJob(NamedTuple):
    """A leased job, as its holder knows it: all that is needed to find its lease again, and no other."""

    place: int
    seq: int
    token: int
    """Of the lease, which is that of all that were taken together."""


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
            "".join(map(_letter, ends)).encode(),
            *_leases(other_jobs),
            float8s(list(map(_seconds, ends))),
            byteas([_encoded(end.reason) if isinstance(end, Dead) else None for end in ends]),
            byteas([_encoded(end.error) if isinstance(end, Dead | Retry) else None for end in ends]),
        ]
        """Those of ``settle_and_take`` from ``p_tokens`` to ``p_errors``."""
        self.next_parameters = _next_parameters(acked) if any(map(_THEN, acked)) else []
        """Those of ``settle_publish_and_take`` behind all others; none if no ack publishes anything."""


def _leases(jobs: Sequence[LeasedJob]) -> tuple[bytes, bytes, bytes]:
    if not jobs:
        return _NO_LEASES
    places, seqs, tokens = zip(*jobs, strict=True)
    return int8s(places), int8s(seqs), int8s(tokens)


def _next_parameters(acks: Sequence[Ack]) -> list[bytes | None]:
    """Write the next jobs of acks, each with the number of its ack."""
    steps = [(number, step) for number, ack in enumerate(acks, 1) for step in ack.then]
    messages = [step.message for _, step in steps]
    return [
        int4s([number for number, _ in steps]),
        texts([step.queue for _, step in steps]),
        texts([message.id for message in messages]),
        byteas([message.body for message in messages]),
        int4s([message.priority for message in messages]),
        float8s([message.delay_s for message in messages]),
    ]


def _seconds(settlement: Settlement) -> float:
    if isinstance(settlement, Cancel):
        return settlement.result_ttl_s
    return settlement.delay_s if isinstance(settlement, Retry | Release) else 0.0


def _letter(settlement: Settlement) -> str:
    if isinstance(settlement, Cancel):
        return "c"
    if isinstance(settlement, Release):
        return "w" if settlement.delay_s > 0 else "l"
    return "r" if isinstance(settlement, Retry) else "d"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


_NO_LEASES = (int8s(()),) * 3
