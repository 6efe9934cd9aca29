"""The places of a concurrency limit, for the jobs of one consumer.

The coordination store decides who gets a place: its ``take_places`` compares the count with the limit, in
``coordination.py`` of each adapter, and there in a script of Redis or a function of PostgreSQL.
:meth:`Limit.key_of` decides which jobs are counted together. This module decides when to ask, and for which
holder.
"""

import secrets
from collections import Counter
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from contextlib import suppress
from itertools import count
from math import inf
from typing import Any

from ...domain import JobSchema
from ...domain.errors import BackendUnavailable, UnsupportedCapability
from ...domain.limits import Limit
from ...ports import CoordinationStore, Delivery, Place, PlaceWatch
from .held_job import HeldJob
from .in_force import InForce
from .keys import Keys, prefix_of
from .next_request import TOLD_S

_OUTLASTS = 1.1
"""How much longer a place lasts than a lease: a job must not go to another while its place is free."""
_WAITS_S = 5.0
"""For how long a job that waits keeps its position in line, unless it asks again."""
_CONTENDED_S = 2.0
"""For how long places count as scarce after a job had to wait for one."""
_REFRESHED_AFTER = 1 / 3
"""The part of its time after which a place, or a position in line, is extended, as leases are."""
_CHECKED_S = 0.05
"""For how long a limit counts as not reached after the store had one more place."""
_CHECK_S = 0.0
"""For how long the place lasts that is taken to see that: for nobody, who would be told of its end?"""


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
        in_force: How many may run at once, and by which fields.
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
        in_force: InForce[Limit],
        *,
        lease_s: float,
        max_body_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._in_force, limit = in_force, in_force.declared
        in_force.listen(self._hear_of_change)
        self._tell: Callable[[str | None], None] = lambda key: None
        self._clock = clock
        self.keys = Keys(prefix_of(queue, limit), schema, limit, max_body_bytes=max_body_bytes)
        self._holders = "" if limit.name is None else f"{queue}/"
        """What the names of holders begin with: jobs of two queues may have one id."""
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
        self._watch: PlaceWatch | None = None
        self.runs_when_away = limit.when_store_is_away == "run"
        """Whether jobs run uncounted while the store is away."""

    def limit(self) -> int:
        """How many places a key has, as far as is known."""
        return self._in_force.present.count

    @property
    def are_contended(self) -> bool:
        """Whether some job had to wait lately: then no place is to be taken before it is needed."""
        return self._clock() - self._contended_s < _CONTENDED_S

    def own(self, delivery: Delivery, key: str) -> Place:
        """Return what a job of this key must have to run, in the job's own name."""
        holder = f"{self._holders}{delivery.id}/{delivery.attempt}/{delivery.crashes}"
        return Place(key, self.limit(), holder, self._watch_name)

    # -- being told -------------------------------------------------------------------------------

    def watch(self, tell: Callable[[str | None], None]) -> bool:
        """Have ``tell`` called with a key when a waiting job is next; return whether the store does that.

        From now on, the places of jobs name this consumer. It is also called, with None, when there are more
        places or fewer.
        """
        self._tell = tell
        if self._watch is None and self._store.tells_freed_places:
            with suppress(UnsupportedCapability):  # not where this store is
                self._watch = self._store.watch_places(tell)
        return self._watch is not None

    def stop_watching(self) -> None:
        """Be told no more."""
        if self._watch is not None:
            self._watch.close()

    @property
    def _watch_name(self) -> str:
        return "" if self._watch is None else self._watch.name

    def _hear_of_change(self) -> None:
        self._tell(None)

    # -- passing on -------------------------------------------------------------------------------

    @property
    def may_pass_on(self) -> bool:
        """Whether no limit was reached lately."""
        return not self.are_contended and self._clock() - self._reached_s >= _CONTENDED_S

    @property
    def passed_on_since_s(self) -> float:
        """When a place must have been taken to be passed on: it must outlast the lease of the next job."""
        return self._clock() - self._passed_on_for_s

    def reached(self, keys: Collection[str], leaving: Sequence[Place] = ()) -> list[str]:
        """Return the keys whose limits are reached, or may be since they were last looked at.

        To see that, the store is asked for one more place of each key, which ends at once.

        Args:
            keys: Of which to tell.
            leaving: What to give back before that, in the same request.

        Raises:
            BackendUnavailable: the store is away.
        """
        now = self._clock()
        checked_s = {key: at for key, at in self._checked_s.items() if now - at <= _CHECKED_S}
        due = [key for key in keys if key not in checked_s]
        if due:
            limit = self._in_force.now().count
            more = [Place(key, limit, f"{self._token}/more") for key in due]
            has = self._store.take_places(more, ttl_s=_CHECK_S, leaving=self._as_limited(leaving))
            checked_s |= {key: now for key, has_it in zip(due, has, strict=True) if has_it}
            if not all(has):
                self._reached_s = now
        else:
            self.leave(leaving)
        self._checked_s = checked_s
        return [key for key in due if key not in checked_s]

    def more(self, needed: Mapping[str, int]) -> list[ConsumerPlace]:
        """Return places to ask for, which may be passed on; of no key more than there can be.

        Args:
            needed: How many, by key.
        """
        limit = self._in_force.now().count
        token, numbers, watch = self._token, self._numbers, self._watch_name
        return [
            ConsumerPlace(key, limit, f"{token}/{next(numbers)}", watch)
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
        self._store.take_places(self._as_limited(places), ttl_s=self._waits_s)

    # -- asking -----------------------------------------------------------------------------------

    def ask(
        self,
        jobs: Sequence[HeldJob],
        here: Mapping[str, int],
        *,
        most: int,
        freed: Counter[str],
        looks_again: bool,
    ) -> bool:
        """Ask for the places of those jobs that may get one, and extend those that are due, in one request.

        Args:
            jobs: In the order in which they wait.
            here: How many places this consumer has, by key. If it has all of a key, nobody can free one.
            most: For how many jobs to ask at most that are new, or for which a place may be free.
            freed: For how many places of each key a job here may be next; less those that were asked for.
            looks_again: Whether to ask again for all jobs that were refused.

        Returns:
            Whether it asked for any.

        Raises:
            BackendUnavailable: the store is away. No job has its place any more, unless jobs run then.
        """
        self._in_force.now()
        asked = self._to_ask(jobs, here, most, freed, looks_again)
        self._grant(asked)
        return bool(asked)

    def exchange(self, left: Sequence[Place], jobs: Sequence[HeldJob], *, most: int) -> Counter[str]:
        """Give places back, and ask for those of the jobs that wait for them, in one request.

        Args:
            left: What to give back.
            jobs: In the order in which they wait.
            most: For how many of them to ask at most.

        Returns:
            How many places of each key were given back that none of these was asked for.

        Raises:
            BackendUnavailable: the store is away; otherwise as :meth:`ask`.
        """
        self._in_force.now()
        freed, asked = Counter(place.key for place in left), list[HeldJob]()
        for job in jobs:
            if job.place is not None and not job.has_place and freed[job.place.key] and len(asked) < most:
                freed[job.place.key] -= 1
                asked.append(job)
        if asked:
            self._grant(asked, left)
        else:
            self.leave(left)
        return +freed

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
            has = self._store.take_places(self._as_limited(places), ttl_s=self._lasts_s)
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
            self._store.leave_places(self._as_limited(places))

    def _to_ask(
        self,
        jobs: Sequence[HeldJob],
        here: Mapping[str, int],
        most: int,
        freed: Counter[str],
        looks_again: bool,
    ) -> list[HeldJob]:
        """Choose the jobs to ask for: behind those that wait for all places of their key, none gets one."""
        now, asked, limit = self._clock(), [], self.limit()
        ahead = Counter(here)
        # What would be due before the next look at all is asked for with this one.
        position_s = self._waits_s * _REFRESHED_AFTER - (TOLD_S if looks_again else 0.0)
        for job in jobs:
            if job.place is None:
                continue
            key, age_s = job.place.key, inf if job.asked_s is None else now - job.asked_s
            if job.has_place:
                is_due = age_s >= self._lasts_s * _REFRESHED_AFTER
            else:
                may_get_one = ahead[key] < limit
                ahead[key] += 1
                if may_get_one and freed[key] > 0 and most > 0:
                    is_due = True
                    freed[key] -= 1
                    most -= 1
                elif job.asked_s is None:
                    is_due = most > 0
                    most -= may_get_one
                else:
                    is_due = (looks_again and may_get_one) or age_s >= position_s
            if is_due:
                asked.append(job)
        return asked

    def _grant(self, jobs: Sequence[HeldJob], leaving: Sequence[Place] = ()) -> None:
        """Ask for the places of ``jobs``, and give others back, in one request.

        Positions in line last for a short time, or a dead consumer's would keep places empty for as long as a
        lease. A place lasts longer than a lease.
        """
        if not jobs:
            return
        places, now = [job.place for job in jobs if job.place is not None], self._clock()
        try:
            has = self._store.take_places(
                self._as_limited(places),
                ttl_s=self._lasts_s,
                waits_s=self._waits_s,
                leaving=self._as_limited(leaving),
            )
        except BackendUnavailable:
            for job in jobs:
                job.has_place = self.runs_when_away
            raise
        finally:
            for job in jobs:
                job.asked_s = now
        _note_taken(places, has, now)
        for job, has_place in zip(jobs, has, strict=True):
            job.has_place = has_place
        if not all(has):
            self._contended_s = self._clock()
            self._have_wait_in_their_own_names([job for job in jobs if not job.has_place])

    def _as_limited(self, places: Sequence[Place]) -> Sequence[Place]:
        """Return places as a request names them: with the limit that is in force, as it may have changed."""
        limit = self.limit()
        if all(place.limit == limit for place in places):
            return places
        return [place._replace(limit=limit) for place in places]

    def _have_wait_in_their_own_names(self, jobs: Sequence[HeldJob]) -> None:
        """Have jobs that must wait do so in their own names, so that their positions go where they go."""
        theirs = [(job, job.place) for job in jobs if isinstance(job.place, ConsumerPlace)]
        for job, place in theirs:
            job.place = self.own(job.delivery, place.key)
        self._grant([job for job, _ in theirs], [place for _, place in theirs])


def _note_taken(places: Iterable[Place], has: Iterable[bool], now: float) -> None:
    for place, has_it in zip(places, has, strict=True):
        if has_it and isinstance(place, ConsumerPlace):
            place.taken_s = now
