"""Settlements on their way to the server and back."""

from collections.abc import Mapping, Sequence
from typing import NamedTuple

from ...ports import Ack, Dead, Retry, Settlement
from .wire import byteas, float8s, int8s


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
        results = [end.result for _, _, end in acks]
        has_results = any(result is not None for result in results)
        ends = [end for _, _, end in others]
        tokens = {job.token for job, _ in known.values()}
        self.parameters: list[bytes | None] = [
            int8s(list(tokens)),
            *_leases(jobs),
            byteas(results) if has_results else None,
            float8s([end.result_ttl_s for _, _, end in acks]) if has_results else None,
            "".join(map(_letter, ends)).encode(),
            *_leases(other_jobs),
            float8s([end.delay_s if isinstance(end, Retry) else 0.0 for end in ends]),
            byteas([_encoded(end.reason) if isinstance(end, Dead) else None for end in ends]),
            byteas([_encoded(end.error) if isinstance(end, Dead | Retry) else None for end in ends]),
        ]
        """Those of ``settle_and_take`` from ``p_tokens`` to ``p_errors``."""


def _leases(jobs: Sequence[LeasedJob]) -> tuple[bytes, bytes, bytes]:
    if not jobs:
        return _NO_LEASES
    places, seqs, tokens = zip(*jobs, strict=True)
    return int8s(places), int8s(seqs), int8s(tokens)


def _letter(settlement: Settlement) -> str:
    return "r" if isinstance(settlement, Retry) else "d" if isinstance(settlement, Dead) else "l"


def _encoded(text: str) -> bytes:
    return text.encode("utf-8", "replace")


_NO_LEASES = (int8s(()),) * 3
