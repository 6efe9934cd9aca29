"""A dry run of connecting consumers: it shows whether a worker could connect them, and changes nothing."""

from collections.abc import Sequence
from time import time
from typing import Any, NoReturn

from ...domain import Queue, QueueKind
from ...domain.defaults import DEFAULT_LEASE_S
from ...domain.errors import JobsError, QueueConflict
from ...ports import (
    Capabilities,
    ConsumerBackend,
    CoordinationStore,
    OrchestratorBackend,
    Record,
    SettleOutcome,
)
from ...ports.settlement import Settled


class EndOfDryRun(JobsError):
    """A dry run met a call that would change something. Nothing is wrong."""


def _end(*_: object, **_options: object) -> NoReturn:
    raise EndOfDryRun("a dry run changes nothing")


class DryRunBackend(OrchestratorBackend):
    """Refuses a consumer as its backend does, and changes nothing there.

    Args:
        inner: The backend.
    """

    def __init__(self, inner: OrchestratorBackend) -> None:
        super().__init__()
        self._inner = inner
        self._kinds: dict[str, QueueKind] = {}

    @property
    def capabilities(self) -> Capabilities:
        """Those of the backend."""
        return self._inner.capabilities

    @property
    def coordination(self) -> CoordinationStore:
        """The backend's store, to read."""
        return _DryRunStore(self._inner.coordination)

    def declare(self, queue: Queue) -> None:
        """Refuse a kind that the backend doesn't have, or that another consumer contradicts."""
        self.capabilities.require_kind(queue)
        kind = self._kinds.setdefault(queue.name, queue.kind)
        if kind != queue.kind:
            raise QueueConflict(
                f"queue {queue.name!r} has the type {kind} for another consumer, {queue.kind} for this one",
                kind,
            )

    def open_consumer(
        self, queue: str, *, lease_s: float = DEFAULT_LEASE_S, prefetch: int | None = None
    ) -> ConsumerBackend:
        """Open a consumer that gets no jobs."""
        return _NoJobs()

    def close(self) -> None:
        """Do nothing: the backend stays open."""

    publish = counts = purge = delete = dead_letters = redrive = discard = result = _end


class _NoJobs(ConsumerBackend):
    lease_s = None

    def receive(self, max_jobs: int, timeout_s: float) -> list[Any]:
        return []

    def settle(self, settlements: Sequence[Any], *, take: int = 0) -> Settled:
        return Settled([], [])

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        return []

    def interrupt(self) -> None:
        pass

    def close(self) -> None:
        pass


class _DryRunStore(CoordinationStore):
    def __init__(self, inner: CoordinationStore) -> None:
        super().__init__()
        self._inner = inner

    def now(self) -> float:
        return time()  # the store's clock would make its file; only a slot that is thrown away depends on it

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        return self._inner.get(keys)

    def scan(self, prefix: str) -> dict[str, Record]:
        return self._inner.scan(prefix)

    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        return 1 + (expected or 0)

    def close(self) -> None:
        pass

    delete = take_places = leave_places = count_places = reserve = _end
