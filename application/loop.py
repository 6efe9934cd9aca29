"""The consume loop: receive, execute, settle; the same on every backend."""

import threading
from dataclasses import dataclass
from logging import Logger
from time import monotonic

from ..domain import RetryPolicy
from ..domain.errors import BackendUnavailable, JobsError
from ..ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)
from .batching import BatchSizer
from .execution import Executor
from .hand import Hand, Keeper
from .patience import Patience

_FLUSH_S = 0.05
"""The longest that a settlement waits for others to share its round trip."""
_RECONNECT = RetryPolicy(base_delay_s=0.1, max_delay_s=10.0)


@dataclass(frozen=True, slots=True)
class ConsumeStats:
    """What became of the deliveries of one consumer since it was connected."""

    attempted: int = 0
    """Deliveries that were executed."""
    done: int = 0
    retried: int = 0
    dead: int = 0
    lost: int = 0
    """Executed, but no longer this consumer's when it settled them: another may run them too (LSE-4)."""
    released: int = 0
    """Given back unexecuted."""


class ConsumeLoop:
    """Feeds deliveries of one backend to one executor, on the thread that calls :meth:`run`."""

    def __init__(
        self, backend: ConsumerBackend, executor: Executor, *, prefetch: int | None, logger: Logger
    ) -> None:
        self._attempted = 0
        self._lost = 0
        self._settled: dict[type[Settlement], int] = {Ack: 0, Retry: 0, Dead: 0, Release: 0}
        self._backend = backend
        self._executor = executor
        self._logger = logger
        self._hand = Hand(backend, logger)
        self._sizer = BatchSizer(prefetch)
        self._stopping = threading.Event()

    @property
    def current_is_lost(self) -> bool:
        """Whether the lease of the job that runs now was lost (LSE-4)."""
        return self._hand.current_is_lost

    @property
    def stats(self) -> ConsumeStats:
        """What became of the deliveries so far."""
        settled = self._settled
        return ConsumeStats(
            attempted=self._attempted,
            done=settled[Ack],
            retried=settled[Retry],
            dead=settled[Dead],
            lost=self._lost,
            released=settled[Release] + self._hand.given_back,
        )

    def stop(self) -> None:
        """End the present or the next :meth:`run` after the job that is running; from any thread."""
        self._stopping.set()
        self._backend.interrupt()

    def run(self, limit: int | None, patience: Patience) -> int:
        """Execute up to ``limit`` deliveries, or until stopped or out of patience.

        What is in hand is settled, and the rest released, however this ends.

        Returns:
            How many deliveries were executed.

        Raises:
            QueueNotFound: the queue was deleted.
            Closed: the consumer backend was closed.
        """
        start = self._attempted
        try:
            with Keeper(self._hand, self._backend.lease_s, self._logger):
                try:
                    self._feed(None if limit is None else start + limit, patience)
                finally:
                    self._release_all()
        finally:
            self._stopping.clear()
        return self._attempted - start

    def _feed(self, stop_at: int | None, patience: Patience) -> None:
        waited_s: float | None = None
        while not self._stopping.is_set():
            size = self._next_size(stop_at)
            timeout_s = patience(waited_s) if size else None
            if timeout_s is None:
                return
            began = monotonic()
            batch = self._receive(size, timeout_s)
            waited_s = None if batch else monotonic() - began
            while batch:
                batch = self._work_through(batch, stop_at)

    def _next_size(self, stop_at: int | None) -> int:
        size = self._sizer.size
        return size if stop_at is None else min(size, stop_at - self._attempted)

    def _receive(self, size: int, timeout_s: float) -> list[Delivery]:
        """Receive, and ride out a broker that is away: told once, tried again with backoff (CON-1)."""
        tries = 0
        while True:
            try:
                batch = self._backend.receive(size, timeout_s)
            except BackendUnavailable as error:
                tries += 1
                if tries == 1:
                    self._logger.warning("backend unavailable, retrying until it is back: %s", error)
                if self._stopping.wait(_RECONNECT.delay_s(tries)):
                    return []
            else:
                if tries:
                    self._logger.warning("backend is back after %d tries", tries)
                return batch

    def _work_through(self, batch: list[Delivery], stop_at: int | None) -> list[Delivery]:
        """Execute ``batch``, settle it, and return the next one, taken in the same round trip."""
        hand, execute, stopping = self._hand, self._executor.execute, self._stopping
        hand.take(batch)
        settlements: list[Settlement] = []
        began = flushed = monotonic()
        executed = 0
        try:
            while not stopping.is_set() and (delivery := hand.start_next()) is not None:
                executed += 1
                settlements.append(execute(delivery))
                if monotonic() - flushed >= _FLUSH_S and hand.has_waiting:
                    pending, settlements = settlements, []
                    self._settle(pending, take=0)
                    flushed = monotonic()
        except BaseException:
            self._settle(settlements, take=0)
            raise
        finally:
            self._attempted += executed
        if executed:
            self._sizer.record(executed, monotonic() - began)
        take = 0 if self._stopping.is_set() else self._next_size(stop_at)
        return self._settle(settlements, take=take)

    def _settle(self, settlements: list[Settlement], *, take: int) -> list[Delivery]:
        try:
            answer = self._backend.settle(settlements, take=take)
        except BackendUnavailable as error:
            # They come back when their leases end, and run again: at least once.
            self._logger.warning("%d settlements lost with the connection: %s", len(settlements), error)
            self._lost += len(settlements)
            self._hand.drain()
            return []
        self._hand.drop(settlements)
        for settlement, outcome in zip(settlements, answer.outcomes, strict=True):
            if outcome is SettleOutcome.LOST:
                self._lost += 1
                self._logger.warning("lease %s was lost before it was settled", settlement.receipt)
            else:
                self._settled[type(settlement)] += 1
        return answer.deliveries

    def _release_all(self) -> None:
        releases = [Release(receipt) for receipt in self._hand.drain()]
        if not releases:
            return
        try:
            answer = self._backend.settle(releases)
        except JobsError as error:
            self._logger.warning("%d jobs not released; their leases will run out: %s", len(releases), error)
            return
        self._settled[Release] += answer.outcomes.count(SettleOutcome.OK)
