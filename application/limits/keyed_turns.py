"""The turns of a rate that counts the jobs of each key by themselves, for those of one consumer."""

from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from math import inf
from operator import itemgetter
from typing import Any

from ...domain import JobSchema
from ...domain.limits import Rate
from ...ports import CoordinationStore, Release, Reservation
from .backoff import Backoff
from .held_job import HeldJob
from .in_force import InForce
from .keys import Keys, prefix_of
from .turn_gate import TurnGate
from .turns import Turns, at_once, drop_missed, drop_turns, late_s

_AHEAD_S = 0.2
"""How far ahead a turn is reserved. Until then, its job keeps a slot from the jobs of other keys."""
_MAX_HELD_S = 2.5
"""How far away the turn of a job may be that is held; also never more than a sixth of the lease."""
_KEPT = 128
"""How many jobs that wait for their turns any consumer holds."""
_KEPT_FOR_EACH = 16
"""How many more it holds for each job that it runs at once."""
_MOST_KEPT = 1000
_BACK_BEFORE_S = 2.0
"""How long before its turn a job comes back that is not held: it must be found among others by then."""
_SHORTEST_BACK_S = 0.1
_LONGEST_BACK_S = 300.0
"""For how long a job goes back at most: the rate may be another by then."""
_LOOKED_AT = 32
"""How many jobs to take at least, to find one that may run behind those that wait."""
_SHORTEST_LOOK_S = 0.05
_LONGEST_LOOK_S = 1.0
_FORGETS_ABOVE = 4096
"""Of how many keys to note times at least, until those that have passed are forgotten."""


class _Times:
    """When something happens for each of many keys; what has passed is forgotten now and then."""

    def __init__(self) -> None:
        self._times: dict[str, float] = {}
        self._forgets_above = _FORGETS_ABOVE

    def __len__(self) -> int:
        return len(self._times)

    def of(self, key: str) -> float:
        """Return the time of a key; one long ago if it has none."""
        return self._times.get(key, -inf)

    def note(self, key: str, at: float, now: float) -> None:
        """Note the time of a key."""
        self._times[key] = at
        if len(self._times) > self._forgets_above:
            self._times = {each: until for each, until in self._times.items() if until > now}
            self._forgets_above = max(_FORGETS_ABOVE, 2 * len(self._times))  # so that it costs little a key


class KeyedTurns(TurnGate):
    """Reserves turns for jobs just before they come, and sends back those whose turns are far away.

    So a key without a turn holds up no other. The oldest job whose turn is near has the next free slot. A job
    goes back for as long as the jobs of its key need that are in front of it.

    Args:
        store: Where the rate is counted.
        queue: The queue's name.
        schema: What the jobs are.
        in_force: How fast the jobs of a key may start.
        slots: How many jobs the consumer runs at once.
        lease_s: For how long a job is leased.
        max_body_bytes: The largest body that is looked at.
        clock: The consumer's clock.
    """

    closed_s = 0.0  # always, as a job of another key may have a turn

    def __init__(
        self,
        store: CoordinationStore,
        queue: str,
        schema: JobSchema[Any, Any],
        in_force: InForce[Rate],
        *,
        slots: int,
        lease_s: float,
        max_body_bytes: int,
        clock: Callable[[], float],
    ) -> None:
        self._store = store
        self._queue = queue
        self._in_force = in_force
        self._keys = Keys("", schema, in_force.declared, max_body_bytes=max_body_bytes)
        """Without what begins the keys of the store, as that goes by the rate, which may be changed."""
        self._clock = clock
        self._max_held_s = min(_MAX_HELD_S, lease_s / 6)
        self._most_held = min(max(_KEPT, _KEPT_FOR_EACH * slots), _MOST_KEPT)
        self._obey(in_force.present)
        self._fresh: list[HeldJob] = []
        """The jobs that were taken since turns were last reserved."""
        self._look = Backoff(clock, _SHORTEST_LOOK_S, _LONGEST_LOOK_S)
        self.runs_when_away = in_force.declared.when_store_is_away == "run"

    def _obey(self, rate: Rate) -> None:
        """Begin with a rate, whose turns are counted by themselves."""
        self._rate = rate
        self._prefix = prefix_of(self._queue, rate)
        self._late_s = late_s(rate)
        self._at_once = at_once(rate)
        self._not_before_s = _Times()
        """When the next turn of a key comes at the earliest, as far as is known."""
        self._back_until_s = _Times()
        """When the last job of a key that was sent back may have its turn."""

    def note_taken(self, jobs: Sequence[HeldJob]) -> None:
        super().note_taken(jobs)
        for job, key in zip(jobs, self._keys.of([job.delivery for job in jobs]), strict=True):
            job.rate_key = key
        self._fresh = [*self._fresh, *jobs]

    def waits(self, job: HeldJob) -> bool:
        if job.rate_key is None or job.turn_s is not None:
            return False
        return self._not_before_s.of(job.rate_key) > self._clock() + _AHEAD_S

    def look_size(self, running: int) -> int:
        return max(round(_LOOKED_AT * self._look.growth), 2 * running) if self._look.is_over else 0

    def is_due(self, job: HeldJob) -> bool:
        return job.rate_key is None or (job.turn_s is not None and job.turn_s <= self._clock())

    def reserve(
        self,
        jobs: Sequence[HeldJob],
        far: Sequence[HeldJob],
        most: int,
        within_s: float,
        *,
        may_release: bool,
    ) -> list[Release]:
        rate = self._in_force.now()
        if rate != self._rate:
            self._obey(rate)
            drop_turns([*far, *jobs])
            if far:  # their turns may be near now: the next call, which comes at once, is told so
                return []
        drop_missed(jobs, self._clock(), self._late_s)
        wanting: dict[str, list[HeldJob]] = {}
        for job in jobs:
            if job.rate_key is not None and job.turn_s is None:
                wanting.setdefault(job.rate_key, []).append(job)
        free = most - sum(job.turn_s is not None for job in jobs)
        self._reserve(wanting, free, min(within_s, _AHEAD_S))
        if not self._fresh:
            return []
        held = [*far, *jobs]
        releases = self._send_back(job for job in held if job.turn_s is None) if may_release else []
        self._note_look(held, releases)
        return releases

    def note_kept(self, jobs: Sequence[HeldJob]) -> None:
        super().note_kept(jobs)
        self._back_until_s = _Times()  # or the next to go back would wait for jobs that are here

    def _reserve(self, wanting: dict[str, list[HeldJob]], free: int, max_wait_s: float) -> None:
        """Reserve turns of the keys whose turns have come, and then of those that are near.

        Both in the order of their oldest jobs: so each job is once the oldest of those that may start.
        """
        now, counts = self._clock(), dict[str, int]()
        next_s = {key: self._not_before_s.of(key) for key in wanting}
        near = [key for key, at in next_s.items() if at <= now + max_wait_s]
        for key in sorted(near, key=lambda each: next_s[each] > now):
            if free <= 0:
                break
            counts[key] = min(len(wanting[key]), self._at_once, free)
            free -= counts[key]
        if not counts:
            return
        rate = self._rate
        answers = self._store.reserve_each(
            {self._prefix + key: count for key, count in counts.items()},
            interval_s=rate.interval_s,
            burst=rate.burst,
            max_wait_s=max_wait_s,
        )
        now = self._clock()  # after the answer: a turn may be late, and never early
        for key in counts:
            self._note(wanting[key], key, answers[self._prefix + key], now)

    def _note(self, jobs: list[HeldJob], key: str, answer: Reservation, now: float) -> None:
        for job, wait_s in zip(jobs, answer.waits_s, strict=False):
            job.turn_s = now + wait_s
        next_s = answer.retry_s
        if not next_s and self._rate.burst == 1:  # all were reserved, and the next is an interval later
            next_s = answer.waits_s[-1] + self._rate.interval_s
        self._not_before_s.note(key, now + next_s, now)

    def _note_look(self, held: Sequence[HeldJob], releases: Sequence[Release]) -> None:
        """If all jobs that were taken are too early, look later, and at more."""
        fresh, self._fresh = self._fresh, []
        released = {each.receipt for each in releases}
        kept = {job.receipt for job in held if job.receipt not in released}
        if any(job.receipt in kept for job in fresh):
            self._look.reset()
        else:
            self._look.begin()

    def _send_back(self, jobs: Iterable[HeldJob]) -> list[Release]:
        """Return the releases of the jobs whose turns come last, and of those whose turns are far away."""
        now, ranks, expected = self._clock(), Counter[str](), list[tuple[float, HeldJob, str]]()
        for job in jobs:
            if (key := job.rate_key) is not None:
                turn_s = max(now, self._not_before_s.of(key)) + ranks[key] * self._rate.interval_s
                expected.append((turn_s, job, key))
                ranks[key] += 1
        expected.sort(key=itemgetter(0))
        kept = sum(turn_s - now <= self._max_held_s for turn_s, _, _ in expected[: self._most_held])
        return [Release(job.receipt, self._back_s(key, turn_s, now)) for turn_s, job, key in expected[kept:]]

    def _back_s(self, key: str, turn_s: float, now: float) -> float:
        """Return for how long to send a job back, so that the jobs of its key come back one after another."""
        last_s = self._back_until_s.of(key)
        is_next = turn_s <= max(now, self._not_before_s.of(key))  # it must be back by then
        if not is_next and now < last_s + self._rate.interval_s <= now + _LONGEST_BACK_S:
            turn_s = max(turn_s, last_s + self._rate.interval_s)
        self._back_until_s.note(key, turn_s if last_s > now + _LONGEST_BACK_S else max(turn_s, last_s), now)
        away_s = turn_s - now
        return max(_SHORTEST_BACK_S, min(away_s - min(_BACK_BEFORE_S, away_s / 2), _LONGEST_BACK_S))


def turns_of(
    store: CoordinationStore,
    queue: str,
    schema: JobSchema[Any, Any],
    in_force: InForce[Rate],
    *,
    slots: int,
    lease_s: float,
    max_body_bytes: int,
    clock: Callable[[], float],
) -> Turns | KeyedTurns:
    """Return the turns of a rate, by key if it has one; the arguments are those of :class:`KeyedTurns`."""
    if not in_force.declared.fields:
        return Turns(store, queue, in_force, lease_s=lease_s, clock=clock)
    return KeyedTurns(
        store,
        queue,
        schema,
        in_force,
        slots=slots,
        lease_s=lease_s,
        max_body_bytes=max_body_bytes,
        clock=clock,
    )
