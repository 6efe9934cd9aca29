"""One job at a time, on the thread that consumes."""

from time import monotonic

from ...domain.errors import BackendUnavailable
from ...ports import Delivery
from .lease_renewer import SLOW_S
from .loop import ConsumeLoop
from .settle_timer import SettleTimer
from .stop_conditions import StopCondition


class SequentialLoop(ConsumeLoop):
    """Takes jobs in batches, runs one after the other, and settles a batch as it takes the next."""

    def _watch(self) -> None:
        """While a slow job runs, settle the finished jobs, and release the queued ones."""
        if self._in_flight.stalled_s >= SLOW_S:
            self._in_flight.release_queued()

    def _stop_handlers(self, receipts: set[str]) -> None:
        self._executor.stop(receipts)

    def _consume(self, stop_at: int | None, stop_condition: StopCondition) -> None:
        self._settle(take=0)
        waited_s: float | None = None
        while not self._stopping.is_set:
            if self._wait_for_deferred():
                continue
            if self._in_flight.is_to_settle:  # it was deferred; or refused, and then the broker was away
                self._settle(take=0)
            size = self._next_size(stop_at)
            timeout_s = stop_condition(waited_s) if size else None
            if timeout_s is None:
                return
            began = monotonic()
            batch = self._receive(size, timeout_s)
            waited_s = None if batch else monotonic() - began
            while batch:
                batch = self._work_through(batch, stop_at)

    def _next_size(self, stop_at: int | None) -> int:
        size = 1 if self._runs_suspect else self._sizer.size
        return size if stop_at is None else min(size, stop_at - self._in_flight.started)

    def _work_through(self, batch: list[Delivery], stop_at: int | None) -> list[Delivery]:
        """Execute ``batch``, settle it, and return the next one, taken in the same round trip."""
        in_flight, execute, stopping = self._in_flight, self._executor.execute, self._stopping
        in_flight.add(batch)
        timer = SettleTimer()
        executed = 0
        while not stopping.is_set:
            if executed and timer.is_due and in_flight.queued:
                self._settle_early(timer)
                continue
            delivery = in_flight.start_next()
            if delivery is None:
                break
            is_suspect = delivery.crashes > 0 and in_flight.runs_alone(delivery)
            if is_suspect and not (self._isolate(delivery) and in_flight.begin(delivery)):
                continue
            executed += 1
            in_flight.finish(execute(delivery))
            self._runs_suspect = is_suspect
        if executed:
            self._sizer.record(executed, timer.elapsed_s)
        if stopping.is_set:
            return []  # what is finished is settled together with the release of the rest
        return self._settle_and_take(self._next_size(stop_at))

    def _settle_early(self, timer: SettleTimer) -> None:
        """Settle in the midst of a batch; where the broker is away, leave it to the end of the batch.

        Each try would hold up its jobs, and they may start as long as their leases stand.
        """
        try:
            if self._sizer.adapts and timer.is_late:
                self._in_flight.release_queued()
            else:
                self._in_flight.settle()
        except BackendUnavailable as error:
            self._logger.debug("settlements wait for the broker: %s", error)
            timer.wait_for_end()
        else:
            timer.settled()
