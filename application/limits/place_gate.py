"""What lets a job start when it has its place."""

import os
import threading
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Sequence
from contextlib import suppress
from math import inf

from ...domain.errors import BackendUnavailable, JobsError
from ...ports import Delivery, Place, Release, Settlement, SettleOutcome
from ..broker.store_outage import StoreOutage
from .held_job import HeldJob
from .held_jobs import HeldJobs, without
from .next_request import NextRequest
from .no_limits import NoPlaceGate
from .pending_releases import Returning
from .places import Places
from .receive_wait import ReceiveWait
from .returned_places import ReturnedPlaces
from .running_places import RunningPlaces
from .spare_places import SparePlaces
from .waiting_window import WaitingWindow

_SHORT_S = 0.05
"""How long to wait at least before places are given back after an outage."""
_MORE_EACH_TIME = 4
"""How many times as many jobs each further request is for, if too few of those before got a place."""


class PlaceGate(NoPlaceGate):
    """Takes the places of held jobs when these may start, and gives back those of jobs that have ended.

    Args:
        places: Where the places are.
        held: The jobs of the consumer that may not start yet.
        wait: The wait of the thread in ``receive``.
        outage: Whether the store is away.
        at_once: How many jobs the consumer runs at once.
        lease_is_connection: Whether nothing but the end of the connection ends a lease.
        is_told: Whether to have the store tell of free places.
        send_back: Tells the broker of jobs that are held no longer.
        clock: The consumer's clock.
    """

    def __init__(
        self,
        places: Places,
        held: HeldJobs,
        wait: ReceiveWait,
        outage: StoreOutage,
        *,
        at_once: int,
        lease_is_connection: bool,
        is_told: bool,
        send_back: Callable[[list[Returning]], None],
        clock: Callable[[], float],
    ) -> None:
        super().__init__(held)
        self.places = places
        self._wait = wait
        self._outage = outage
        self._at_once = at_once
        self._is_told = is_told
        self._send_back = send_back
        self._clock = clock
        self.passed_on = RunningPlaces(places, lease_is_connection=lease_is_connection, clock=clock)
        """The places of the jobs that run, or are about to."""
        self._window = WaitingWindow(at_once, places.limit, clock)
        self._request = NextRequest(places.limit, clock)
        self._returned = ReturnedPlaces(places, outage)
        self._asking = threading.Lock()
        """Held while places are asked for, or passed on: a place that was just given isn't to be left."""
        self._pid = os.getpid()

    @property
    def running(self) -> int:
        return len(self.passed_on)

    @property
    def asks_again_s(self) -> float:
        return min(self._request.due_s, self._window.looks_again_s)

    @property
    def gives_back_s(self) -> float:
        return max(self._clock() + _SHORT_S, self._outage.until_s) if self._returned.are_left else inf

    # -- taking -----------------------------------------------------------------------------------

    def slots(self, max_jobs: int) -> int:
        return min(max_jobs, self._at_once) if self.places.are_contended else max_jobs

    def look_size(self) -> int:
        if self.places.keys.are_one or self._outage.is_on or not self._window.may_look:
            return 0
        return self._window.look_size(len(self.passed_on))

    def taken(
        self, deliveries: Sequence[Delivery], now: float, spare: SparePlaces | None, *, may_start: bool
    ) -> list[HeldJob]:
        if deliveries and self._is_told:
            self._request.is_told = self.places.watch(self._hear_of_place)
        keys = self.places.keys.of(deliveries)
        if spare is not None:
            spare.fit(deliveries, keys)
            if may_start and spare.suffice:
                self.passed_on.add(spare.pass_on(deliveries, keys))
                spare.leave_rest()
                return []
        jobs = super().taken(deliveries, now, spare, may_start=may_start)
        if spare is not None:
            spare.give(jobs, keys)
            spare.leave_rest()
            return jobs
        for job, key in zip(jobs, keys, strict=True):
            job.place = None if key is None else self.places.own(job.delivery, key)
            job.has_place = key is None
        return jobs

    def start(self, jobs: Iterable[HeldJob]) -> None:
        self.passed_on.add({job.receipt: job.place for job in jobs if job.place is not None})

    # -- asking -----------------------------------------------------------------------------------

    def ask(self, jobs: Sequence[HeldJob], max_jobs: int) -> list[Release]:
        self.give_back()
        if self._outage.is_on:
            self._decide_without_store(jobs)
            return []
        waiting = [job for job in jobs if not job.has_place]
        fresh = [job for job in waiting if job.asked_s is None and not job.is_kept]
        try:
            with self._asking, self._returned.leaving_again():
                jobs = self._held.among(jobs)
                is_due = self._ask(jobs, max_jobs)
        except BackendUnavailable as error:
            self._outage.begin(error)
            self._request.due_s = self._outage.until_s
            return []
        self._outage.end()
        job_s = self.passed_on.job_s
        asked = [job for job in waiting if job.asked_s is not None]
        self._request.plan(asked, self.passed_on.count(jobs), job_s, asked=is_due)
        self._window.note_look([job for job in fresh if job.asked_s is not None])
        unneeded = [] if self._free_slots(jobs, max_jobs) > 0 else self._unneeded(fresh)
        kept = self._window.send_back(without(waiting, unneeded), job_s)
        return [*(Release(job.receipt) for job in unneeded), *kept]

    def _unneeded(self, taken: Sequence[HeldJob]) -> list[HeldJob]:
        """Return the jobs of a look that found enough before these; others may have free slots."""
        return [job for job in taken if job.asked_s is None][self._at_once :]

    def _decide_without_store(self, jobs: Sequence[HeldJob]) -> None:
        """Decide which jobs have places while the store is away.

        A place from before the outage counts until shortly before its time is over.
        """
        for job in jobs:
            if not job.has_place or self.places.ends_before_lease(job):
                job.has_place = self.places.runs_when_away

    def _ask(self, jobs: list[HeldJob], max_jobs: int) -> bool:
        """Ask until there are jobs for all free slots, or all have been asked for.

        Returns:
            Whether it was time to ask for all again.

        The first requests are for few jobs, as each place that is given but can't be used has to be left.
        """
        request, here = self._request, self.passed_on
        free = self._free_slots(jobs, max_jobs)
        is_due = request.is_due and free > 0
        freed = request.take_freed() if free > 0 else Counter[str]()  # first: what is freed later counts
        most, looks_again, had = free, is_due, {job.receipt for job in jobs if job.has_place}
        while self.places.ask(jobs, here.count(jobs), most=most, freed=freed, looks_again=looks_again):
            granted = [job for job in jobs if job.has_place and job.receipt not in had]
            if len(granted) > free > 0:
                self._leave_lines({job.place.key for job in granted[free:] if job.place}, granted[free:])
            if len(granted) >= free:
                request.note_freed(freed.elements())
                break
            most, looks_again = most * _MORE_EACH_TIME, False
        return is_due

    def _free_slots(self, jobs: Sequence[HeldJob], max_jobs: int) -> int:
        """Return for how many more jobs to have places: while some wait, for none before it can start."""
        return self.slots(max_jobs) - sum(job.has_place for job in jobs)

    # -- passing on -------------------------------------------------------------------------------

    def _hear_of_place(self, key: str | None) -> None:
        """Ask for a place of ``key``, for which a job here is next; or pass it on. Any thread calls this."""
        if key is None:
            self._request.note_missed()
        else:
            self._request.note_freed([key])
        if self._wait.wanted:
            self._wait.end()
        else:
            with suppress(JobsError):  # else the position ends by itself
                self.pass_freed_on()

    def pass_freed_on(self) -> None:
        """Leave the lines in which jobs of this consumer are next while none of its slots is free.

        The jobs behind them get the places. Where none is behind them, these jobs go back, as others may have
        free slots. What stays asks again when a slot is free here.
        """
        while (
            self._request.some_are_free
            and not self._wait.wanted
            and len(self.passed_on) >= self._at_once
            and self._asking.acquire(blocking=False)  # else who asks now does this after it
        ):
            try:
                gone = self._held.take(self._leave_to_others(set(self._request.take_freed())))
            finally:
                self._asking.release()
            with suppress(JobsError):  # else they go back with the next settlements
                self._send_back([Returning(Release(job.receipt), job.delivery) for job in gone])

    def _leave_to_others(self, keys: Collection[str]) -> list[str]:
        """Leave the lines of keys; return the receipts of the jobs for whose places nobody else waits."""
        waiting = {
            job.receipt: job.place.key
            for job in self._held.all()
            if job.place is not None and not job.has_place and job.place.key in keys
        }
        reached: Collection[str] = keys  # where the store is away

        def send(left: list[Place]) -> None:
            nonlocal reached
            reached = self.places.reached(set(waiting.values()), leaving=left)

        self._leave_lines(keys, send=send)
        return [receipt for receipt, key in waiting.items() if key not in reached]

    def leave_lines_of(self, jobs: Iterable[HeldJob]) -> None:
        asked = [job for job in jobs if job.place is not None and job.asked_s is not None]
        if not asked or self._outage.is_on:
            return
        self._leave_lines((), asked)
        self._request.note_freed(job.place.key for job in asked if job.place is not None)
        self._wait.look_again()  # jobs of other keys ask for these places at once

    def _leave_lines(
        self,
        keys: Collection[str],
        granted: Sequence[HeldJob] = (),
        send: Callable[[list[Place]], None] | None = None,
    ) -> None:
        """Leave the lines of keys, and places that can't be used; their jobs stay, and ask again later.

        All jobs of a key leave its line, or the later ones would start before the earlier.

        Args:
            keys: Whose lines to leave.
            granted: The jobs whose places to leave.
            send: As for :meth:`ReturnedPlaces.leave`.
        """
        left = [
            job
            for job in self._held.all()
            if job.place is not None
            and job.asked_s is not None
            and ((not job.has_place and job.place.key in keys) or job in granted)
        ]
        for job in left:
            job.has_place, job.asked_s = False, None
        self._leave(delayed=_places_of(left), send=send)

    # -- settling ---------------------------------------------------------------------------------

    def before_settling(self, settlements: Sequence[Settlement], take: int) -> SparePlaces | None:
        if not settlements:
            return None
        ended, delayed, kept = self.passed_on.end(settlements)
        self._shorten(kept)
        if not (ended or delayed):
            return None
        held, spare = self._held.all(), None
        passes_on = take and self.places.may_pass_on and not self._outage.is_on
        if passes_on and all(job.has_place for job in held):
            spare = SparePlaces(self.places, self._returned, self._outage, ended)
            ended = spare.to_leave
        if held:
            self._window.note_freed([*ended, *delayed], held)
            self._exchange(ended, delayed, take or self._wait.wanted)
            self._wait.end()  # the thread in receive finds the next jobs for these places at once
        else:
            self._leave(ended, delayed)
        return spare

    def _exchange(self, ended: Sequence[Place], delayed: Sequence[Place], wanted: int) -> None:
        """Give places back, and ask for those of the next jobs here, for as many as have free slots."""
        unasked = Counter(place.key for place in [*ended, *delayed])

        def send(left: list[Place]) -> None:
            nonlocal unasked
            with self._returned.leaving_again():
                jobs = self._held.all()
                unasked = self.places.exchange(left, jobs, most=self._free_slots(jobs, wanted))

        with self._asking, suppress(JobsError):  # as in _leave
            self._returned.leave(ended, delayed, send=send)
        self._request.note_freed(unasked.elements())

    def settled(self, settlements: Sequence[Settlement], outcomes: Sequence[SettleOutcome]) -> None:
        if left := self.passed_on.cancelled(settlements, outcomes):
            self._leave(left)

    def let_go(self, receipts: Iterable[str], *, keep_places: bool) -> list[HeldJob]:
        with self._asking:  # else the store may get last what asks for the places of these jobs
            jobs = self._held.take(receipts)
            if keep_places:
                left, kept = self.passed_on.release(jobs)
                self._leave(left)
                self._shorten(kept)
            else:
                self._leave(delayed=_places_of(jobs))
        return jobs

    def end_held(self, jobs: Sequence[HeldJob]) -> None:
        self._leave(_places_of(jobs))

    # -- keeping ----------------------------------------------------------------------------------

    def extend(self, receipts: Sequence[str]) -> set[str]:
        with self._returned.leaving_again():
            return self.passed_on.extend(receipts)

    def lose(self, receipts: Sequence[str]) -> None:
        self.passed_on.lose(receipts)

    def give_back(self) -> None:
        self._leave()

    def close(self) -> None:
        self.places.stop_watching()
        if os.getpid() != self._pid:  # after a fork, the parent has the places
            return
        with self._asking:  # as in let_go
            left, kept = self.passed_on.end_all(self._held.take(self._held.receipts()))
            self._leave(left)
            self._shorten(kept)

    def _leave(
        self,
        ended: Sequence[Place] = (),
        delayed: Sequence[Place] = (),
        send: Callable[[list[Place]], None] | None = None,
    ) -> None:
        with suppress(JobsError):  # else they end by themselves; no settlement may be lost for it
            self._returned.leave(ended, delayed, send=send)

    def _shorten(self, kept: list[Place]) -> None:
        if not kept or self._outage.is_on:
            return
        try:
            self.places.shorten(kept)
        except JobsError as error:  # they end later by themselves
            if isinstance(error, BackendUnavailable):
                self._outage.begin(error)


def _places_of(jobs: Iterable[HeldJob]) -> list[Place]:
    return [job.place for job in jobs if job.place is not None]
