"""A consumer backend around another, for what changes some of its calls."""

from collections.abc import Sequence

from ..domain.job_progress import Progress
from ..ports import ConsumerBackend, Delivery, Settled, Settlement, SettleOutcome


class ConsumerDecorator(ConsumerBackend):
    """Passes each call on to another consumer backend.

    Args:
        inner: The other one.
    """

    def __init__(self, inner: ConsumerBackend) -> None:
        super().__init__()
        self._inner = inner

    @property
    def lease_s(self) -> float | None:
        return self._inner.lease_s

    @property
    def prefetch(self) -> int | None:
        return self._inner.prefetch

    @property
    def held_back(self) -> int:
        return self._inner.held_back

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        return self._inner.receive(max_jobs, timeout_s)

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        return self._inner.settle(settlements, take=take)

    def allow_ahead(self, limit: int) -> None:
        self._inner.allow_ahead(limit)

    def release_ahead(self) -> None:
        self._inner.release_ahead()

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        return self._inner.extend(receipts)

    def interrupt(self) -> None:
        self._inner.interrupt()

    def report(self, receipt: str, progress: Progress) -> None:
        self._inner.report(receipt, progress)

    def close(self) -> None:
        self._inner.close()
