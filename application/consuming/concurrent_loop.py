"""Many jobs at once: handlers run on other threads, and the thread that consumes talks to the broker."""

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext, suppress
from logging import DEBUG, INFO, Logger
from time import monotonic

from ...domain.errors import BackendUnavailable, Closed, QueueNotFound
from ...ports import ConsumerBackend, Delivery, Observer
from .executor import Executor
from .handler_runner import HandlerRunner
from .hooks import ConsumerHooks
from .idle_settler import IdleSettler
from .in_flight import InFlight
from .isolation_wait import IsolationWait
from .job_permits import PermitShare
from .lease_renewer import SLOW_S
from .loop import ConsumeLoop
from .prefetch_sizer import make_sizer
from .stop_conditions import Forever, StopCondition

_SETTLE_S = 0.05
"""The longest that a settlement waits for others to share its round trip."""
_MEASURED_S = 0.005
"""The shortest time over which the speed of the jobs is measured."""
_POLL_S = 5.0
"""The longest single wait for a job while others run."""


class ConcurrentLoop(ConsumeLoop):
    """Keeps up to ``concurrency`` jobs running, and so many more at hand that no place stays empty.

    While no job is ready, it waits for the next one, and another thread settles what is finished.

    Args:
        concurrency: How many jobs run at once.
        make_runner: Makes what runs their handlers.
    """

    def __init__(
        self,
        queue: str,
        backend: ConsumerBackend,
        executor: Executor,
        *,
        concurrency: int,
        make_runner: Callable[[InFlight], HandlerRunner],
        prefetch: int | None,
        logger: Logger,
        observer: Observer | None = None,
        permits: PermitShare | None = None,
        hooks: ConsumerHooks | None = None,
    ) -> None:
        if prefetch is None and (backend.prefetch or 0) >= concurrency:
            prefetch = backend.prefetch  # one below is a default for one job at a time
        super().__init__(
            queue,
            backend,
            executor,
            sizer=make_sizer(prefetch, permits, at_once=concurrency),
            logger=logger,
            observer=observer,
            permits=permits,
            hooks=hooks,
        )
        self._concurrency = concurrency
        self._make_runner = make_runner
        self._runner = make_runner(self._in_flight)
        self._settler = IdleSettler(self._in_flight, logger)
        self._isolation = IsolationWait()
        self._measured_s = 0.0
        """When the time that jobs take was last measured."""
        self._measured_started = 0
        """How many jobs had been started by then."""

    def _stop_handlers(self, receipts: set[str]) -> None:
        self._runner.cancel(receipts)

    def _watch(self) -> None:
        self._runner.check()

    def _consume(self, stop_at: int | None, stop_condition: StopCondition) -> None:
        # A new one each time: what the last one abandoned may still be at work.
        self._runner = runner = self._make_runner(self._in_flight)
        self._settler = IdleSettler(self._in_flight, self._logger)
        hooks = nullcontext() if self._hooks is None else self._hooks.around(runner.call)
        with self._settler as settler, runner, hooks:
            try:
                self._feed(settler, stop_at, stop_condition)
            except QueueNotFound:  # deleted: what runs may end
                self._finish_running()
                raise
            self._finish_running()

    def _end_leftover_threads(self) -> None:
        super()._end_leftover_threads()
        self._settler.tell_to_end()
        self._runner.tell_to_end()

    def _around_run(self) -> AbstractContextManager[None]:
        """Do nothing: the hooks are called while the handlers' event loop or threads are there."""
        return nullcontext()

    # -- feeding the runner -------------------------------------------------------------------------

    def _feed(self, settler: IdleSettler, stop_at: int | None, stop_condition: StopCondition) -> None:
        """Keep jobs at hand until stopped, until ``stop_at`` were started, or until the condition holds."""
        in_flight = self._in_flight
        ends_wait = None if isinstance(stop_condition, Forever) else self._interrupt
        may_be_ready, waited_s = True, None
        self._settle(take=0)
        self._restart_measuring()
        while not self._stopping.is_set:
            if self._wait_for_deferred():
                continue
            if (suspect := in_flight.start_suspect()) is not None:
                self._run_alone(suspect)
            room = self._room(stop_at)
            allowed = self._jobs_allowed(room)
            if self._is_full(room, allowed):
                if stop_at is not None and in_flight.started >= stop_at:
                    return
                self._add(self._settle_when_worthwhile(stop_at))
                may_be_ready = True
            elif (may_be_ready and allowed) or in_flight.is_to_settle:
                deliveries = self._take(allowed, stop_at)
                self._add(deliveries)
                may_be_ready = len(deliveries) == allowed
            else:
                was_busy = not in_flight.is_idle  # what is finished may become ready again
                timeout_s = _POLL_S if was_busy else stop_condition(waited_s)
                if timeout_s is None:
                    return
                if self._permits is None:  # else no job may come that isn't asked for
                    self._allow_ahead(room, stop_at)
                began = monotonic()
                with settler.settling(ends_wait):
                    deliveries = self._receive(room, timeout_s)
                waited_s = None if deliveries or was_busy else monotonic() - began
                self._add(deliveries)
                may_be_ready = bool(deliveries)
                if not was_busy:
                    self._restart_measuring()

    def _is_full(self, room: int, allowed: int) -> bool:
        """Whether to wait for the end of jobs that run, before others are taken."""
        held = self._in_flight.held
        if room <= 0 or (held and not allowed):
            return True
        places = self._concurrency if self._permits is None else min(self._concurrency, self._permits.held)
        return held > 0 and held > places + self._ahead // 2

    def _add(self, deliveries: list[Delivery]) -> None:
        if deliveries:
            self._runs_suspect = self._runs_suspect and self._in_flight.runs_alone(deliveries[0])
            self._in_flight.add(deliveries)
            self._runner.wake()

    def _settle_when_worthwhile(self, stop_at: int | None) -> list[Delivery]:
        """Wait until enough jobs are finished to share a round trip; settle them, and take others."""
        if not self._put_off_suspects():
            self._wait_for_finished(max(1, self._ahead // 2), _SETTLE_S)
            if self._in_flight.stalled_s >= SLOW_S:
                self._release_queued(but_suspects=True)
        return self._take(max(0, self._jobs_allowed(self._room(stop_at))), stop_at)

    def _put_off_suspects(self) -> bool:
        """Send back the jobs that must run alone, if one kept a place empty for long; return whether."""
        in_flight, isolation = self._in_flight, self._isolation
        suspects = in_flight.blocking_suspects()
        if not suspects or not 0 < in_flight.running < self._concurrency:
            return False
        level = DEBUG if isolation.pauses else INFO
        away_s = isolation.away_s(suspects)
        if away_s is None:
            return False
        self._logger.log(level, "jobs that must run alone go back for %.0f s: others still run", away_s)
        in_flight.put_off_suspects(away_s)
        self._runner.wake()
        return True

    def _take(self, room: int, stop_at: int | None) -> list[Delivery]:
        """Settle what is finished, and take up to ``room`` jobs."""
        self._measure()
        if not room:
            return self._settle(take=0)
        if self._permits is None:
            self._allow_ahead(room, stop_at)
        return self._settle_and_take(room)

    def _allow_ahead(self, room: int, stop_at: int | None) -> None:
        """Let the broker send jobs before they are asked for, unless these are the last to be run."""
        in_flight = self._in_flight
        left = None if stop_at is None else stop_at - in_flight.started_or_queued
        if self._runs_suspect or (left is not None and left <= room):
            with suppress(BackendUnavailable):  # then there are none
                self._backend.release_ahead()
        else:
            self._backend.allow_ahead(self._limit + in_flight.deferred)

    def _run_alone(self, suspect: Delivery) -> None:
        """Run a job that was just started, and that may kill its consumer, while no other is in flight."""
        if self._isolate(suspect):
            self._runner.run(suspect)
            self._finish_running()
            self._runs_suspect = True
            self._isolation.has_run()

    def _finish_running(self) -> None:
        """Release what is queued, and settle jobs as they finish, until none runs."""
        in_flight = self._in_flight
        self._release_queued()
        while in_flight.held:
            self._wait_for_finished(in_flight.unsettled + 1, SLOW_S)
            with suppress(BackendUnavailable):  # kept, and tried again
                in_flight.settle()
        self._end_permits()

    def _wait_for_finished(self, count: int, timeout_s: float) -> None:
        self._in_flight.wait_for_finished(count, timeout_s)
        if self._in_flight.is_closed:
            raise Closed(f"this consumer of queue {self._queue!r} was closed")

    def _release_queued(self, *, but_suspects: bool = False) -> None:
        with suppress(BackendUnavailable):  # they are released with the next settlements
            self._in_flight.release_queued(but_suspects=but_suspects)

    # -- how many to have at hand -------------------------------------------------------------------

    def _room(self, stop_at: int | None) -> int:
        """Return how many more jobs to take."""
        in_flight = self._in_flight
        if in_flight.has_suspect:
            return 0  # it waits until the others have ended
        room = (1 if self._runs_suspect else self._limit) - in_flight.held
        return room if stop_at is None else min(room, stop_at - in_flight.started_or_queued)

    @property
    def _limit(self) -> int:
        """How many jobs to have at most."""
        return self._concurrency + self._ahead

    @property
    def _ahead(self) -> int:
        """How many jobs to have at hand beyond those that may run."""
        if self._in_flight.stalled_s >= SLOW_S or (self._permits is not None and self._permits.is_contended):
            return 0
        return self._sizer.size - 1 if self._sizer.adapts else max(0, self._sizer.size - self._concurrency)

    def _begin_permits(self, permits: PermitShare) -> None:
        permits.begin(
            self._concurrency,
            in_batches=False,
            interrupt=self._backend.interrupt,
            wake=self._in_flight.end_waits,
        )

    def _places(self) -> int:
        return max(1, self._concurrency - self._in_flight.held)

    def _jobs_allowed(self, room: int) -> int:
        if self._permits is None or room <= 0:
            return room
        permits, held = self._permits, self._in_flight.held
        if permits.request(max(0, min(self._concurrency, held + room) - permits.bound)):
            self._in_flight.bind_queued()
            self._runner.wake()
        return self._jobs_for(permits.at_hand, room)

    def _jobs_for(self, permits: int, jobs: int) -> int:
        """So many jobs, and some more to be ready, if no other consumer waits for their permits."""
        assert self._permits is not None  # noqa: S101 - as all callers know
        held, places = self._in_flight.held, permits + self._permits.bound
        return min(jobs, max(permits, places + self._ahead - held)) if places else 0

    def _measure(self) -> None:
        """Tell the sizer how many jobs a second pass."""
        now, started = monotonic(), self._in_flight.started
        if started > self._measured_started and now - self._measured_s >= _MEASURED_S:
            self._sizer.record(started - self._measured_started, now - self._measured_s)
            self._measured_s, self._measured_started = now, started

    def _restart_measuring(self) -> None:
        self._measured_s, self._measured_started = monotonic(), self._in_flight.started
