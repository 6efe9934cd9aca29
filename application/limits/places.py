"""The places of a concurrency limit, for the jobs of one consumer.

The coordination store decides who gets a place: its ``take_places`` compares the count with the limit, in
``coordination.py`` of each adapter, and there in a script of Redis or a function of PostgreSQL.
:meth:`Limit.key_of` decides which jobs are counted together. This module decides when to ask, and for which
holder.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from itertools import count
from math import inf
from typing import Any

from ...domain import JobSchema
from ...domain.errors import BackendUnavailable
from ...domain.limits import Limit
from ...ports import CoordinationStore, Delivery, Place
from .held_job import HeldJob
from .keys import Keys

_OUTLASTS = 1.1
"""How much longer a place lasts than a lease: a job must not go to another while its place is free."""
_WAITS_S = 5.0
"""For how long a job that waits keeps its position in line, unless it asks again."""
_CONTENDED_S = 1.0
"""For how long places count as scarce after a job had to wait for one."""
_REFRESHED_AFTER = 1 / 3
"""The part of its time after which a place, or a position in line, is extended, as leases are."""
_CHECKED_S = 0.05
"""For how long a limit counts as not reached after the store had one more place."""
_CHECK_S = 0.001
"""For how long the place lasts that is taken to see that."""


class ConsumerPlace(Place):
    """A place whose holder is a consumer, which passes it on from job to job; others are of one job."""

    taken_s = -inf
    """When the store was asked for it, or to extend it, for the last time that it gave it."""


class Places:
    """Takes, extends and leaves the places of jobs.

    The holder of a place is a job with its attempt and its crashes. So a job that is released keeps its
    place, or its position in line, until it is delivered again with the same attempt and crashes. A consumer
    that lost a job can't leave the place of the next one who runs it.

    While a limit isn't reached, a consumer that goes from one batch to the next takes places in its own name,
    and passes them on, so that they cost the store nothing (ADR 79).

    Args:
        store: Where the places are.
        queue: The queue's name.
        schema: What the jobs are.
        limit: How many may run at once, and by which fields.
        lease_s: For how long a job is leased. Where the connection is the lease, for how long the place of a
            consumer that died is missed.
        max_body_bytes: The largest body that is looked at.
        clock: The consumer's clock.
    """

    def __init__(
        self,
        store: CoordinationStore,
        queue: str,
        schema: JobSchema[Any, Any],
        limit: Limit,
        *,
        lease_s: float,
        max_body_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._limit = limit
        self.limit = limit.count
        """How many places a key has."""
        self._clock = clock
        self.keys = Keys(queue, schema, limit, max_body_bytes=max_body_bytes)
        self._lasts_s = lease_s * _OUTLASTS
        self._passed_on_for_s = self._lasts_s - lease_s
        self._token = secrets.token_hex(8)
        self._numbers = count()
        self._checked_s: dict[str, float] = {}
        """By key, when the store last had one more place."""
        self._reached_s = -inf
        """When it last had none."""
        self._waits_s = min(_WAITS_S, self._lasts_s)
        self._contended_s = -inf
        """When a request was last refused in part."""
        self._extended_s = clock()
        self.runs_when_away = limit.when_store_is_away == "run"
        """Whether jobs run uncounted while the store is away."""

    @property
    def are_contended(self) -> bool:
        """Whether some job had to wait lately: then no place is to be taken before it is needed."""
        return self._clock() - self._contended_s < _CONTENDED_S

    def own(self, delivery: Delivery, key: str) -> Place:
        """Return what a job of this key must have to run, in the job's own name."""
        return Place(key, self._limit.count, f"{delivery.id}/{delivery.attempt}/{delivery.crashes}")

    # -- passing on -------------------------------------------------------------------------------

    @property
    def may_pass_on(self) -> bool:
        """Whether no limit was reached lately."""
        return not self.are_contended and self._clock() - self._reached_s >= _CONTENDED_S

    @property
    def passed_on_since_s(self) -> float:
        """When a place must have been taken to be passed on: it must outlast the lease of the next job."""
        return self._clock() - self._passed_on_for_s

    def reached(self, keys: Collection[str]) -> list[str]:
        """Return the keys whose limits are reached, or may be since they were last looked at.

        To see that, the store is asked for one more place of each key, which ends at once.

        Raises:
            BackendUnavailable: the store is away.
        """
        now = self._clock()
        checked_s = {key: at for key, at in self._checked_s.items() if now - at <= _CHECKED_S}
        due = [key for key in keys if key not in checked_s]
        if due:
            more = [Place(key, self._limit.count, f"{self._token}/more") for key in due]
            has = self._store.take_places(more, ttl_s=_CHECK_S)
            checked_s |= {key: now for key, has_it in zip(due, has, strict=True) if has_it}
            if not all(has):
                self._reached_s = now
        self._checked_s = checked_s
        return [key for key in due if key not in checked_s]

    def more(self, needed: Mapping[str, int]) -> list[ConsumerPlace]:
        """Return places to ask for, which may be passed on; of no key more than there can be.

        Args:
            needed: How many, by key.
        """
        limit, token, numbers = self._limit.count, self._token, self._numbers
        return [
            ConsumerPlace(key, limit, f"{token}/{next(numbers)}")
            for key, count in needed.items()
            for _ in range(min(count, limit))
        ]

    def take(self, places: Sequence[ConsumerPlace]) -> list[bool]:
        """Ask for places, and return which of them the store gave; the others wait in line.

        Raises:
            BackendUnavailable: the store is away. It may have given them.
        """
        now = self._clock()
        has = self._store.take_places(places, ttl_s=self._lasts_s)
        _note_taken(places, has, now)
        if not all(has):
            self._contended_s = self._clock()
        return has

    # -- keeping ------------------------------------------------------------------------------------

    def ends_before_lease(self, job: HeldJob) -> bool:
        """Whether the place of a held job ends before its lease, so that the job must not start with it."""
        return job.asked_s is not None and job.asked_s + self._passed_on_for_s < job.renewed_s

    def shorten(self, places: Sequence[Place]) -> None:
        """Have places of released jobs end soon, as perhaps nobody has room for these jobs (ADR 72).

        Raises:
            BackendUnavailable: the store is away. They end later by themselves.
        """
        self._store.take_places(places, ttl_s=self._waits_s)

    # -- asking -----------------------------------------------------------------------------------

    def ask(
        self, jobs: Sequence[HeldJob], here: Mapping[str, int], *, looks_again: bool, some_are_free: bool
    ) -> None:
        """Ask for the places of those jobs that may get one, and extend those that are due, in one request.

        Args:
            jobs: In the order in which they wait.
            here: How many places this consumer has, by key. If it has all of a key, nobody can free one.
            looks_again: Whether to ask again for jobs that were refused, and not only for new ones.
            some_are_free: Whether it has given some back since the last time.

        Raises:
            BackendUnavailable: the store is away. No job has its place any more, unless jobs run then.
        """
        asked = self._to_ask(jobs, here, looks_again)
        if not asked:
            return
        now = self._clock()
        try:
            self._take(asked, self._lasts_s if some_are_free or not self.are_contended else self._waits_s)
        except BackendUnavailable:
            for job in asked:
                job.has_place = self.runs_when_away
            raise
        finally:
            for job in asked:
                job.asked_s = now

    def extend(self, places: Sequence[Place], *, if_due: bool) -> set[str]:
        """Extend the places of jobs, and return the holders that have lost theirs.

        Args:
            places: Those of jobs that run, or are about to.
            if_due: Whether to do so only if the last time was a while ago.

        Raises:
            BackendUnavailable: the store is away, and jobs wait then.
        """
        now = self._clock()
        if not places or (if_due and now - self._extended_s < self._lasts_s * _REFRESHED_AFTER):
            return set()
        try:
            has = self._store.take_places(places, ttl_s=self._lasts_s)
        except BackendUnavailable:
            if self.runs_when_away:
                return set()
            raise
        self._extended_s = now
        _note_taken(places, has, now)
        if self.runs_when_away:  # it may have begun uncounted
            return set()
        return {place.holder for place, has_it in zip(places, has, strict=True) if not has_it}

    def leave(self, places: Sequence[Place]) -> None:
        """Give places back, or positions in line.

        Raises:
            BackendUnavailable: the store is away. They end by themselves.
        """
        if places:
            self._store.leave_places(places)

    def _to_ask(self, jobs: Sequence[HeldJob], here: Mapping[str, int], looks_again: bool) -> list[HeldJob]:
        """Choose the jobs to ask for: behind those that wait for all places of their key, none gets one."""
        now, asked = self._clock(), []
        ahead = Counter(here)
        for job in jobs:
            if job.place is None:
                continue
            age_s = inf if job.asked_s is None else now - job.asked_s
            if job.has_place and job.asked_s is not None:
                is_due = age_s >= self._lasts_s * _REFRESHED_AFTER
            else:
                may_get_one = looks_again and ahead[job.place.key] < self._limit.count
                is_due = may_get_one or age_s >= self._waits_s * _REFRESHED_AFTER
                ahead[job.place.key] += 1
            if is_due:
                asked.append(job)
        return asked

    def _take(self, jobs: list[HeldJob], ttl_s: float) -> None:
        """Ask for the places of ``jobs``, for so long.

        Positions in line last for a short time, or a dead consumer's would keep places empty for as long as a
        lease. A place lasts longer than a lease. So whichever part of the answer has the wrong time is asked
        for again.
        """
        granted = self._grant(jobs, ttl_s)
        short = granted if ttl_s < self._lasts_s else []
        refused = [job for job in jobs if not job.has_place]
        if refused:
            self._contended_s = self._clock()
            if self._have_wait_in_their_own_names(refused) or ttl_s > self._waits_s:
                short = [*short, *self._grant(refused, self._waits_s)]
        if short:
            self._grant(short, self._lasts_s)

    def _have_wait_in_their_own_names(self, jobs: list[HeldJob]) -> bool:
        """Have jobs that must wait do so in their own names, so that their positions go where they go.

        Returns:
            Whether some of them didn't.
        """
        theirs = [(job, job.place) for job in jobs if isinstance(job.place, ConsumerPlace)]
        self.leave([place for _, place in theirs])
        for job, place in theirs:
            job.place = self.own(job.delivery, place.key)
        return bool(theirs)

    def _grant(self, jobs: list[HeldJob], ttl_s: float) -> list[HeldJob]:
        places, now = [job.place for job in jobs if job.place is not None], self._clock()
        has = self._store.take_places(places, ttl_s=ttl_s)
        _note_taken(places, has, now)
        for job, has_place in zip(jobs, has, strict=True):
            job.has_place = has_place
        return [job for job in jobs if job.has_place]


def _note_taken(places: Iterable[Place], has: Iterable[bool], now: float) -> None:
    for place, has_it in zip(places, has, strict=True):
        if has_it and isinstance(place, ConsumerPlace):
            place.taken_s = now
