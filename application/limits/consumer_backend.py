"""A consumer backend that hands out a job once it has its place and its turn, and holds it until then."""

import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from logging import Logger
from time import monotonic

from ...domain.errors import BackendUnavailable, JobsError, QueueNotFound
from ...ports import ConsumerBackend, Delivery, Place, Release, Settled, Settlement, SettleOutcome
from ..consumer_decorator import ConsumerDecorator
from .held_job import HeldJob
from .held_jobs import HeldJobs
from .next_request import NextRequest
from .outage import StoreOutage
from .pending_releases import PendingReleases
from .places import Places
from .returned_places import ReturnedPlaces
from .running_places import RunningPlaces
from .spare_places import SparePlaces
from .turns import Turns
from .waiting_window import WaitingWindow

_IDLE_S = 0.5
"""How long to wait at most while jobs wait here: places and positions in line must be extended."""
_SHORT_S = 0.05
"""How long to wait at most for the turn of a job, or before places are given back after an outage."""
_RENEWED_AFTER = 1 / 6
"""The part of a lease after which that of a held job is extended."""
_CHECKED_S = 0.05
"""After how long to check that a held job is still ours, where the connection is the lease."""


class LimitedConsumerBackend(ConsumerDecorator):
    """Passes on the jobs of another consumer backend when the limits of their queue allow it.

    A job that must wait stays leased here, or goes back without an attempt. It counts as in flight meanwhile.

    Args:
        backend: Where the jobs come from.
        places: The concurrency limit, if there is one.
        turns: The rate, if there is one.
        at_once: How many jobs the consumer runs at once.
        logger: Where it is told that the store is away.
        clock: A clock for everything that this waits for.
    """

    def __init__(
        self,
        backend: ConsumerBackend,
        places: Places | None,
        turns: Turns | None,
        at_once: int,
        logger: Logger,
        clock: Callable[[], float] = monotonic,
    ) -> None:
        super().__init__(backend)
        self._places, self._turns = places, turns
        self._at_once = at_once
        self._clock = clock
        lease_s = backend.lease_s
        self._renewed_after_s = _CHECKED_S if lease_s is None else lease_s * _RENEWED_AFTER
        self._extending = threading.Lock()
        self._held = HeldJobs()
        self._running = self._window = self._request = None
        if places is not None:
            self._running = RunningPlaces(places, lease_is_connection=lease_s is None, clock=clock)
            self._window = WaitingWindow(at_once, places.limit, clock)
            self._request = NextRequest(places.limit, clock)
        self._releases = PendingReleases(backend, clock)
        self._wake = threading.Event()
        self._interrupted = False
        self._is_receiving = False
        """Whether a thread waits for the broker while jobs wait here."""
        runs = all(each.runs_when_away for each in (places, turns) if each is not None)
        self._outage = StoreOutage(clock, logger, runs_jobs=runs)
        self._returned = None if places is None else ReturnedPlaces(places, self._outage)
        self._is_closed = False
        self._pid = os.getpid()

    @property
    def held_back(self) -> int:
        """How many jobs wait here."""
        return len(self._held) + len(self._releases) + self._inner.held_back

    # -- receiving --------------------------------------------------------------------------------

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        """Wait for jobs that may run; otherwise as the backend's."""
        give_up_s = self._clock() + timeout_s
        while True:
            self._wake.clear()  # first: what happens from here on ends the wait below
            if self._interrupted:
                self._interrupted = False
                return []
            left_s = max(0.0, give_up_s - self._clock())
            if ready := self._take_ready(max_jobs, left_s):
                return ready
            if not self._wait(max_jobs, left_s) and not left_s:
                return []

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        """Settle as the backend, and take jobs that may run at once."""
        spare = self._leave_places(settlements, passes_on=take > 0)
        room = 0 if not take or (self._turns is not None and self._turns.none_is_due) else self._room(take)
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
        return Settled(answer.outcomes, ready)

    def _take_ready(self, max_jobs: int, left_s: float) -> list[Delivery]:
        """Return the jobs that may run; reserve turns for others that may within ``left_s`` seconds."""
        if self._releases.due_s <= self._clock():
            self._settle([], 0)
        self._renew_held()
        jobs = self._held.all()
        if not jobs:
            self._leave()
            return []
        self._ask_for_places(jobs)
        jobs = [job for job in jobs if job.has_place]
        if self._turns is not None and jobs:
            jobs = self._reserve_turns(self._turns, jobs, left_s)
        return self._pass_on(jobs[:max_jobs])

    def _ask_for_places(self, jobs: list[HeldJob]) -> None:
        """Ask for the places of jobs; what is too much to keep goes back with a delay."""
        places, running, window, request = self._places, self._running, self._window, self._request
        if places is None or running is None or window is None or request is None:
            return
        self._leave()
        if self._outage.is_on:
            for job in jobs:
                if not job.has_place or places.ends_before_lease(job):
                    job.has_place = places.runs_when_away
            return
        waiting = [job for job in jobs if not job.has_place]
        fresh = [job for job in waiting if job.asked_s is None]
        is_due, some_are_free = request.is_due, request.take_freed()  # first: what is freed later counts
        try:
            places.ask(jobs, running.count(jobs), looks_again=is_due, some_are_free=some_are_free)
        except BackendUnavailable as error:
            self._outage.begin(error)
            request.due_s = self._outage.until_s
            return
        self._outage.end()
        request.plan(waiting, running.count(jobs), running.job_s, asked=is_due)
        window.note_look(fresh)
        self._release(window.send_back(waiting, running.job_s), keep_places=False)

    def _reserve_turns(self, turns: Turns, jobs: list[HeldJob], left_s: float) -> list[HeldJob]:
        """Return those whose turn has come; those whose turn is far away go back."""
        if self._outage.is_on:
            return jobs if turns.runs_when_away else []
        try:
            far = turns.reserve(jobs, left_s)
        except BackendUnavailable as error:
            self._outage.begin(error)
            return jobs if turns.runs_when_away else []
        self._outage.end()
        self._release([Release(job.receipt) for job in far], keep_places=False)
        return [job for job in jobs if turns.is_due(job)]

    def _pass_on(self, jobs: list[HeldJob]) -> list[Delivery]:
        """Hold these jobs no longer; another thread may have released some."""
        passed_on = self._held.take([job.receipt for job in jobs])
        if self._running is not None:
            self._running.add({job.receipt: job.place for job in passed_on if job.place is not None})
        return [job.delivery for job in passed_on]

    # -- waiting ----------------------------------------------------------------------------------

    def _wait(self, max_jobs: int, left_s: float) -> bool:
        """Wait until something may have changed; return whether jobs came."""
        room, wait_s = self._room(max_jobs), min(left_s, self._changes_in_s())
        if not room:
            self._wake.wait(wait_s)
            return False
        self._is_receiving = True
        try:
            deliveries = self._inner.receive(room, 0.0 if self._wake.is_set() else wait_s)
        except QueueNotFound:
            self._held.clear()
            raise
        finally:
            self._is_receiving = False
        self._hold(deliveries)
        return bool(deliveries)

    def _changes_in_s(self) -> float:
        """In how many seconds something changes of which nobody tells."""
        now, moments = self._clock(), [self._releases.due_s]
        jobs = self._held.all()
        if jobs:
            moments += [now + _IDLE_S, jobs[0].renewed_s + self._renewed_after_s]
            if self._outage.is_on:
                moments.append(self._outage.until_s)
            elif self._request is not None and self._window is not None:
                moments += [self._request.due_s, self._window.looks_again_s]
            if self._turns is not None:
                moments.append(now + _SHORT_S)
            moments += [job.turn_s for job in jobs if job.turn_s is not None]
        elif self._turns is not None and self._turns.closed_s:
            moments.append(now + self._turns.closed_s)
        if self._returned is not None and self._returned.are_left:
            moments.append(max(now + _SHORT_S, self._outage.until_s))
        return max(0.0, min(moments) - now)

    def _room(self, max_jobs: int) -> int:
        """Return how many jobs to take."""
        if self._is_closed:
            return max_jobs  # the backend says so
        jobs = self._held.all()
        waiting = sum(not job.has_place for job in jobs)
        at_hand = len(jobs) - waiting
        if self._places is not None and self._places.are_contended:
            max_jobs = min(max_jobs, self._at_once)
        room = max_jobs - at_hand
        if self._turns is not None:
            room = 0 if self._turns.closed_s else min(room, self._turns.ahead - at_hand)
        if waiting and room > 0:
            room = self._size_of_look()
        return max(0, room)

    def _size_of_look(self) -> int:
        """Return how many jobs to take to find one that may run behind those that wait."""
        places, running, window = self._places, self._running, self._window
        if places is None or running is None or window is None or places.keys.are_one:
            return 0  # none can overtake another
        return window.look_size(len(running)) if window.may_look and not self._outage.is_on else 0

    def _hold(self, deliveries: Sequence[Delivery], spare: SparePlaces | None = None) -> list[Delivery]:
        """Hold jobs until they may run; return those that may at once, as they have got spare places."""
        now, places, running = self._clock(), self._places, self._running
        keys = [] if places is None else places.keys.of(deliveries)
        if spare is not None:
            spare.fit(deliveries, keys)
            if spare.suffice and running is not None and not self._held and self._turns is None:
                running.add(spare.pass_on(deliveries, keys))
                spare.leave_rest()
                return list(deliveries)
        jobs = [HeldJob(delivery, now) for delivery in deliveries]
        if spare is not None:
            spare.give(jobs, keys)
            spare.leave_rest()
        elif places is not None:
            for job, key in zip(jobs, keys, strict=True):
                job.place = None if key is None else places.own(job.delivery, key)
                job.has_place = key is None
        self._held.add(jobs)
        return []

    # -- settling ---------------------------------------------------------------------------------

    def _leave_places(self, settlements: Sequence[Settlement], *, passes_on: bool) -> SparePlaces | None:
        """Give back the places of jobs that have ended, before another consumer can receive them again.

        Returns:
            Those that aren't given back, as they may be passed on.
        """
        places, running, returned, spare = self._places, self._running, self._returned, None
        if places is None or running is None or returned is None or not settlements:
            return None
        ended, delayed, kept = running.end(settlements)
        self._shorten(kept)
        if not (ended or delayed):
            return None
        passes_on = passes_on and places.may_pass_on and not self._outage.is_on
        if passes_on and all(job.has_place for job in self._held.all()):
            spare = SparePlaces(places, returned, self._outage, ended)
            ended = spare.to_leave
        self._leave(ended, delayed)
        if self._held and self._window is not None and self._request is not None:
            self._window.note_freed([*ended, *delayed], self._held.all())
            self._request.note_freed()
            self._end_wait()  # the thread in receive finds the next jobs for these places at once
        return spare

    def _leave(self, ended: Sequence[Place] = (), delayed: Sequence[Place] = ()) -> None:
        if self._returned is not None:
            with suppress(JobsError):  # else they end by themselves; no settlement may be lost for it
                self._returned.leave(ended, delayed)

    def _shorten(self, kept: list[Place]) -> None:
        if self._places is None or not kept or self._outage.is_on:
            return
        try:
            self._places.shorten(kept)
        except BackendUnavailable as error:
            self._outage.begin(error)
        except JobsError as error:  # likewise
            self.logger.debug("places of released jobs end later: %s", error)

    def _release(self, releases: list[Release], *, keep_places: bool) -> None:
        """Release held jobs; what fails is sent again with the next settlements.

        Args:
            releases: What to tell the broker.
            keep_places: Whether the jobs keep their places, or their positions in line. A job that returns
                after a delay must not: its position would block the jobs behind it.
        """
        if not releases:
            return
        jobs = self._held.take([each.receipt for each in releases])
        self._releases.add(releases)
        if self._running is not None and keep_places:
            left, kept = self._running.release(jobs)
            self._leave(left)
            self._shorten(kept)
        else:
            self._leave(delayed=[job.place for job in jobs if job.place is not None])
        self._settle([], 0)

    def _settle(self, settlements: Sequence[Settlement], take: int) -> Settled:
        sent, answer = self._releases.settle(settlements, take)
        if self._running is not None and (left := self._running.cancelled(sent, answer.outcomes)):
            self._leave(left)
        return Settled(answer.outcomes[: len(settlements)], answer.deliveries)

    # -- leases -----------------------------------------------------------------------------------

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        """Extend places and then leases, so that a place outlasts the lease of its job.

        If the store is away and jobs wait then, no lease is extended either: both end by their clocks. A job
        that lost its place is ``LOST``.
        """
        lost = set[str]() if self._running is None else self._running.extend(receipts)
        outcomes = self._extend([receipt for receipt in receipts if receipt not in lost])
        return [outcomes.get(receipt, SettleOutcome.LOST) for receipt in receipts]

    def _extend(self, receipts: Sequence[str]) -> dict[str, SettleOutcome]:
        """Extend the leases of these jobs, and of those that are held; the lost ones are held no longer."""
        with self._extending:
            now = self._clock()
            asked = [*receipts, *self._held.receipts()]
            outcomes = dict(zip(asked, self._inner.extend(asked), strict=True))
            cancelled = self._held.note_extended(outcomes, now)
        if self._running is not None:
            self._running.lose([each for each in receipts if outcomes[each] is SettleOutcome.LOST])
        if cancelled:
            self._end_cancelled(cancelled)
        return outcomes

    def _end_cancelled(self, jobs: list[HeldJob]) -> None:
        """End held jobs that are to be cancelled: they are released, which the broker makes their end."""
        self._leave([job.place for job in jobs if job.place is not None])
        self._releases.add([Release(job.receipt) for job in jobs])
        self._settle([], 0)

    def _renew_held(self) -> None:
        """Extend the leases of held jobs if it is time."""
        held = self._held.all()
        if held and self._clock() - held[0].renewed_s >= self._renewed_after_s:
            self._extend([])

    # -- passed on --------------------------------------------------------------------------------

    def allow_ahead(self, limit: int) -> None:
        """Allow as the backend, unless jobs have a rate: then only those are taken that have turns soon."""
        if self._turns is None:
            self._inner.allow_ahead(limit)

    def release_ahead(self) -> None:
        """Release the held jobs too; they keep their positions in line."""
        self._inner.release_ahead()  # first, or the broker would send here again what is released now
        receipts = self._held.receipts()
        if receipts and not self._is_closed:
            self._release([Release(receipt) for receipt in receipts], keep_places=True)

    def interrupt(self) -> None:
        """End the wait of :meth:`receive`, for a job or for a limit."""
        self._interrupted = True
        self._wake.set()
        self._inner.interrupt()

    def close(self) -> None:
        """Close the backend, which releases the jobs. Handlers that still run keep no place from now on."""
        self._is_closed = True
        if self._running is not None and os.getpid() == self._pid:  # after a fork, the parent has them
            left, kept = self._running.end_all(self._held.take(self._held.receipts()))
            self._leave(left)
            self._shorten(kept)
        self._inner.close()
        self._wake.set()

    def _end_wait(self) -> None:
        """Have the thread in :meth:`receive` look again at once."""
        self._wake.set()
        if self._is_receiving:
            with suppress(JobsError):  # closed, or the broker is away: then nothing waits there
                self._inner.interrupt()
