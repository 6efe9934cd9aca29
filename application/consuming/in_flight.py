"""The jobs that were delivered to one consumer and aren't settled yet: what the broker is told of them.

The threads that run handlers start and finish jobs. The consumer's own thread adds and settles them. The
lease renewer's thread extends the leases (LSE-3), and learns which were lost (LSE-4). No call to the broker
runs while the lock of the states is held; another lock has settlements sent one call after the other.
"""

import threading
from collections.abc import Callable, Sequence
from logging import Logger
from math import inf
from time import monotonic

from ...domain import RetryPolicy
from ...domain.defaults import DEFAULT_RESULT_TTL_S
from ...domain.errors import BackendUnavailable, Closed, JobsError
from ...domain.printable import printable
from ...domain.wording import quantity
from ...ports import Ack, Cancel, ConsumerBackend, Dead, Delivery, Release, Settlement, SettleOutcome
from .job_permits import PermitShare
from .job_states import JobStates
from .settled_counts import SettledCounts

OnRefused = Callable[[Delivery, Ack | Dead], Settlement]


class InFlight(JobStates):
    """The jobs of one consumer, and how those before them were settled.

    Args:
        backend: Where they come from.
        logger: Where losses and releases are told.
        on_refused: Says how to settle a job whose ack or death was refused.
        policy: Which jobs run alone.
        cancelled: The receipts of running jobs that are to be cancelled; others only read it.
        result_ttl_s: For how many seconds to remember that a job was cancelled.
        stop: Called with such receipts, to have the handlers of these jobs end; by any thread.
        permits: As of :class:`JobStates`.
    """

    def __init__(
        self,
        backend: ConsumerBackend,
        logger: Logger,
        on_refused: OnRefused,
        policy: RetryPolicy,
        *,
        cancelled: set[str] | None = None,
        result_ttl_s: float = DEFAULT_RESULT_TTL_S,
        stop: Callable[[set[str]], None] = lambda _: None,
        expired: set[str] | None = None,
        permits: PermitShare | None = None,
    ) -> None:
        super().__init__(policy, set() if cancelled is None else cancelled, permits)
        self._backend = backend
        self._on_refused = on_refused
        self._result_ttl_s = result_ttl_s
        self._stop = stop
        self._lease_s = inf if backend.lease_s is None else backend.lease_s
        self._logger = logger
        self._settling = threading.Lock()
        self.counts = SettledCounts(logger, set() if expired is None else expired)
        """How many were settled, or lost before."""

    # -- the threads that run handlers, and the consumer's -----------------------------------------

    def start_next(self, *, suspects: bool | None = None, begins: bool = True) -> Delivery | None:
        """Start the next queued job, once it is sure that its lease stands; None if there is none to start.

        A job that must run alone isn't started while another runs. :meth:`begin` comes before its handler, as
        it may go back instead.

        Args:
            suspects: True starts the job only if it must run alone, and releases all other queued jobs. So no
                other thread starts one beside it. False starts the job only if it may run beside others.
            begins: Whether the handler begins at once; if not, :meth:`begin` says when.
        """
        now = monotonic()
        if now - self._extended_s >= self._lease_s and self._queued:
            self._check_leases(now)
        with self._lock:
            if not self._queued:
                return None
            if self._permits is not None and not self._permits.may_start(len(self._running)):
                return None
            delivery = self._queued[0]
            is_suspect = delivery.crashes > 0 and self.runs_alone(delivery)
            if suspects is not None and is_suspect is not suspects:
                return None
            if is_suspect:
                if self._running:
                    return None
                self._suspects -= 1
            self._started_s = now  # first: the renewer's thread reads it once a job runs
            self._running[delivery.receipt] = self._queued.popleft()
            if begins and not is_suspect:
                self.started += 1
            else:
                self._starting.add(delivery.receipt)
            if suspects:
                self._release_queued()
        return delivery

    def start_next_beside_others(self, *, begins: bool = True) -> Delivery | None:
        """Start the next queued job unless it must run alone; otherwise as :meth:`start_next`."""
        return self.start_next(suspects=False, begins=begins) if self._queued else None

    def start_suspect(self) -> Delivery | None:
        """Start the next queued job if it must run alone, and release the others; as :meth:`start_next`."""
        return self.start_next(suspects=True) if self._suspects else None

    def put_back(self, delivery: Delivery, delay_s: float = 0.0) -> None:
        """Release a job that was started, even if its handler has begun; :meth:`settle` tells the broker."""
        is_cancelled = delivery.receipt in self.cancelled
        self.finish(self._cancel(delivery) if is_cancelled else Release(delivery.receipt, delay_s))

    # -- settling, by any thread -------------------------------------------------------------------

    def settle(self, *, take: int = 0) -> list[Delivery]:
        """Settle the finished jobs, and return up to ``take`` further jobs, leased in the same round trip.

        Raises:
            BackendUnavailable: the broker is away. Call again: the settlements are kept.
        """
        with self._settling:
            settlements: list[Settlement] = []
            try:
                settlements.extend(self._take_settlements())
                if not settlements and not take:
                    return []
                answer = self._backend.settle(settlements, take=take)
            except BaseException as error:
                if isinstance(error, JobsError) and not isinstance(error, BackendUnavailable):
                    self._give_up(settlements, error)
                else:  # the broker is away, or this was interrupted: the next call settles them
                    with self._lock:
                        self._settlements.extendleft(reversed(settlements))
                raise
            if refused := self._note_answer(settlements, answer.outcomes):
                self._fail_refused(refused)
            return answer.deliveries

    def _note_answer(
        self, settlements: Sequence[Settlement], outcomes: Sequence[SettleOutcome]
    ) -> list[Ack | Dead]:
        """Count what was settled, keep what was deferred, and return what was refused."""
        refused = self.counts.add(settlements, outcomes, self._jobs)
        if SettleOutcome.DEFERRED in outcomes or refused:
            pairs = list(zip(settlements, outcomes, strict=True))
            self._defer([each for each, outcome in pairs if outcome is SettleOutcome.DEFERRED])
            settlements = [each for each, outcome in pairs if not outcome.keeps_receipt]
        self._remove(settlements)
        return refused

    def release_queued(self, *, but_suspects: bool = False) -> None:
        """Settle the finished jobs, and release those not started yet; raises as :meth:`settle`.

        Args:
            but_suspects: Whether to keep those that must run alone.
        """
        try:
            self._backend.release_ahead()  # first, or the broker would send here again what is released now
        finally:  # if the broker is away, these are sent with the next settlements
            with self._lock:
                released = self._release_queued(but_suspects=but_suspects)
        self.settle()
        if released:
            self._logger.info("released %s, not started yet", quantity(released, "job"))

    def take_again(self, count: int) -> list[Delivery]:
        """Return up to ``count`` jobs that can't go back yet: they are to be added, and run here."""
        if not self._deferred:
            return []
        return self._backend.take_again(self._take_deferred(count))

    def return_now(self, deliveries: Sequence[Delivery]) -> None:
        """Release jobs that came just now, and that can't run here; otherwise as :meth:`settle`."""
        with self._lock:
            if not self.is_closed:  # else the backend releases them
                self._jobs.update((delivery.receipt, delivery) for delivery in deliveries)
                self._settlements.extend(Release(delivery.receipt) for delivery in deliveries)
        self.settle()

    @property
    def has_leftover(self) -> bool:
        """Whether an interrupt kept :meth:`release_all` from its work, at the end of the last run."""
        finished = {settlement.receipt for settlement in (*self._settlements, *self._deferred)}
        return bool(self._queued or not finished.issuperset((*self._jobs, *self._backend.given_out())))

    def release_all(self) -> None:
        """Settle the finished jobs, and release all others; raises as :meth:`settle`.

        Also those that the broker has answered and that an interrupt has kept from :meth:`add`.
        """
        with self._settling, self._lock:  # no call settles any at this moment
            self._deferred_until_s = 0.0
            finished = {settlement.receipt for settlement in (*self._settlements, *self._deferred)}
            all_ = dict.fromkeys((*self._jobs, *self._backend.given_out()))
            self._settlements.extend(Release(receipt) for receipt in all_ if receipt not in finished)
            self._take_queued()
            self._running.clear()
            self._starting.clear()
            self._lost.clear()
            self.cancelled.clear()
            self._trim_permits()
        self.release_queued()

    def close(self) -> None:
        """Queue no more jobs, and release the queued ones; otherwise as :meth:`settle`."""
        with self._lock:
            self.is_closed = True
        self.end_waits()
        self._deferred_until_s = 0.0
        self.release_queued()

    def _give_up(self, settlements: list[Settlement], error: JobsError) -> None:
        """Forget settlements that the broker would refuse again."""
        self._remove(settlements)
        done = sum(not isinstance(settlement, Release) for settlement in settlements)
        self.counts.lost += done
        self._logger.warning(
            "lost %s, and couldn't release %s: %s",
            quantity(done, "settlement"),
            quantity(len(settlements) - done, "job"),
            error,
        )

    def _fail_refused(self, refused: Sequence[Ack | Dead]) -> None:
        """Settle jobs as failed whose next jobs can't be published (THEN-3), within a call that settles.

        One that is dead by that may be refused as well, and is then retried.
        """
        failures = [self._on_refused(self._jobs[end.receipt], end) for end in refused]
        try:
            outcomes = self._backend.settle(failures).outcomes
        except BackendUnavailable:  # the next call meets it as well
            with self._lock:
                self._settlements.extend(failures)
            return
        if again := self._note_answer(failures, outcomes):
            self._fail_refused(again)

    # -- leases, also by the renewer's thread --------------------------------------------------------

    @property
    def since_extended_s(self) -> float:
        """How many seconds ago the leases began, or were extended."""
        return monotonic() - self._extended_s

    def extend(self) -> None:
        """Extend all leases, and learn which are lost (LSE-3, LSE-4).

        Also those of jobs that the backend holds back, as nobody may be in its ``receive`` during an outage.

        Raises:
            BackendUnavailable: the broker is away.
        """
        if self._jobs or self._backend.held_back:
            self._extend(monotonic())

    def _check_leases(self, now: float) -> None:
        """Ask which jobs are lost, as their leases may be over; release the queued ones if nobody answers.

        This happens after an outage, or if this process stood still for as long as a lease.
        """
        try:
            self._extend(now)
        except BackendUnavailable as error:
            with self._lock:
                released = self._release_queued()
            self._logger.warning(
                "not starting %s: the lease may be over, and the broker is away: %s",
                quantity(released, "job"),
                error,
            )

    def _extend(self, now: float) -> None:
        with self._lock:
            receipts = list(self._jobs)
        try:
            outcomes = self._backend.extend(receipts)
        except Closed:  # a handler closed its consumer: its job was released
            outcomes = [SettleOutcome.LOST] * len(receipts)
        lost = {
            receipt
            for receipt, outcome in zip(receipts, outcomes, strict=True)
            if outcome is SettleOutcome.LOST
        }
        for id_ in self._lose(lost):
            self._logger.warning("job %s: its lease was lost; another consumer may run it", printable(id_))
        self._extended_s = now  # last: what failed is tried again at the next look
        if SettleOutcome.CANCELLED in outcomes:
            self._end_cancelled(
                {
                    receipt
                    for receipt, outcome in zip(receipts, outcomes, strict=True)
                    if outcome is SettleOutcome.CANCELLED
                }
            )

    def _end_cancelled(self, receipts: set[str]) -> None:
        """Settle the queued jobs that are to be cancelled, and have the running ones stopped (CAN-2)."""
        with self._lock:
            queued = self._drop_queued(receipts)
            self._settlements.extend(map(self._cancel, queued))
            running = (self._running.keys() & receipts) - self.cancelled
            self.cancelled |= running
        if running:
            self._stop(running)
        if queued:
            self._logger.info("cancelled %s, not started yet", quantity(len(queued), "job"))
            self.settle()

    def _cancel(self, delivery: Delivery) -> Settlement:
        return Cancel(delivery.receipt, self._result_ttl_s)
