"""CRD-6: turns of a rate are never closer than its interval and burst allow, over all callers."""

import itertools
from collections.abc import Sequence
from functools import partial
from math import floor

from hypothesis import strategies as st

from ...ports import CoordinationStore, Reservation
from ..check_context import CheckContext
from ..check_queue import CLOCKS_DIFFER_S
from ..registry import check
from ..stores import Timed, stores, timed
from ..violation import demand
from ..worker_clock import OFFSETS_S, calendar_off_by
from .races import at_once

_FAR_S = 1e6
"""Further away than any turn of a check."""


def _expect(waits_s: Sequence[float], expected: Sequence[float], what: str) -> None:
    """Demand these waits, but for what clocks differ."""
    same = len(waits_s) == len(expected) and all(
        abs(wait_s - other_s) <= CLOCKS_DIFFER_S for wait_s, other_s in zip(waits_s, expected, strict=True)
    )
    demand("CRD-6", same, f"{what}: {waits_s!r:.120}, not {expected!r:.120}")


@check("CRD-6", needs="coordination")
def a_burst_comes_at_once_and_the_rest_by_the_interval(context: CheckContext) -> None:
    """In one call: as many as the burst at once, then one an interval, none further away than asked."""
    with stores(context) as (store, other):
        for burst in (1, 4):
            far = store.reserve(f"far-{burst}", 10, interval_s=10.0, burst=burst, max_wait_s=_FAR_S)
            expected = [max(0.0, (number - burst + 1) * 10.0) for number in range(10)]
            _expect(far.waits_s, expected, f"10 turns of one in 10 s, {burst} at once")
            demand("CRD-6", far.retry_s == 0, f"all were reserved, and {far} says to ask again")
            near = other.reserve(f"near-{burst}", 10, interval_s=10.0, burst=burst, max_wait_s=25.0)
            _expect(near.waits_s, expected[: burst + 2], "10 turns, none further away than 25 s")
            asks_again = 0 < near.retry_s <= 30.0 + CLOCKS_DIFFER_S
            demand("CRD-6", asks_again, f"the next turn is in 30 s, and {near} says when to ask again")
            none = other.reserve(f"near-{burst}", 1, interval_s=10.0, burst=burst)
            demand("CRD-6", none.waits_s == [], f"without a wait there is none left, and there came {none}")


@check("CRD-6", needs="coordination")
def a_thousand_turns_take_their_time(context: CheckContext) -> None:
    """To parts of a millisecond: in one call or in many, by two clients, whatever the interval."""
    with stores(context) as both:
        for interval_s in (1 / 3, 0.0125, 0.0016, 0.0004):
            key = f"in one call, {interval_s}"
            one = both[0].reserve(key, 1000, interval_s=interval_s, max_wait_s=_FAR_S).waits_s
            total_s = 999 * interval_s
            _expect([len(one), *one[:1], *one[-1:]], [1000, 0.0, total_s], f"1,000 turns each {interval_s} s")
            demand("CRD-6", one == sorted(one), f"the waits of turns each {interval_s} s don't ascend")
        calls = [
            timed(both[0], partial(both[n % 2].reserve, "key", 50, interval_s=1 / 3, max_wait_s=_FAR_S))
            for n in range(20)
        ]
        first, last = calls[0], calls[-1]
        least_s = last.before + last.answer.waits_s[-1] - first.after
        most_s = last.after + last.answer.waits_s[-1] - first.before
        right = least_s - 0.01 <= 333.0 <= most_s + 0.01
        demand("CRD-6", right, f"1,000 turns each 1/3 s last {least_s:.4f} to {most_s:.4f} s, not 333")


@check("CRD-6", needs="coordination")
def a_turn_is_remembered_until_it_has_come(context: CheckContext) -> None:
    """Also where it is some seconds and a part of one away: nobody gets a turn before it in the meantime."""
    interval_s = 0.475
    with stores(context) as (store, other):
        reserved = timed(store, partial(store.reserve, "key", 4, interval_s=interval_s, max_wait_s=_FAR_S))
        context.harness.advance(1.2)
        following = timed(other, partial(other.reserve, "key", 1, interval_s=interval_s, max_wait_s=_FAR_S))
        (wait_s,) = following.answer.waits_s
        late_s = following.after + wait_s - (reserved.before + 4 * interval_s)
        demand("CRD-6", late_s >= -CLOCKS_DIFFER_S, f"after four turns, the next was {-late_s:.3f} s early")


@check("CRD-6", needs="coordination")
def turns_reserved_at_once_are_different(context: CheckContext) -> None:
    """Eight callers of two clients that reserve at once share no turn, and leave none out."""
    callers, calls, burst, interval_s = 8, 5, 3, 100.0

    def reserve(store: CoordinationStore) -> list[float]:
        moments = []
        for _ in range(calls):
            turns = timed(
                store,
                partial(store.reserve, "key", 2, interval_s=interval_s, burst=burst, max_wait_s=_FAR_S),
            )
            moments += [turns.after + wait_s for wait_s in turns.answer.waits_s]
        return moments

    with stores(context) as both:
        began = both[0].now()
        answers = at_once(context, *[partial(reserve, both[n % 2]) for n in range(callers)])
        moments = sorted(moment - began for answer in answers for moment in answer)
        found = f"{callers * calls * 2} turns were reserved, and {len(moments)} came"
        demand("CRD-6", len(moments) == callers * calls * 2, found)
        places = [floor(moment / interval_s + 0.2) for moment in moments]
        expected = [max(0, number - burst + 1) for number in range(len(moments))]
        demand("CRD-6", places == expected, f"reserved at once, they are {places} intervals away")


@check("CRD-6", needs="coordination")
def a_call_for_several_keys_reserves_the_turns_of_each(context: CheckContext) -> None:
    """As a call for one would: what it reserved is gone for all, and each key gets its own answer."""
    with stores(context) as (store, other):
        demand("CRD-6", store.reserve_each({}, interval_s=600.0) == {}, "of no keys, there came turns")
        other.reserve("b", 1, interval_s=600.0)
        counts = {"c": 3, "b": 1, "a": 2, **{f"key-{number}": 1 for number in range(300)}}
        answers = store.reserve_each(counts, interval_s=600.0, max_wait_s=1000.0)
        demand("CRD-6", set(answers) == set(counts), f"{len(counts)} keys got {len(answers)} answers")
        expected = {"a": [0.0, 600.0], "b": [600.0], "c": [0.0, 600.0], "key-7": [0.0]}
        for key, waits_s in expected.items():
            # a turn was reserved a moment before the call that waits for the next
            got = [round(wait_s / 600.0, 1) * 600.0 for wait_s in answers[key].waits_s]
            demand("CRD-6", got == waits_s, f"the turns of {key!r} are {answers[key]}, not {waits_s}")
        is_left = answers["c"].retry_s > 0 == answers["a"].retry_s
        demand("CRD-6", is_left, f"one of three turns is left, and {answers['c']} says when to ask again")
        for key in ("a", "b", "c", "key-7", "key-299"):
            again = other.reserve(key, 1, interval_s=600.0)
            demand("CRD-6", again.waits_s == [], f"what was reserved of {key!r} came again: {again}")


@check("CRD-6", needs="coordination")
def a_look_at_a_rate_reserves_no_turn(context: CheckContext) -> None:
    """With a wait of less than that of any turn, only ``retry_s`` says when the next one is."""
    interval_s = 600.0
    with stores(context) as (store, other):
        for burst in (1, 3):
            key, within_s = f"key-{burst}", -burst * interval_s - 1.0
            for reserved in range(burst + 2):
                look = partial(other.reserve, key, 1, interval_s=interval_s, burst=burst, max_wait_s=within_s)
                for waits_s, retry_s in (look(), look()):
                    demand("CRD-6", waits_s == [], f"a look at the rate reserved {waits_s}")
                    next_s = max(0, reserved - burst + 1) * interval_s
                    is_right = abs(max(0.0, retry_s) - next_s) < interval_s / 2
                    found = f"{reserved} turns are gone, {burst} may come at once: the next is in {retry_s} s"
                    demand("CRD-6", is_right, f"{found}, not {next_s}")
                store.reserve(key, 1, interval_s=interval_s, burst=burst, max_wait_s=_FAR_S)


@check("CRD-6", needs="coordination")
def after_a_pause_come_no_more_than_the_burst(context: CheckContext) -> None:
    """However long nobody asked."""
    interval_s = 0.01
    with stores(context) as (store, other):
        for burst in (1, 3):
            key = f"key-{burst}"
            store.reserve(key, 10, interval_s=interval_s, burst=burst)
            for pause in (10, 30):
                context.harness.advance(pause * interval_s)
                turns = other.reserve(key, 8, interval_s=interval_s, burst=burst, max_wait_s=_FAR_S).waits_s
                expected = [max(0.0, (number - burst + 1) * interval_s) for number in range(8)]
                _expect(turns, expected, f"after a pause, with a burst of {burst}")
                context.harness.advance(8 * interval_s)


@check("CRD-6", needs="coordination")
def what_was_reserved_stays_reserved(context: CheckContext) -> None:
    """Turns that are far ahead are kept until their time, though nobody asks for several intervals."""
    interval_s = 0.05
    with stores(context) as (store, other):
        models = {burst: _Model(interval_s, burst) for burst in (1, 4)}
        for asks, pause_s in ((store, 0.0), (other, 3 * interval_s), (store, 3 * interval_s)):
            context.harness.advance(pause_s)
            for burst, model in models.items():
                call = partial(asks.reserve, f"key-{burst}", 20, interval_s=interval_s, burst=burst)
                model.judge(timed(asks, partial(call, max_wait_s=_FAR_S)), 20, _FAR_S)


@check("CRD-6", needs="coordination")
def a_workers_clock_moves_no_turn(context: CheckContext) -> None:
    """With the calendar of one worker an hour off, in either direction, turns are as far apart as for all."""
    with stores(context) as (wrong, right):
        for off_s in OFFSETS_S:
            model, key = _Model(600.0, 1), f"key {off_s:g}"

            def reserve(store: CoordinationStore, by_s: float, key: str = key) -> Reservation:
                with calendar_off_by(by_s):
                    return store.reserve(key, 1, interval_s=600.0, max_wait_s=_FAR_S)

            for store, by_s in ((wrong, off_s), (right, 0.0), (wrong, off_s)):
                turns = timed(right, partial(reserve, store, by_s))
                model.judge(turns, 1, _FAR_S, f"with one calendar {off_s:g} s off, ")


@check("CRD-6", needs="coordination")
def refused_turns_cost_nothing(context: CheckContext) -> None:
    """Whoever is refused has changed nothing: the next turn is when it was, and to ask then is enough."""
    interval_s = 0.3
    with stores(context) as (store, other):
        first = timed(store, partial(store.reserve, "key", 1, interval_s=interval_s))
        _expect(first.answer.waits_s, [0.0], "the first turn")
        for number in range(20):
            asked = timed(store, partial(other.reserve, "key", 1 + number % 3, interval_s=interval_s))
            if asked.after >= first.before + interval_s - CLOCKS_DIFFER_S:
                return  # this machine is so slow that the next turn is there
            demand("CRD-6", asked.answer.waits_s == [], f"{asked.answer} came before the interval was over")
            retry = _Retry(first, asked, interval_s)
            demand("CRD-6", retry.is_right, f"after {number} that were refused, it says {asked.answer}")
            ahead = timed(store, partial(store.reserve, "key", 5, interval_s=interval_s, max_wait_s=0.01))
            near = ahead.after >= first.before + interval_s - 0.02
            demand("CRD-6", near or not ahead.answer.waits_s, f"{ahead.answer} is further away than 0.01 s")
            if near:
                return
        left_s = first.after + interval_s + CLOCKS_DIFFER_S - store.now()
        context.harness.advance(max(0.0, left_s))
        turns = store.reserve("key", 1, interval_s=interval_s).waits_s
        demand("CRD-6", turns == [0.0], f"once the interval was over, {turns} came")


class _Retry:
    """When a refused caller was told to ask again."""

    def __init__(self, first: Timed[Reservation], asked: Timed[Reservation], interval_s: float) -> None:
        earliest_s = first.before + interval_s - asked.after - CLOCKS_DIFFER_S
        latest_s = first.after + interval_s - asked.before + CLOCKS_DIFFER_S
        self.is_right = earliest_s <= asked.answer.retry_s <= latest_s


@check("CRD-6", needs="coordination")
def rates_outlive_clients_and_are_told_apart(context: CheckContext) -> None:
    """What was reserved is gone though its client closed or was cut off; similar keys share no turns."""
    names = ["a", "A", "a ", "a:b", "a_", "a*", "ä", "a\u0308", "\U0001f600"]
    with context.backends(2) as (mine, other):
        for name in names:
            waits_s = mine.coordination.reserve(name, 1, interval_s=600.0).waits_s
            demand("CRD-6", waits_s == [0.0], f"the first turn of {name!r} is {waits_s}")
        context.harness.sever(other)
        mine.close()
        for name in names:
            waits_s = other.coordination.reserve(name, 1, interval_s=600.0).waits_s
            demand("CRD-6", waits_s == [], f"the second turn of {name!r} is {waits_s}, by another client")


_TICK_S = 0.03
_HISTORY = st.tuples(
    st.sampled_from([0.02, 0.07, 0.3]),
    st.integers(1, 4),
    st.lists(
        st.tuples(st.integers(0, 8), st.sampled_from([0.0, 0.1, _FAR_S]), st.booleans()),
        min_size=1,
        max_size=10,
    ),
)
"""An interval, a burst, and how many turns are reserved at each tick, how far away, and by which client."""
_SIDE_BY_SIDE = 6


@check("CRD-6", needs="coordination")
def turns_are_as_in_a_model(context: CheckContext) -> None:
    """However many are reserved, how far away and after which pauses: the waits are those of a model.

    Several rates, of keys of their own, go on at once: waiting is what takes long.
    """
    examples = itertools.count()
    with stores(context) as both:

        @context.waited_property(rates=st.lists(_HISTORY, min_size=_SIDE_BY_SIDE, max_size=_SIDE_BY_SIDE))
        def _(rates: list[_Rate]) -> None:
            models = [_Model(interval_s, burst) for interval_s, burst, _ in rates]
            example = next(examples)
            for number in range(max(len(steps) for _, _, steps in rates)):
                for key, (model, (interval_s, burst, steps)) in enumerate(zip(models, rates, strict=True)):
                    count, max_wait_s, second = steps[number] if number < len(steps) else _NONE
                    call = partial(
                        both[second].reserve, f"{example}-{key}", count, interval_s=interval_s, burst=burst
                    )
                    if count:
                        turns = timed(both[second], partial(call, max_wait_s=max_wait_s))
                        model.judge(turns, count, max_wait_s)
                context.harness.advance(_TICK_S)


_NONE = (0, 0.0, False)
_Rate = tuple[float, int, list[tuple[int, float, bool]]]


class _Model:
    """A rate as the contract describes it. When the store reads its clock is known to a call's length."""

    def __init__(self, interval_s: float, burst: int) -> None:
        self._interval_s = interval_s
        self._burst_s = (burst - 1) * interval_s
        """How much earlier than by the interval alone a turn may come."""
        self._earliest = self._latest = 0.0
        """When the turn after those that were reserved comes by the interval alone."""

    def judge(self, call: Timed[Reservation], count: int, max_wait_s: float, when: str = "") -> None:
        """Demand that turns were reserved as they must be."""
        waits_s, retry_s = call.answer
        least_s = max(0.0, self._earliest - call.after) - self._burst_s - CLOCKS_DIFFER_S
        most_s = max(0.0, self._latest - call.before) - self._burst_s + CLOCKS_DIFFER_S
        fewest, most = (self._count(first_s, count, max_wait_s) for first_s in (most_s, least_s))
        got = len(waits_s)
        found = f"{when}of {count} turns up to {max_wait_s:g} s away there came {call.answer!r:.160}"
        demand("CRD-6", fewest <= got <= most, f"{found}, expected {fewest} to {most}")
        for number, wait_s in enumerate([*waits_s, *([retry_s] if got < count else [])]):
            ahead_s = number * self._interval_s
            right = max(0.0, least_s + ahead_s) <= wait_s <= max(0.0, most_s + ahead_s) + CLOCKS_DIFFER_S
            demand("CRD-6", right, f"{found}: number {number + 1} should come in {most_s + ahead_s:.4f} s")
        demand("CRD-6", got == count or retry_s > 0, f"{found}: it doesn't say when to ask again")
        demand("CRD-6", got < count or retry_s == 0, f"{found}: it says to ask again")
        self._earliest = max(self._earliest, call.before) + got * self._interval_s
        self._latest = max(self._latest, call.after) + got * self._interval_s

    def _count(self, first_s: float, count: int, max_wait_s: float) -> int:
        """How many turns are near enough if the first comes in ``first_s`` seconds."""
        return min(count, max(0, floor((max_wait_s - first_s) / self._interval_s) + 1))
