"""CRD-8: who has a place, or waits for one, is counted truly, of all keys that begin alike."""

from functools import partial

from ...ports import CoordinationStore, KeyCount, Place, PlaceCount
from ..check_context import CheckContext
from ..registry import check
from ..stores import end_of, stores, timed, wait_until_over
from ..violation import demand
from .races import at_once

_LONG_S = 86_400.0
_COUNTS = 50
"""How often a key is counted while its places come and go."""
_NONE = PlaceCount(0, 0, 0, [])


def _take(
    store: CoordinationStore, key: str, *holders: str, limit: int = 1, ttl_s: float = _LONG_S
) -> list[bool]:
    return store.take_places([Place(key, limit, holder) for holder in holders], ttl_s=ttl_s)


def _leave(store: CoordinationStore, key: str, *holders: str) -> None:
    store.leave_places([Place(key, 1, holder) for holder in holders])


def _expect(
    store: CoordinationStore, prefix: str, expected: PlaceCount, what: str, *, busiest: int = 10
) -> None:
    counts = store.count_places([prefix], busiest=busiest)
    demand("CRD-8", counts == [expected], f"{what}: {counts!r:.300}, not {expected!r:.200}")


def _one(key: str, held: int, waiting: int) -> PlaceCount:
    return PlaceCount(held, waiting, 1, [KeyCount(key, held, waiting)])


@check("CRD-8", needs="coordination")
def holders_and_those_who_wait_are_counted(context: CheckContext) -> None:
    """By either client, after each take, leave and place that passed on; nobody is counted twice."""
    with stores(context) as (store, other):
        _expect(store, "key", _NONE, "before anybody came")
        demand("CRD-8", store.count_places([]) == [], "of nothing, there came counts")
        _take(store, "key", "a", "b", "c", "d", limit=2)
        _expect(other, "key", _one("key", 2, 2), "4 asked for one of 2 places")
        _take(other, "key", "a", "c", limit=2)
        _expect(store, "key", _one("key", 2, 2), "a extended, and c asked again")
        _leave(store, "key", "a", "stranger")
        _expect(other, "key", _one("key", 1, 2), "a left")
        _take(store, "key", "c", limit=2)
        _expect(other, "key", _one("key", 2, 1), "c came")
        store.take_places([Place("key", 2, "e")], ttl_s=_LONG_S, leaving=[Place("key", 2, "d")])
        _expect(store, "key", _one("key", 2, 1), "d left the line, and e joined it")
        _take(store, "key", "f", "g", limit=1)
        _expect(other, "key", _one("key", 2, 3), "f and g asked with a limit of 1, and 2 have places")
        _leave(other, "key", *"bcefg")
        _expect(store, "key", _NONE, "all left")


@check("CRD-8", needs="coordination")
def only_keys_that_begin_so_are_counted(context: CheckContext) -> None:
    """Each of several beginnings for itself, in the order of the call, whatever characters are in them."""
    prefixes = ["a", "a/", "A", "a_", "a%", "a*", "ä/", "\U0001f600/", "nobody"]
    keys = ["a", "a/", "a/x", "a/y", "a0", "A/x", "ab/x", "a_/x", "a%/x", "a*/x", "ä/x", "\U0001f600/x", "b"]
    with stores(context) as (store, other):
        store.take_places([Place(key, 1, f"of {key}") for key in keys], ttl_s=_LONG_S)
        counts = other.count_places(prefixes, busiest=100)
        demand("CRD-8", len(counts) == len(prefixes), f"{len(prefixes)} prefixes got {len(counts)} answers")
        for prefix, count in zip(prefixes, counts, strict=True):
            expected = [key for key in keys if key.startswith(prefix)]
            found = sorted(each.key for each in count.busiest)
            demand("CRD-8", found == sorted(expected), f"with {prefix!r} begin {expected}, not {found}")
            demand("CRD-8", count.keys == count.held == len(expected), f"with {prefix!r} begin {count}")


@check("CRD-8", needs="coordination")
def the_busiest_keys_come_first_and_no_more_than_asked_for(context: CheckContext) -> None:
    """Of 300 keys, the totals are of all, and the few that are named are those with the most holders."""
    number = 300
    with stores(context) as (store, other):
        places = [Place(f"many/{n:03}", 1, "a") for n in range(number)]
        places += [Place("many/200", 1, "b"), Place("many/100", 1, "b"), Place("many/150", 9, "b")]
        places += [Place("many/200", 1, "c")]
        store.take_places(places, ttl_s=_LONG_S)
        named = [KeyCount("many/150", 2, 0), KeyCount("many/200", 1, 2), KeyCount("many/100", 1, 1)]
        named += [KeyCount("many/000", 1, 0), KeyCount("many/001", 1, 0)]
        for few in (5, 1, 0):
            expected = PlaceCount(number + 1, 3, number, named[:few])
            _expect(other, "many/", expected, f"the {few} busiest of {number} keys", busiest=few)


@check("CRD-8", needs="coordination")
def what_is_over_is_not_counted(context: CheckContext) -> None:
    """Places and positions in line count until their times are over, though nobody asks for them then."""
    short_s = 0.35
    with stores(context) as (store, other):
        _take(store, "key", "a")
        _take(store, "key", "b", ttl_s=_LONG_S)
        waits = timed(store, partial(_take, store, "key", "c", ttl_s=short_s))
        ends = timed(store, partial(_take, store, "other", "a", ttl_s=short_s))
        both = timed(store, partial(other.count_places, ["key", "other"]))
        if end_of(waits, short_s).is_surely_ahead(both.after):
            expected = [_one("key", 1, 2), _one("other", 1, 0)]
            demand("CRD-8", both.answer == expected, f"before they were over, there are {both.answer}")
        for call in (waits, ends):
            wait_until_over(context, store, end_of(call, short_s))
        _expect(other, "key", _one("key", 1, 1), "once the time of c in line was over")
        _expect(other, "other", _NONE, "once the time of the place was over")
        _take(store, "other", "a", ttl_s=_LONG_S)
        _expect(other, "other", _one("other", 1, 0), "once a came again")


@check("CRD-8", needs="coordination")
def a_count_changes_nothing(context: CheckContext) -> None:
    """A count keeps the order of the line and the times of places, and writes no record."""
    short_s = 0.35
    with stores(context) as (store, other):
        _take(store, "key", "a")
        _take(store, "key", "b", "c")
        brief = timed(store, partial(_take, store, "brief", "a", ttl_s=short_s))
        for each in (store, other):
            each.count_places(["key", "brief"])
        _leave(store, "key", "a")
        found = [_take(other, "key", "c"), _take(other, "key", "b")]
        demand("CRD-8", found == [[False], [True]], f"after a count, c and b, who was next, got {found}")
        wait_until_over(context, store, end_of(brief, short_s))
        other.count_places(["brief"])
        demand("CRD-8", _take(other, "brief", "b") == [True], "a count extended a place")
        demand("CRD-8", store.scan("") == {}, "a count left a record")


@check("CRD-8", needs="coordination")
def no_more_are_counted_than_there_ever_are(context: CheckContext) -> None:
    """While five pass two places on, each count of the key says two or fewer, and nobody is in it twice."""
    limit, holders = 2, 5
    counts: list[PlaceCount] = []

    def come_and_go(store: CoordinationStore, holder: str) -> None:
        while len(counts) < _COUNTS:  # or until the store is closed
            if _take(store, "key", holder, limit=limit)[0]:
                _leave(store, "key", holder)

    def count(store: CoordinationStore) -> None:
        while len(counts) < _COUNTS:
            counts.extend(store.count_places(["key"]))

    with stores(context) as both:
        calls = [partial(come_and_go, both[n % 2], f"holder-{n}") for n in range(holders)]
        at_once(context, partial(count, both[1]), *calls)
        _leave(both[0], "key", *[f"holder-{n}" for n in range(holders)])
        most = max(each.held for each in counts)
        demand("CRD-8", most <= limit, f"of {limit} places, {most} were counted as taken")
        most = max(each.held + each.waiting for each in counts)
        demand("CRD-8", most <= holders, f"of {holders} holders, {most} were counted")
        _expect(both[0], "key", _NONE, "after all had left")


@check("CON-2", needs="coordination")
def places_of_another_namespace_are_not_counted(context: CheckContext) -> None:
    """Nor does a key come with more than its own name."""
    with stores(context, 1) as (mine,), stores(context, 1) as (other,):
        _take(mine, "key", "a")
        _take(other, "key", "a", "b")
        counts = mine.count_places(["k"]) + other.count_places(["k"])
        expected = [_one("key", 1, 0), _one("key", 1, 1)]
        demand("CON-2", counts == expected, f"in two namespaces there are {counts}, not {expected}")
