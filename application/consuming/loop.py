"""The consume loop: receive, execute, settle; the same on every backend."""

import threading
from abc import ABC, abstractmethod
from contextlib import AbstractContextManager, nullcontext, suppress
from dataclasses import dataclass
from functools import partial
from logging import Logger
from time import monotonic

from ...domain.errors import BackendUnavailable, Closed, JobsError
from ...domain.job_context import current_receipts
from ...domain.printable import printable
from ...domain.wording import quantity
from ...ports import Ack, Cancel, ConsumerBackend, Dead, Delivery, Observer, Release, Retry
from ..broker.deferral import AGAIN_S
from .callers_loop import consumes_already
from .executor import Executor
from .hooks import ConsumerHooks
from .in_flight import InFlight
from .job_permits import PermitShare, Turn
from .lease_renewer import LeaseRenewer
from .outages import RECONNECT, RESETTLE, call_until_answered
from .prefetch_sizer import PrefetchSizer
from .stop_conditions import StopCondition
from .stop_request import StopRequest

_ASIDE_S = 5.0
"""For how long a job goes back that must run alone, while settlements of others are deferred."""


@dataclass(frozen=True, slots=True)
class ConsumeStats:
    """How many deliveries of one consumer ended in which way, since it was connected.

    Each is counted once the broker has confirmed how it ended.
    """

    attempted: int = 0
    """Deliveries whose handler was started, those that run now included; and those that have expired."""
    done: int = 0
    """Their handlers returned, and their jobs are done."""
    retried: int = 0
    """Their handlers failed, and their jobs run again."""
    dead: int = 0
    """Their jobs became dead letters."""
    lost: int = 0
    """Executed, but their leases were lost first: another consumer may run them too (LSE-4)."""
    released: int = 0
    """They went back to the queue: they snoozed or weren't started, or the consumer was stopped at once."""
    cancelled: int = 0
    """Ended as cancelled, whether they were begun or not; those that waited for a limit aren't counted."""
    expired: int = 0
    """Ended as expired: they waited for too long, and no handler ran. Those that are dead aren't counted."""


class ConsumeLoop(ABC):
    """Receives, executes and settles jobs; the thread that calls :meth:`run` talks to the broker."""

    def __init__(
        self,
        queue: str,
        backend: ConsumerBackend,
        executor: Executor,
        *,
        sizer: PrefetchSizer,
        logger: Logger,
        observer: Observer | None = None,
        permits: PermitShare | None = None,
        hooks: ConsumerHooks | None = None,
    ) -> None:
        self._queue = queue
        self._hooks = hooks
        self._permits = permits
        self._backend = backend
        self._executor = executor
        self._observer = observer
        self._logger = logger
        self._in_flight = InFlight(
            backend,
            logger,
            executor.fail_refused,
            executor.policy,
            cancelled=executor.cancelled,
            result_ttl_s=executor.schema.result_ttl_s,
            stop=self._stop_handlers,
            expired=executor.expired,
            permits=permits,
        )
        executor.limits.finish = self._in_flight.finish
        self._sizer = sizer
        self._held_back = 0
        """How many jobs the backend held back at the last poll."""
        self._runs_suspect = False
        """Whether the job that ran last had to run alone: it may have killed the consumers that had it."""
        self._stopping = StopRequest(self._interrupt)
        self._running = threading.Lock()
        self._thread: int | None = None
        """Which thread runs it."""
        self._renewer: LeaseRenewer | None = None
        self.stopped = False
        """Whether the last :meth:`run` ended because it was stopped."""

    @property
    def running_is_lost(self) -> bool:
        """Whether the lease of the job that runs here was lost, or of one of the batch (LSE-4).

        A thread that runs none asks about all that run.
        """
        receipts, in_flight = current_receipts(), self._in_flight
        return any(map(in_flight.is_lost, receipts)) if receipts else in_flight.has_lost

    @property
    def running_is_cancelled(self) -> bool:
        """Whether the job that runs here is to be cancelled, or one of the batch (CAN-2).

        A thread that runs none asks about all that run.
        """
        receipts, cancelled = current_receipts(), self._in_flight.cancelled
        return not cancelled.isdisjoint(receipts) if receipts else bool(cancelled)

    @property
    def running_is_timed_out(self) -> bool:
        """Whether the time limit of the job that runs here is over, or that of the batch.

        A thread that runs none asks about all that run.
        """
        receipts, timed_out = current_receipts(), self._executor.limits.timed_out
        return any(each in timed_out for each in receipts) if receipts else bool(timed_out)

    @property
    def runs_here(self) -> bool:
        """Whether the caller is the thread in :meth:`run`, or the handler of a job of this consumer."""
        is_handler = any(map(self._in_flight.holds, current_receipts()))
        return is_handler or (self._running.locked() and self._thread == threading.get_ident())

    @property
    def stats(self) -> ConsumeStats:
        """What became of the deliveries so far."""
        counts = self._in_flight.counts
        settled = counts.settled
        return ConsumeStats(
            attempted=self._in_flight.started,
            done=settled[Ack] - counts.expired,
            retried=settled[Retry],
            dead=settled[Dead],
            lost=counts.lost,
            released=settled[Release],
            cancelled=settled[Cancel],
            expired=counts.expired,
        )

    def stop(self) -> None:
        """End the present or the next :meth:`run` after the job that is running; from any thread."""
        self._stopping.set()

    def forget_stop(self) -> None:
        """Withdraw a request to stop that came after the last :meth:`run` had ended; not while one runs."""
        if self._stopping.is_set and not self._running.locked():
            self._stopping.clear()

    def run(
        self,
        limit: int | None,
        stop_condition: StopCondition,
        around: AbstractContextManager[None] | None = None,
    ) -> int:
        """Execute up to ``limit`` deliveries, until stopped or until the stop condition holds.

        However this ends, finished jobs are settled and all others released. If the broker is away at that
        moment, they stay in flight for the next run, or for :meth:`close`.

        Args:
            limit: How many; None for all.
            stop_condition: When to end though there is no stop.
            around: Entered for the run. If the run is refused, it isn't: it belongs to the run that goes on.

        Returns:
            How many deliveries were executed.

        Raises:
            StartFailed: the consumer's ``on_start`` failed.
            QueueNotFound: the queue was deleted.
            Closed: the consumer backend was closed.
            UsageError: it is running already.
        """
        if self._running.locked():
            raise consumes_already()
        # A signal handler that raises can keep any `finally` from releasing the lock, but not this.
        with self._running, around or nullcontext():
            return self._run(limit, stop_condition)

    def _run(self, limit: int | None, stop_condition: StopCondition) -> int:
        start = self._in_flight.started
        self._thread = threading.get_ident()
        self._end_leftover_threads()
        renewer = LeaseRenewer(self._in_flight, self._backend.lease_s, self._watch, self._logger)
        self._renewer = renewer
        try:
            if self._in_flight.has_leftover:  # likewise
                self._release_all()
            if self._permits is not None:
                self._begin_permits(self._permits)
            with self._around_run():
                try:
                    renewer.start()
                    self._consume(None if limit is None else start + limit, stop_condition)
                finally:  # in this order, so that nothing is released twice
                    try:
                        renewer.stop()
                        self._renewer = None  # not if that was interrupted: the next run tells it to stop
                    finally:
                        self._release_all()
                        self._end_permits()
        finally:
            self._end_permits()
            self.stopped = self._stopping.is_set
            try:
                self._stopping.clear()
            finally:  # also if a second signal ends the wait in there
                self._thread = None
        return self._in_flight.started - start

    @property
    def held_back(self) -> int:
        """How many jobs are in flight here and may run again: they wait for a limit, or to be settled."""
        return self._backend.held_back + self._in_flight.deferred

    @property
    def is_empty(self) -> bool:
        """Whether no job is under way, not even one that isn't started or settled."""
        return self._in_flight.is_empty

    def hold(self, is_held: bool) -> None:
        """Start no job while ``is_held``; from any thread, and without waiting for the broker."""
        self._in_flight.hold(is_held)

    def give_up_timed_out(self) -> None:
        """Note how to settle the jobs whose handlers go on after their time limits, and start no other job.

        Any thread calls this, before it closes the consumer and ends the process.
        """
        self._in_flight.hold(True)
        self._executor.limits.give_up()

    def renew(self) -> None:
        """Have the leases extended at once, and so learn which jobs are to be cancelled; from any thread."""
        if (renewer := self._renewer) is not None:
            renewer.renew_now()

    def release_queued(self) -> None:
        """Release the jobs that haven't been started, and settle what is finished; from any thread.

        Raises:
            JobsError: the broker is away, or the consumer was closed.
        """
        self._in_flight.release_queued()

    def close(self) -> None:
        """Settle what an outage left unsettled, if the broker is back, and close the consumer backend.

        If it runs on another thread, it starts no further job.
        """
        with suppress(JobsError):  # then the jobs run again when their leases end
            self._in_flight.close()
        try:
            self._backend.close()
        finally:
            self._stopping.end_wait()  # or it would go on waiting for a broker that is away
            if self._permits is not None:
                self._permits.interrupt()

    # -- what the loops do alike --------------------------------------------------------------------

    def _end_leftover_threads(self) -> None:
        """End the threads of the last run that still go on, as a signal handler raised at its end."""
        if self._renewer is not None:
            self._renewer.tell_to_stop()

    def _around_run(self) -> AbstractContextManager[None]:
        """Call the consumer's hooks before the first job, and once all are released."""
        return nullcontext() if self._hooks is None else self._hooks.around(self._hooks.call)

    @abstractmethod
    def _watch(self) -> None:
        """Look after slow handlers, on the lease renewer's thread."""

    @abstractmethod
    def _stop_handlers(self, receipts: set[str]) -> None:
        """Have the handlers of running jobs end, if they can be; any thread calls this."""

    @abstractmethod
    def _consume(self, stop_at: int | None, stop_condition: StopCondition) -> None:
        """Receive, execute and settle, until that many jobs were started, or it is stopped."""

    def _receive(self, size: int, timeout_s: float) -> list[Delivery]:
        if self._in_flight.deferred:
            timeout_s = min(timeout_s, AGAIN_S)
        size = max(1, self._in_flight.may_take(size))
        receive = self._receive_some if self._permits is None else self._receive_by_permit
        batch = call_until_answered(
            partial(receive, size, timeout_s), RECONNECT, self._stopping, self._logger
        )
        self._tell_polled(batch)
        return batch

    def _receive_some(self, size: int, timeout_s: float) -> list[Delivery]:
        """Return jobs that can't go back yet, or else others, as :meth:`ConsumerBackend.receive`."""
        return self._in_flight.take_again(size) or self._backend.receive(size, timeout_s)

    def _settle(self, *, take: int) -> list[Delivery]:
        settle = partial(self._in_flight.settle, take=take)
        return call_until_answered(settle, RESETTLE, self._stopping, self._logger)

    def _settle_and_take(self, room: int) -> list[Delivery]:
        """Settle what is finished, and take up to ``room`` jobs in the same round trip."""
        room = self._in_flight.may_take(room)
        if self._permits is None:
            deliveries = self._settle_and_take_some(room)
        else:
            deliveries = self._settle_and_take_by_permit(self._permits, room)
        self._tell_polled(deliveries)
        return deliveries

    def _settle_and_take_some(self, room: int) -> list[Delivery]:
        """Settle what is finished, and take jobs that were to go back and can't yet, and then others."""
        back = self._in_flight.take_again(room)
        return back + self._settle(take=room - len(back))

    # -- with permits -------------------------------------------------------------------------------

    def _begin_permits(self, permits: PermitShare) -> None:
        """Say how this loop uses permits."""
        permits.begin(1, in_batches=False, interrupt=self._backend.interrupt, wake=lambda: None)

    def _end_permits(self) -> None:
        if self._permits is not None:
            self._permits.end()

    def _jobs_allowed(self, room: int) -> int:
        """Return how many of ``room`` jobs may be taken by the permits that are here or free now."""
        if self._permits is None or room <= 0:
            return room
        return room if self._permits.request(1) else 0

    def _places(self) -> int:
        """Return for how many more handlers there are places here."""
        return 1

    def _jobs_for(self, permits: int, jobs: int) -> int:
        """Return how many of ``jobs`` can be taken by so many permits that are at hand."""
        return jobs if permits else 0

    def _settle_and_take_by_permit(self, permits: PermitShare, room: int) -> list[Delivery]:
        began_s = monotonic()
        room = self._jobs_allowed(room)
        deliveries = self._settle_and_take_some(room)
        if room > 0 and not deliveries:
            permits.found_nothing(monotonic() - began_s)
        return deliveries

    def _receive_by_permit(self, size: int, timeout_s: float) -> list[Delivery]:
        """Wait for a permit and a job; as :meth:`ConsumerBackend.receive`.

        No job is leased while this waits for a permit. While one is free and nobody wants it, this waits for
        jobs without it, and takes it when one comes. In the rare case that another consumer was quicker, the
        job goes back at once.
        """
        permits, give_up_s = self._permits, monotonic() + timeout_s
        assert permits is not None  # noqa: S101 - as the caller knows
        while not self._in_flight.is_closed:
            if not permits.at_hand:
                self._backend.release_ahead()
            turn = permits.take(self._places(), max(0.0, give_up_s - monotonic()))
            if turn is Turn.NONE:
                return []
            left_s = max(0.0, give_up_s - monotonic())
            look = self._take_at_once if turn is Turn.TAKE else self._listen
            deliveries = look(permits, size, left_s)
            if deliveries or self._stopping.is_set or monotonic() >= give_up_s:
                return deliveries
        raise Closed(f"this consumer of queue {self._queue!r} was closed")

    def _take_at_once(self, permits: PermitShare, size: int, _left_s: float) -> list[Delivery]:
        began_s = monotonic()
        try:
            deliveries = self._receive_some(self._jobs_for(permits.at_hand, size), 0.0)
        except BaseException:
            permits.give_back()
            raise
        if not deliveries:
            permits.found_nothing(monotonic() - began_s)
        return deliveries

    def _listen(self, permits: PermitShare, size: int, left_s: float) -> list[Delivery]:
        """Wait for jobs without a permit; return those that got one."""
        try:
            deliveries = self._receive_some(self._jobs_for(max(1, permits.free), size), left_s)
        finally:
            permits.stop_listening()
        if not deliveries:
            return []
        at_hand = permits.take_for(min(self._places(), len(deliveries)))
        allowed = self._jobs_for(at_hand, len(deliveries))
        if allowed < len(deliveries):
            with suppress(BackendUnavailable):  # they are released with the next settlements
                self._in_flight.return_now(deliveries[allowed:])
        return deliveries[:allowed]

    def _interrupt(self) -> None:
        """End the wait for jobs, and for permits."""
        if self._permits is not None:
            self._permits.interrupt()
        self._backend.interrupt()

    # -- alike, with and without ---------------------------------------------------------------------

    def _wait_for_deferred(self) -> bool:
        """If too many settlements are deferred to take jobs, wait a moment and settle; return whether."""
        if self._in_flight.may_take(1):
            return False
        if self._permits is not None:  # another consumer may make the room for which this one waits
            self._permits.give_back()
        self._stopping.wait(AGAIN_S)
        self._settle(take=0)
        return True

    def _tell_polled(self, batch: list[Delivery]) -> None:
        if self._observer is None:
            return
        self._observer.polled(self._queue, len(batch))
        held_back, before = self._backend.held_back, self._held_back
        self._held_back = held_back
        if held_back > before:
            self._observer.held_back(self._queue, held_back - before)

    def _isolate(self, delivery: Delivery) -> bool:
        """Release all other jobs, as this one, which was just started, may kill its consumer.

        Returns:
            Whether that is done; else the job goes back, and the others run.
        """
        in_flight, id_ = self._in_flight, printable(delivery.id)
        died = quantity(delivery.crashes, "consumer")
        if not in_flight.deferred:
            try:
                in_flight.release_queued()
            except BackendUnavailable as error:
                self._logger.info("job %s isn't started while the broker is away: %s", id_, error)
                in_flight.put_back(delivery)
                return False
        if self.held_back:
            self._logger.info(
                "job %s was with %s that died, and goes back for %g s: it must run alone, and the broker "
                "can't be told of other jobs at present",
                *(id_, died, _ASIDE_S),
            )
            in_flight.put_back(delivery, _ASIDE_S)
            return False
        self._logger.info("job %s was with %s that died: it runs alone", id_, died)
        return True

    def _release_all(self) -> None:
        in_flight = self._in_flight
        try:
            in_flight.release_all()
        except BackendUnavailable as error:
            self._logger.warning(
                "the broker is away: kept %s for the next consume(), or close(): %s",
                quantity(in_flight.unsettled, "settlement"),
                error,
            )
        except JobsError as error:
            self._logger.warning("jobs in flight weren't released; their leases will run out: %s", error)
