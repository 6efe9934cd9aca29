"""CRD-5: never more than limit holders have a place of a key; a free one goes to who waits longest."""

import itertools
import threading
from collections.abc import Sequence
from functools import partial

from hypothesis import strategies as st

from ...ports import CoordinationStore, Place
from ...ports.coordination import MAX_KEY_CHARS
from ..check_context import CheckContext
from ..registry import check
from ..stores import End, Timed, end_of, stores, timed, wait_until_over
from ..violation import demand
from ..worker_clock import OFFSETS_S, calendar_off_by
from .races import at_once

_LONG_S = 86_400.0
"""A time that no check outlasts."""
_MONTH_S = 86_400.0 * 30
_ROUNDS = 10


def _take(
    store: CoordinationStore, *holders: str, key: str = "key", limit: int = 1, ttl_s: float = _LONG_S
) -> list[bool]:
    """Ask for places of one key, one holder after the other in one call."""
    answers = store.take_places([Place(key, limit, holder) for holder in holders], ttl_s=ttl_s)
    demand("CRD-5", len(answers) == len(holders), f"{len(holders)} places got {len(answers)} answers")
    return answers


def _leave(store: CoordinationStore, *holders: str, key: str = "key", limit: int = 1) -> None:
    store.leave_places([Place(key, limit, holder) for holder in holders])


def _expect(answers: Sequence[bool], expected: Sequence[bool], what: str) -> None:
    demand("CRD-5", list(answers) == list(expected), f"{what}: {list(answers)}, not {list(expected)}")


@check("CRD-5", needs="coordination")
def a_holder_has_one_place(context: CheckContext) -> None:
    """Who takes again has the same place, by either client, in one call or several; one leave frees it."""
    with stores(context) as (store, other):
        answers = [*_take(store, "a", limit=2), *_take(other, "a", "a", limit=2), *_take(store, "a", limit=2)]
        _expect(answers, [True] * 4, "one holder took four times")
        _expect(_take(other, "b", "c", limit=2), [True, False], "of 2 places one was held, and b and c asked")
        _leave(other, "a", limit=2)
        _expect(_take(store, "c", "d", limit=2), [True, False], "once a had left, c and d asked")


@check("CRD-5", needs="coordination")
def a_leave_frees_the_holders_own_place(context: CheckContext) -> None:
    """One leave frees one place; another of the same, of a stranger or of one who waits frees none."""
    with stores(context) as (store, other):
        _expect(_take(store, "a", "b", "c", limit=3), [True] * 3, "3 of 3 places")
        _expect(_take(other, "d", "e", "f", limit=3), [False] * 3, "3 more of 3 places")
        _leave(other, "a", limit=3)
        for nobodys in ("a", "stranger", "a"):
            _leave(store, nobodys, limit=3)
        _expect(_take(other, "d", "e", "f", limit=3), [True, False, False], "after one of 3 had left")
        _leave(store, "e", limit=3)
        _expect(_take(store, "b", "c", "d", limit=3), [True] * 3, "extended by those who have a place")
        _leave(store, "b", limit=3)
        _expect(_take(other, "f", limit=3), [True], "e had left the line, and f was behind it")
        _expect(_take(other, "e", limit=3), [False], "e came again, and all 3 places were taken")
        store.leave_places([])


@check("CRD-5", needs="coordination")
def a_free_place_goes_to_who_waits_longest(context: CheckContext) -> None:
    """Those who were refused come in the order in which they first asked, however often others ask."""
    line = ["b", "c", "d", "e"]
    with stores(context) as (store, other):
        _expect(_take(store, "a"), [True], "the first")
        for holder in line:
            _expect(_take(other, holder), [False], f"{holder}, while a has the place")
        _expect(_take(store, "c", "b"), [False] * 2, "c and b asked again")
        _leave(store, "a")
        while line:
            for holder in reversed(line[1:]):
                _expect(_take(other, holder), [False], f"{holder}, before whom {line[0]} waits")
            _expect(_take(store, "new"), [False], "one who never asked before")
            _expect(_take(other, line[0]), [True], f"{line[0]}, who waits longest")
            _leave(store, "new", line.pop(0))
        _expect(_take(store, "late"), [True], "the line is over")
        for holder in ("b", "c", "d"):
            _take(store, holder, key="wide", limit=1)
        _expect(_take(other, "e", "d", "c", key="wide", limit=3), [False, True, True], "of 3, b has one")


@check("CRD-5", needs="coordination")
def each_place_is_answered_for_itself(context: CheckContext) -> None:
    """Several keys in one call: one that is taken keeps nobody from another; the answers are in order."""
    with stores(context) as (store, other):
        _take(store, "a", key="taken")
        places = [
            Place("taken", 1, "b"),
            Place("free", 1, "b"),
            Place("free", 1, "c"),
            Place("taken", 1, "a"),
        ]
        _expect(other.take_places(places, ttl_s=_LONG_S), [False, True, False, True], "four in one call")
        other.leave_places([Place("free", 1, "b"), Place("taken", 1, "b")])
        _expect(_take(store, "c", key="free"), [True], "once the place of this key was left")
        _expect(_take(store, "c", key="taken"), [False], "a place of another key, which was not left")
        _expect(store.take_places([], ttl_s=_LONG_S), [], "no places")
        many = [Place(f"many-{number}", 1, "a") for number in range(300)]
        _expect(store.take_places(many, ttl_s=_LONG_S), [True] * 300, "300 keys in one call")
        theirs = [place._replace(holder="b") for place in many]
        _expect(other.take_places(theirs, ttl_s=_LONG_S), [False] * 300, "300 keys that are taken")
        store.leave_places(many)
        _expect(other.take_places(theirs, ttl_s=_LONG_S), [True] * 300, "300 keys that were left in one call")


@check("CRD-5", needs="coordination")
def places_are_left_before_others_are_taken(context: CheckContext) -> None:
    """One call leaves and takes: what it left goes to who waits longest, in the call or not."""

    def exchange(store: CoordinationStore, left: str, *holders: str, limit: int = 1) -> list[bool]:
        places = [Place("key", limit, holder) for holder in holders]
        return store.take_places(places, ttl_s=_LONG_S, leaving=[Place("key", limit, left)])

    with stores(context) as (store, other):
        _take(store, "a")
        _expect(exchange(other, "a", "b"), [True], "a left and b came, in one call")
        _expect(_take(store, "a", "c", "d"), [False] * 3, "b has the place")
        _expect(exchange(store, "stranger", "d"), [False], "a stranger left, who had no place")
        _expect(
            exchange(other, "b", "d", "b"), [False] * 2, "b left and came again, with d, and a waits longest"
        )
        _expect(_take(store, "a"), [True], "a, who waited longest as b left")
        _expect(exchange(store, "a", "d", "c"), [False, True], "a left, and c was next")
        _expect(exchange(other, "d", "c"), [True], "d left the line, and c has the place")
        _expect(exchange(store, "c", "e", "b", limit=2), [True, True], "b was next, and e had one of 2")
        many = [Place(f"many-{number}", 1, "a") for number in range(300)]
        theirs = [place._replace(holder="b") for place in many]
        store.take_places(many, ttl_s=_LONG_S)
        _expect(store.take_places(theirs, ttl_s=_LONG_S, leaving=many), [True] * 300, "300 keys in one call")
        _expect(other.take_places([], ttl_s=_LONG_S, leaving=theirs), [], "left, and nothing taken")
        _expect(other.take_places(many, ttl_s=_LONG_S), [True] * 300, "300 keys that were left in one call")


@check("CRD-5", needs="coordination")
def who_waits_may_wait_for_another_time(context: CheckContext) -> None:
    """Of one call, positions in line end after waits_s, and places after ttl_s, whatever was before."""
    short_s = 0.35

    def ask(store: CoordinationStore, holder: str, waits_s: float = short_s) -> list[bool]:
        return store.take_places([Place("key", 1, holder)], ttl_s=_LONG_S, waits_s=waits_s)

    with stores(context) as (store, other):
        _expect(ask(store, "a"), [True], "the first")
        waits = timed(store, partial(ask, store, "b"))
        _expect(waits.answer, [False], "b, while a has the place")
        _take(other, "c")
        _expect(ask(other, "d", _LONG_S), [False], "d, while a has the place")
        wait_until_over(context, store, end_of(waits, short_s))
        _expect(_take(other, "c"), [False], "c, once a would wait no more, if it had waited")
        _leave(store, "a")
        _expect(_take(other, "c"), [True], "c, as the time of b in line is over")
        _leave(store, "c")
        taken = timed(store, partial(ask, store, "d"))
        _expect(taken.answer, [True], "d, as c has left")
        wait_until_over(context, store, end_of(taken, short_s))
        _expect(_take(other, "e"), [False], "e, while d has the place, and would wait no more")


@check("CRD-5", needs="coordination")
def a_limit_is_never_exceeded(context: CheckContext) -> None:
    """Of nine of two clients that ask for one of three places at once, three get one, each time."""
    with stores(context) as both:
        for number in range(_ROUNDS):
            ask = [partial(_take, both[n % 2], f"holder-{n}", key=f"key-{number}", limit=3) for n in range(9)]
            taken = sum(answer[0] for answer in at_once(context, *ask))
            demand("CRD-5", taken == 3, f"of 9 that asked for one of 3 places at once, {taken} got one")


@check("CRD-5", needs="coordination")
def a_limit_holds_while_places_come_and_go(context: CheckContext) -> None:
    """Six take and leave one of two places, again and again: no three ever have one, and all get one."""
    limit, inside, most, lock = 2, 0, 0, threading.Lock()

    def come_and_go(store: CoordinationStore, holder: str) -> None:
        nonlocal inside, most
        done = 0
        while done < 5:  # or until the store is closed, if no place ever gets free
            if not _take(store, holder, limit=limit)[0]:
                continue
            with lock:
                inside += 1
                most = max(most, inside)
            _take(store, holder, limit=limit)
            with lock:
                inside -= 1
            _leave(store, holder, limit=limit)
            done += 1

    with stores(context) as both:
        at_once(context, *[partial(come_and_go, both[n % 2], f"holder-{n}") for n in range(6)])
        demand("CRD-5", most <= limit, f"{most} had one of {limit} places at the same time")
        _expect(_take(both[0], "a", "b", "c", limit=limit), [True, True, False], "after all had left")


@check("CRD-5", needs="coordination")
def keys_and_holders_are_told_apart(context: CheckContext) -> None:
    """Each pair of similar keys, or holders, is two; what joins key and holder in one name mixes none."""
    names = ["a", "A", " a", "a ", "a:b", "a\\", "a_", "a%", "a*", "{a}", "ä", "a\u0308", "\U0001f600"]
    names += ["x" * MAX_KEY_CHARS, "x" * (MAX_KEY_CHARS - 1) + "y"]
    with stores(context) as (store, other):
        places = [Place(name, 1, "same") for name in names]
        _expect(store.take_places(places, ttl_s=_LONG_S), [True] * len(names), "one holder, under each key")
        other.leave_places(places[1:])
        others = [place._replace(holder="other") for place in places]
        expected = [False] + [True] * (len(names) - 1)
        _expect(other.take_places(others, ttl_s=_LONG_S), expected, "all keys but the first were left")
        every = len(names)
        _expect(_take(store, *names, key="all", limit=every), [True] * every, "each holder is another")
        _expect(_take(other, "b", key="all", limit=every), [False], "as many holders as places")
        mixed = [Place("k:l", 1, "m"), Place("k", 1, "l:m")]
        _expect(store.take_places(mixed, ttl_s=_LONG_S), [True] * 2, "k:l of m, and k of l:m")
        store.leave_places(mixed[:1])
        _expect(_take(other, "n", key="k"), [False], "k, which l:m has")


@check("CRD-5", needs="coordination")
def a_limit_may_change(context: CheckContext) -> None:
    """A lower one takes no place away, and gives none until enough were left; a higher one gives more."""
    with stores(context) as (store, other):
        _take(store, "a", "b", "c", limit=3)
        _expect(_take(other, "d", limit=1), [False], "with the limit lowered below what is held")
        _expect(_take(other, "a", "b", "c", limit=1), [True] * 3, "those who have a place keep it")
        _leave(store, "a")
        _expect(_take(other, "d", limit=1), [False], "2 hold, and the limit is 1")
        _leave(store, "b")
        _expect(_take(other, "d", limit=1), [False], "1 holds, and the limit is 1")
        _expect(_take(other, "d", limit=2), [True], "1 holds, and the limit is 2")
        _expect(_take(store, "e", "f", limit=3), [True, False], "2 hold, and the limit is 3")


@check("CRD-5", needs="coordination")
def a_place_ends_with_its_time(context: CheckContext) -> None:
    """It is held for ttl_s after it was last taken or extended, and then free, though nobody left it."""
    short_s, step_s = 0.35, 0.1
    with stores(context) as (store, other):
        _take(store, "a", key="month", ttl_s=_MONTH_S)
        _expect(_take(other, "b", key="month", ttl_s=step_s), [False], "b, who asks for a moment")
        _take(store, "a", key="shortened", ttl_s=_MONTH_S)
        ends = {key: _timed_take(store, key, "a", short_s) for key in ("ended", "extended", "shortened")}
        for _ in range(5):  # until the time that the first take gave is over as well
            began = ends["extended"]
            ends["extended"] = _timed_take(other, "extended", "a", short_s, had=began)
            context.harness.advance(step_s)
            for key, end in ends.items():
                _expect_held(other, key, end)
        for key in ("ended", "shortened"):
            wait_until_over(context, store, ends[key])
            _expect(_take(other, "b", key=key), [True], f"once a's time was over, b asked for what was {key}")
        _expect(_take(store, "a", key="ended"), [False], "a came again, after its time")
        _expect_held(other, "extended", ends["extended"])
        wait_until_over(context, store, ends["extended"])
        _expect(_take(other, "b", key="month"), [False], "another's place for a month")
        tiny = _timed_take(store, "tiny", "a", 0.0004)
        wait_until_over(context, store, tiny)
        _expect(_take(other, "b", key="tiny"), [True], "after a place of less than a millisecond")
        _expect(_take(store, "b", key="extended"), [True], "once a's extended time was over")


def _timed_take(
    store: CoordinationStore, key: str, holder: str, ttl_s: float, *, had: End | None = None
) -> End:
    """Take or extend a place, which must be free unless this machine was too slow for that."""
    taken = timed(store, partial(_take, store, holder, key=key, ttl_s=ttl_s))
    if had is None or had.is_surely_ahead(taken.after):
        _expect(taken.answer, [True], f"{holder} asked for {key}")
    return end_of(taken, ttl_s)


def _expect_held(store: CoordinationStore, key: str, end: End) -> None:
    """Demand that a place is held, if it must be, and stay in no line."""
    taken = _take(store, "b", key=key)
    if end.is_surely_ahead(store.now()):
        _expect(taken, [False], f"b asked for {key}, which a has for {end.earliest - store.now():.3f} s more")
    _leave(store, "b", key=key)


@check("CRD-5", needs="coordination")
def a_workers_clock_ends_no_place(context: CheckContext) -> None:
    """With the calendar of one worker an hour off, in either direction, places are held for their time."""
    with stores(context) as (wrong, right):
        for off_s in OFFSETS_S:

            def take(holder: str, key: str, ttl_s: float, off_s: float = off_s) -> list[bool]:
                with calendar_off_by(off_s):
                    return _take(wrong, holder, key=key, ttl_s=ttl_s)

            long, short = f"long {off_s:g}", f"short {off_s:g}"
            what = f"a took the place for 600 s, by a calendar {off_s:g} s off, and b asked"
            take("a", long, 600.0)
            _expect(_take(right, "b", key=long), [False], what)
            _expect(take("c", long, 600.0), [False], f"{what}, and c by that calendar")
            brief = timed(right, partial(take, "a", short, 0.1))
            wait_until_over(context, right, end_of(brief, 0.1))
            what = f"a had the place for 0.1 s, by a calendar {off_s:g} s off"
            _expect(_take(right, "b", key=short), [True], what)


@check("CRD-5", needs="coordination")
def who_stops_asking_leaves_the_line(context: CheckContext) -> None:
    """Who asks again keeps the place in line; who doesn't ask for ttl_s, or has left, is in nobody's way."""
    short_s = 0.4
    with stores(context) as (store, other):
        _take(store, "a")
        waits = timed(store, partial(_take, store, "b", ttl_s=short_s))
        _take(other, "c")
        _take(other, "d")
        _take(other, "e", ttl_s=short_s / 2)
        for _ in range(5):  # until the time that the first request gave is over as well
            context.harness.advance(short_s / 4)
            still = end_of(waits, short_s)
            waits = timed(store, partial(_take, other, "b", ttl_s=short_s))
            if not still.is_surely_ahead(waits.after):
                return  # this machine was too slow: b may have left the line
            _expect(waits.answer, [False], "b, while a has the place, and e stopped asking")
        _leave(store, "a")
        asked = timed(store, partial(_take, other, "d", "c"))
        if end_of(waits, short_s).is_surely_ahead(asked.after):
            _expect(asked.answer, [False] * 2, "d and c, before whom b waits, who asked in time")
        wait_until_over(context, store, end_of(waits, short_s))
        _leave(store, "c")
        _expect(_take(other, "d"), [True], "d, as b stopped asking and c has left")


@check("CRD-5", needs="coordination")
def a_place_outlives_its_client(context: CheckContext) -> None:
    """Neither a connection that is cut nor a client that closes gives a place back before its time."""
    with context.backends(3) as (mine, other, third):
        _take(mine.coordination, "a", key="cut")
        _take(other.coordination, "a", key="closed")
        context.harness.sever(mine)
        other.close()
        for key in ("cut", "closed"):
            _expect(_take(third.coordination, "b", key=key), [False], f"the client of a was {key}")


_TICK_S = 0.08
_TIMES_S = (2.5 * _TICK_S, 5.5 * _TICK_S, _LONG_S)
"""They end between two ticks, so that on an idle machine it is clear at each tick what has ended."""
_HISTORY = st.lists(
    st.tuples(
        st.sampled_from(["take", "take", "take", "leave", "nothing"]),
        st.lists(st.tuples(st.sampled_from("kl"), st.sampled_from("abcde")), min_size=1, max_size=3),
        st.integers(1, 3),
        st.sampled_from(_TIMES_S),
        st.booleans(),
    ),
    min_size=4,
    max_size=14,
)
"""What is done at each tick: with which keys and holders, with which limit and time, and by which client."""
_SIDE_BY_SIDE = 6


@check("CRD-5", needs="coordination")
def places_are_as_in_a_model(context: CheckContext) -> None:
    """Whatever is taken, extended, left and ended in whatever order: each answer is that of a simple model.

    Several histories, of keys of their own, go on at once: waiting is what takes long.
    """
    examples = itertools.count()
    with stores(context) as both:

        @context.waited_property(histories=st.lists(_HISTORY, min_size=_SIDE_BY_SIDE, max_size=_SIDE_BY_SIDE))
        def _(histories: list[list[_Step]]) -> None:
            models = [_Model(both, f"{next(examples)}") for _ in histories]
            began = both[0].now()
            for number in range(max(map(len, histories))):
                context.harness.advance(max(0.0, began + number * _TICK_S - both[0].now()))
                for model, history in zip(models, histories, strict=True):
                    if number < len(history):
                        model.step(*history[number])


_Step = tuple[str, list[tuple[str, str]], int, float, bool]


class _Model:
    """Places as the contract describes them: those who have one or wait, in the order in which they asked."""

    def __init__(self, both: Sequence[CoordinationStore], name: str) -> None:
        self._both = both
        self._name = name
        """Of its keys, and of those of no other model."""
        self._ends: dict[tuple[str, str], End] = {}
        """Until when each holder of a key has its place or waits, in the order in which they first asked."""
        self._has: set[tuple[str, str]] = set()
        self._is_known = True
        """False once something ended during a call: nobody knows whether before the store looked."""

    def step(self, act: str, pairs: list[tuple[str, str]], limit: int, ttl_s: float, second: bool) -> None:
        """Take or leave places, and demand the right answers while it is known what they are."""
        store = self._both[second]
        places = [Place(f"{key}-{self._name}", limit, holder) for key, holder in pairs]
        if act == "leave":
            store.leave_places(places)
            for place in places:
                self._forget((place.key, place.holder))
        elif act == "take" and self._is_known:
            taken = timed(store, partial(store.take_places, places, ttl_s=ttl_s))
            self._end_those_over(taken)
            if self._is_known:
                expected = [self._take(place, end_of(taken, ttl_s)) for place in places]
                _expect(taken.answer, expected, f"{places}, of {self._has} and {list(self._ends)}")

    def _end_those_over(self, call: Timed[object]) -> None:
        for pair, end in list(self._ends.items()):
            if end.is_surely_over(call.before):
                self._forget(pair)
            elif not end.is_surely_ahead(call.after):
                self._is_known = False

    def _take(self, place: Place, end: End) -> bool:
        pair = (place.key, place.holder)
        self._ends[pair] = end
        of_key = [each for each in self._ends if each[0] == place.key]
        held = [each for each in of_key if each in self._has]
        line = [each for each in of_key if each not in self._has]
        if pair in line[: max(0, place.limit - len(held))]:
            self._has.add(pair)
        return pair in self._has

    def _forget(self, pair: tuple[str, str]) -> None:
        self._ends.pop(pair, None)
        self._has.discard(pair)
