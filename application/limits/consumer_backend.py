"""A consumer backend that hands out a job once it has its place and its turn, and holds it until then."""

import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from logging import Logger
from math import inf
from time import monotonic, time

from ...domain.errors import JobsError, QueueNotFound
from ...domain.job_progress import Progress
from ...ports import ConsumerBackend, Delivery, Release, Settled, Settlement, SettleOutcome
from ..broker.broker_clock import Clock
from ..broker.deferral import MOST_DEFERRED
from ..broker.store_outage import StoreOutage
from .held_job import HeldJob
from .held_jobs import HeldJobs, without
from .no_limits import NoPlaceGate, NoTurnGate
from .pending_releases import PendingReleases, Returning
from .place_gate import PlaceGate
from .places import Places
from .receive_wait import ReceiveWait
from .spare_places import SparePlaces
from .turn_gate import TurnGate

_PAUSE_S = 1.0
"""How long to wait before a store that was away is asked again."""
_RUNNING_PAUSE_S = 5.0
"""Likewise if jobs run meanwhile: they stand still for as long as a request tries to reach the store."""
_IDLE_S = 0.5
"""How long to wait at most while jobs wait here: places and positions in line must be extended."""
_RENEWED_AFTER = 1 / 6
"""The part of a lease after which that of a held job is extended."""
_CHECKED_S = 0.05
"""After how long to check that a held job is still ours, where the connection is the lease."""
_HELD_IN_VAIN = 64
"""While none can go back: with how many jobs a consumer looks for no others behind those that wait."""
_HELD_IN_VAIN_FOR_EACH = 8
"""With how many for each job that it runs at once, if that is more."""


class LimitedConsumerBackend(ConsumerBackend):
    """Passes on the jobs of another consumer backend when the limits of their queue allow it.

    A job that must wait stays leased here, or goes back without an attempt. It counts as in flight meanwhile.
    One that the broker can't take back at present is held again, and runs here when the limits allow it.

    Args:
        backend: Where the jobs come from.
        places: The concurrency limit, if there is one.
        turns: The rate, if there is one.
        at_once: How many jobs the consumer runs at once.
        logger: Where it is told that the store is away.
        clock: A clock for everything that this waits for.
        broker_clock: Says whether a job has expired.
        most_held: For one call that doesn't wait: how many jobs to hold at most until :meth:`return_held`.
            None for a consumer, which holds as many as may start soon.
    """

    def __init__(
        self,
        backend: ConsumerBackend,
        places: Places | None,
        turns: TurnGate | None,
        at_once: int,
        logger: Logger,
        clock: Callable[[], float] = monotonic,
        broker_clock: Clock = time,
        most_held: int | None = None,
    ) -> None:
        super().__init__()
        self._inner = backend
        self._most_held = most_held
        self._most_in_vain = min(max(_HELD_IN_VAIN, _HELD_IN_VAIN_FOR_EACH * at_once), MOST_DEFERRED)
        self._clock, self._broker_clock = clock, broker_clock
        lease_s = backend.lease_s
        self._renewed_after_s = _CHECKED_S if lease_s is None else lease_s * _RENEWED_AFTER
        self._extending = threading.Lock()
        self._held = HeldJobs()
        self._releases = PendingReleases(backend, clock)
        self._wait = ReceiveWait(backend)
        runs = all(each.runs_when_away for each in (places, turns) if each is not None)
        pause_s = _RUNNING_PAUSE_S if runs else _PAUSE_S
        self._outage = StoreOutage(clock, logger, pause_s, "limits can't be kept")
        self._turns = NoTurnGate() if turns is None else turns
        self._places = NoPlaceGate(self._held)
        if places is not None:
            self._places = PlaceGate(
                places,
                self._held,
                self._wait,
                self._outage,
                at_once=at_once,
                lease_is_connection=lease_s is None,
                is_told=most_held is None,
                send_back=self._send_back,
                clock=clock,
            )
        self._ahead = 0
        """How many jobs the broker may send ahead, besides those that wait here; 0 if it may send none."""
        self._is_closed = False

    @property
    def lease_s(self) -> float | None:
        return self._inner.lease_s

    @property
    def prefetch(self) -> int | None:
        return self._inner.prefetch

    @property
    def held_back(self) -> int:
        """How many jobs wait here, or go back."""
        return len(self._held) + len(self._releases) + self._inner.held_back

    # -- taking -----------------------------------------------------------------------------------

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        """Wait for jobs that may run; otherwise as the backend's."""
        self._wait.wanted = max_jobs
        try:
            return self._receive(max_jobs, self._clock() + timeout_s)
        finally:
            self._wait.wanted = 0
            self._places.pass_freed_on()

    def _receive(self, max_jobs: int, give_up_s: float) -> list[Delivery]:
        while True:
            if self._wait.begin():
                return []
            left_s = max(0.0, give_up_s - self._clock())
            if ready := self._take_ready(max_jobs, left_s):
                return ready
            if not self._wait_for_change(max_jobs, left_s) and not left_s:
                return []

    def _take_ready(self, max_jobs: int, left_s: float) -> list[Delivery]:
        """Return the jobs that may run; reserve turns for others that may within ``left_s`` seconds."""
        if self._releases:
            self._settle([], 0)
        self._renew_held()
        jobs = self._held.all()
        if not jobs:
            self._places.give_back()
            return []
        far = self._turns.far(jobs)
        near = without(jobs, far)
        surplus = self._places.ask(near, max_jobs)
        self._release(surplus if self._releases.may_try else [], keep_places=False)
        placed = [job for job in near if job.has_place]
        expired = self._expired(placed)
        due = self._have_turns(without(placed, expired), far, max_jobs, left_s)
        return self._pass_on([*expired, *due][:max_jobs])

    def _have_turns(
        self, jobs: list[HeldJob], far: list[HeldJob], max_jobs: int, left_s: float
    ) -> list[HeldJob]:
        """Return those whose turns have come; what must wait for long needs no place until then."""
        may_release = self._most_held is None and self._releases.may_try  # else all go back soon
        due, releases = self._turns.admit(jobs, far, max_jobs, left_s, self._outage, may_release=may_release)
        self._release(releases, keep_places=False)
        self._places.leave_lines_of(self._turns.far([*far, *jobs]))
        return due

    def _expired(self, jobs: list[HeldJob]) -> list[HeldJob]:
        """Return those that don't run, and need no turn: else a backlog of them would use up the rate."""
        if all(job.expires_s == inf for job in jobs):
            return []
        now = self._broker_clock()
        return [job for job in jobs if job.expires_s <= now]

    def _pass_on(self, jobs: list[HeldJob]) -> list[Delivery]:
        """Hold these jobs no longer; another thread may have released some."""
        passed_on = self._held.take([job.receipt for job in jobs])
        self._places.start(passed_on)
        return self._unless_closed([job.delivery for job in passed_on])

    def _unless_closed(self, deliveries: list[Delivery]) -> list[Delivery]:
        """Return these, unless another thread has closed this: then nobody runs them, and no place stays."""
        if not self._is_closed:
            return deliveries
        self._places.close()
        return []

    def _hold(self, deliveries: Sequence[Delivery], spare: SparePlaces | None = None) -> list[Delivery]:
        """Hold jobs until they may run; return those that may at once, as they have got spare places."""
        may_start = self._turns.lets_all_start and not self._held
        jobs = self._places.taken(deliveries, self._clock(), spare, may_start=may_start)
        self._turns.note_taken(jobs)
        self._held.add(jobs)
        return self._unless_closed([] if jobs else list(deliveries))

    # -- waiting ----------------------------------------------------------------------------------

    def _wait_for_change(self, max_jobs: int, left_s: float) -> bool:
        """Wait until something may have changed; return whether jobs came."""
        room, wait_s = self._room(max_jobs), min(left_s, self._changes_in_s())
        if room:
            self._allow_ahead()
        try:
            deliveries = self._wait.wait(room, wait_s)
        except QueueNotFound:
            self._held.clear()
            raise
        self._hold(deliveries)
        return bool(deliveries)

    def _changes_in_s(self) -> float:
        """Return after how many seconds something changes that no event announces."""
        now, jobs = self._clock(), self._held.all()
        moments = [self._places.gives_back_s, self._turns.changes_s(jobs, now)]
        if jobs:
            asks_s = self._outage.until_s if self._outage.is_on else self._places.asks_again_s
            moments += [now + _IDLE_S, jobs[0].renewed_s + self._renewed_after_s, asks_s]
        return max(0.0, min(moments) - now)

    def _room(self, max_jobs: int) -> int:
        """Return how many jobs to take."""
        if self._is_closed:
            return max_jobs  # the backend says so
        jobs = self._held.all()
        if self._most_held is not None and jobs:
            return self._most_held - len(jobs)
        far = self._turns.far(jobs)
        placed = sum(job.has_place for job in jobs)
        placed_far = sum(job.has_place for job in far)
        at_hand = placed - placed_far
        room = self._turns.room(self._places.slots(max_jobs) - at_hand, at_hand)
        if at_hand < len(jobs) and room > 0:  # a job behind those that wait may run
            lacks_places = len(jobs) - placed > len(far) - placed_far
            look = self._places.look_size() if lacks_places else self._turns.look_size(self._places.running)
            room = self._bounded(look)
        return max(0, room)

    def _bounded(self, look: int) -> int:
        """Return how many jobs to take behind those that wait: only so many, while none can go back."""
        if not self._releases.are_deferred:
            return look
        return max(0, min(look, self._most_in_vain - len(self._held)))

    # -- settling ---------------------------------------------------------------------------------

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        """Settle as the backend, and take jobs that may run at once."""
        spare = self._places.before_settling(settlements, take)
        room = 0 if not take or self._turns.none_is_due else self._room(take)
        try:
            answer = self._settle(settlements, room)
        except BaseException:
            if spare is not None:
                spare.leave_rest()
            raise
        ready = self._hold(answer.deliveries, spare)
        if take and not ready:
            with suppress(JobsError):  # what was settled is to be told; the next call meets the error again
                ready = self._take_ready(take, 0.0)
        self._places.pass_freed_on()
        return Settled(answer.outcomes, ready)

    def _settle(self, settlements: Sequence[Settlement], take: int) -> Settled:
        sent, answer, deferred = self._releases.settle(settlements, take)
        self._places.settled(sent, answer.outcomes)
        if deferred and not self._is_closed:  # else the backend releases them
            self.take_again(deferred)
        return Settled(answer.outcomes[: len(settlements)], answer.deliveries)

    def hold(self, deliveries: Sequence[Delivery]) -> None:
        """Hold jobs that were taken before, and that the broker can't take back: they may run here."""
        jobs = self._places.taken(deliveries, self._clock(), None, may_start=False)
        for job in jobs:
            job.is_kept = True
        self._turns.note_kept(jobs)
        self._held.add(jobs)

    def take_again(self, deliveries: Sequence[Delivery]) -> list[Delivery]:
        """Hold these until they may run, as their places were left when they were to go back."""
        self.hold(self._inner.take_again(deliveries))
        return []

    def _release(self, releases: list[Release], *, keep_places: bool) -> None:
        """Release held jobs; what fails is sent again with the next settlements.

        Args:
            releases: What to tell the broker.
            keep_places: Whether the jobs keep their places, or their positions in line. A job that returns
                after a delay must not: its position would block the jobs behind it.
        """
        if releases:
            gone = self._places.let_go([each.receipt for each in releases], keep_places=keep_places)
            jobs = {job.receipt: job.delivery for job in gone}  # another thread may have passed some on
            self._send_back(
                [Returning(each, jobs[each.receipt]) for each in releases if each.receipt in jobs]
            )

    def _send_back(self, returning: Sequence[Returning]) -> None:
        if returning:
            self._releases.add(returning)
            self._settle([], 0)

    def given_out(self) -> Sequence[str]:
        """Return those of the backend that neither wait here nor are about to be released."""
        here = {*self._held.receipts(), *(each.receipt for each in self._releases.unsent())}
        return [receipt for receipt in self._inner.given_out() if receipt not in here]

    # -- leases -----------------------------------------------------------------------------------

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        """Extend places and then leases, so that a place outlasts the lease of its job.

        If the store is away and jobs wait then, no lease is extended either: both end by their clocks. A job
        that lost its place is ``LOST``.
        """
        lost = self._places.extend(receipts)
        outcomes = self._extend([receipt for receipt in receipts if receipt not in lost])
        return [outcomes.get(receipt, SettleOutcome.LOST) for receipt in receipts]

    def _extend(self, receipts: Sequence[str]) -> dict[str, SettleOutcome]:
        """Extend the leases of these jobs, and of those that are held; the lost ones are held no longer."""
        with self._extending:
            now = self._clock()
            asked = [*receipts, *self._held.receipts()]
            outcomes = dict(zip(asked, self._inner.extend(asked), strict=True))
            cancelled = self._held.note_extended(outcomes, now)
        self._places.lose([each for each in receipts if outcomes[each] is SettleOutcome.LOST])
        if cancelled:
            self._end_cancelled(cancelled)
        return outcomes

    def _end_cancelled(self, jobs: list[HeldJob]) -> None:
        """End held jobs that are to be cancelled: they are released, which the broker makes their end."""
        self._places.end_held(jobs)
        self._send_back([Returning(Release(job.receipt), job.delivery) for job in jobs])

    def _renew_held(self) -> None:
        """Extend the leases of held jobs if it is time."""
        held = self._held.all()
        if held and self._clock() - held[0].renewed_s >= self._renewed_after_s:
            self._extend([])

    # -- passed on --------------------------------------------------------------------------------

    def report(self, receipt: str, progress: Progress) -> None:
        self._inner.report(receipt, progress)

    def allow_ahead(self, limit: int) -> None:
        """Allow as the backend, unless jobs have a rate: then only those are taken that have turns soon."""
        if self._turns.lets_all_start:
            self._ahead = limit
            self._allow_ahead()

    def _allow_ahead(self) -> None:
        """Let jobs come beside those that wait here: else the broker has none sent that may overtake them."""
        if not self._ahead:
            return
        waiting = sum(not job.has_place for job in self._held.all())
        look = self._bounded(self._places.look_size()) if waiting else 0
        self._inner.allow_ahead(self._ahead + waiting + look)

    def release_ahead(self) -> None:
        """Release the held jobs too; they keep their positions in line."""
        self._ahead = 0
        self._inner.release_ahead()  # first, or the broker would send here again what is released now
        if not self._is_closed:
            self._release(self._releases_of_held(), keep_places=True)
            self._places.pass_freed_on()

    def return_held(self) -> list[Delivery]:
        """Release the held jobs to their positions in the queue. They leave the lines for places.

        Returns:
            The jobs that the broker hasn't taken back. Who uses its consumer next has to :meth:`hold` them.
        """
        with suppress(JobsError):  # the call may have a job to return
            if self._held:
                self._inner.release_ahead()  # as in release_ahead
            self._release(self._releases_of_held(), keep_places=False)
        kept = self._places.let_go(self._held.receipts(), keep_places=False)
        return [*self._releases.unsent(), *(job.delivery for job in kept)]

    def _releases_of_held(self) -> list[Release]:
        return [Release(receipt) for receipt in self._held.receipts()]

    def interrupt(self) -> None:
        """End the wait of :meth:`receive`, for a job or for a limit."""
        self._wait.interrupt()

    def close(self) -> None:
        """Close the backend, which releases the jobs. Handlers that still run keep no place from now on."""
        self._is_closed = True
        self._places.close()
        self._inner.close()
        self._wait.look_again()
