"""CRD-3: a record with a time is there until then, by the store's clock, and not after it."""

from functools import partial

from ...ports import ABSENT, CoordinationStore
from ..check_context import CheckContext
from ..check_queue import CLOCKS_DIFFER_S
from ..registry import check
from ..stores import End, end_of, expect_wins, stores, timed, wait_until_over
from ..violation import demand
from ..worker_clock import OFFSETS_S, calendar_off_by
from .races import at_once

_DAY_S = 86_400.0
_STEP_S = 0.02
_SHORT_S = (0.0004, 0.05, 0.3, 0.6)
"""Times that a store which counts in seconds rounds to none, or to too much."""
_LONG_S = (_DAY_S * 30, _DAY_S * 365)
"""Times that a counter of 32 bits can't hold in milliseconds."""


def _look(store: CoordinationStore, ends: dict[str, End]) -> set[str]:
    """Demand of each record that it is there or not, as it must be; return those that are there."""
    before = store.now()
    got, scanned = store.get(list(ends)).keys(), store.scan("").keys()
    after = store.now()
    for key, end in ends.items():
        for how, found in (("a get", got), ("a scan", scanned)):
            if end.is_surely_ahead(after):
                demand("CRD-3", key in found, f"{how} misses {key}, {end.earliest - after:.4f} s early")
            if end.is_surely_over(before):
                demand("CRD-3", key not in found, f"{how} has {key}, {before - end.latest:.4f} s late")
    return got | scanned


def _put(store: CoordinationStore, key: str, ttl_s: float) -> End:
    put = timed(store, partial(store.put, key, b"", ttl_s=ttl_s))
    demand("CRD-3", put.answer is not None, f"a put for {ttl_s:g} s was refused")
    return end_of(put, ttl_s)


@check("CRD-3", needs="coordination")
def a_record_is_there_until_its_time(context: CheckContext) -> None:
    """Neither shorter nor longer, for less than a millisecond, parts of a second, a month and a year."""
    with stores(context) as (store, other):
        ends = {f"for {ttl_s:g} s": _put(store, f"for {ttl_s:g} s", ttl_s) for ttl_s in _LONG_S + _SHORT_S}
        last = max(end.latest for key, end in ends.items() if end.latest < store.now() + _DAY_S)
        while store.now() < last + 3 * CLOCKS_DIFFER_S:
            _look(other, ends)
            context.harness.advance(_STEP_S)
        left = _look(store, ends)
        demand("CRD-3", len(left) == len(_LONG_S), f"in the end, {sorted(left)} are there")
        if context.harness.virtual_time:
            for end in sorted(end.latest for end in ends.values() if end.latest > last):
                for moment in (end - 1.0, end + 1.0):
                    context.harness.advance(max(0.0, moment - store.now()))
                    _look(other, ends)


@check("CRD-3", needs="coordination")
def each_write_sets_the_time_anew(context: CheckContext) -> None:
    """A later put without a time keeps the record, and one with a time counts from then.

    Neither a get nor a put that is refused changes anything.
    """
    short_s, long_s = 0.3, 3600.0
    with stores(context) as (store, other):
        ends: dict[str, End] = {}
        never = End(store.now() + _DAY_S, store.now() + _DAY_S)
        stale = store.put("stale", b"")
        for key in ("kept", "deleted before", "longer", "refused", "stale"):
            ends[key] = _put(store, key, short_s)
        other.put("kept", b"")
        store.delete("deleted before")
        other.put("deleted before", b"")
        ends["kept"] = ends["deleted before"] = never
        ends["longer"] = _put(other, "longer", long_s)
        version = store.put("shorter", b"", ttl_s=long_s)
        shorter = timed(store, lambda: other.put("shorter", b"", expected=version, ttl_s=short_s))
        ends["shorter"] = end_of(shorter, short_s)
        version = store.put("never, then short", b"")
        ends["never, then short"] = _put(other, "never, then short", short_s)
        refused = other.put("refused", b"", expected=ABSENT, ttl_s=long_s)
        missed = other.put("stale", b"", expected=stale)
        if ends["refused"].is_surely_ahead(store.now()):
            demand("CRD-2", refused is missed is None, f"wrong versions gave {refused}, {missed}")
        else:  # this machine was too slow for them to be refused
            del ends["refused"], ends["stale"]
        while store.now() < ends["never, then short"].latest + 3 * CLOCKS_DIFFER_S:
            _look(other, ends)
            context.harness.advance(_STEP_S)
        other.put("another", b"")  # a write may sweep what has ended
        _look(store, ends)


@check("CRD-3", "CRD-2", needs="coordination")
def a_record_that_ended_is_no_record(context: CheckContext) -> None:
    """It can't be deleted or expected, and of those who write a new one at once, one succeeds."""
    with stores(context) as both:
        store, other = both
        for number in range(3):
            keys = [f"{name}-{number}" for name in ("deleted", "expected", "absent", "written")]
            versions = {key: store.put(key, b"old", ttl_s=0.05) for key in keys}
            wait_until_over(context, store, _put(store, "last", 0.05))
            deleted, expected, absent, written = keys
            demand("CRD-3", not other.delete(deleted), "a record that had ended could be deleted")
            late = [other.put(expected, b"late", expected=versions[expected])]
            demand("CRD-3", late == [None], f"a put that expects a version that had ended gave {late}")
            late = [other.delete(expected, expected=versions[expected])]
            demand("CRD-3", late == [False], f"a delete that expects a version that had ended gave {late}")
            new = other.put(absent, b"new", expected=ABSENT)
            demand("CRD-3", new is not None, "a record that had ended is in the way of a new one")
            demand("CRD-1", new != versions[absent], f"version {new} came again after its end")
            calls = [partial(both[n % 2].put, written, b"%d" % n, expected=ABSENT) for n in range(6)]
            winners = [version for version in at_once(context, *calls) if version is not None]
            expect_wins(len(winners), "6 wrote anew what had ended")
            there = other.scan("")
            names = [key for key in (absent, written) if key not in there]
            demand("CRD-3", not names, f"{names}, written after the end of others, aren't there")


@check("CRD-3", needs="coordination")
def a_workers_clock_ends_no_record(context: CheckContext) -> None:
    """With the worker's calendar an hour off, in either direction, a record keeps its time."""
    with stores(context) as (store, other):
        before = store.now()
        demand("CRD-3", 1e9 < before < 1e10, f"the store's time is {before}, in seconds since 1970")
        for off_s in OFFSETS_S:
            with calendar_off_by(off_s):
                moved_s = other.now() - before
                demand("CRD-3", abs(moved_s) < 600.0, f"with a clock {off_s:g} s off, time moved {moved_s} s")
                ends = {"long": _put(store, "long", 600.0), "short": _put(store, "short", 0.05)}
            _look(other, ends)
            wait_until_over(context, other, ends["short"])
            with calendar_off_by(off_s):
                _look(store, ends)


@check("CRD-3", needs="coordination")
def clients_agree_on_the_time(context: CheckContext) -> None:
    """The store's clock is one for all clients, and runs as time passes."""
    with stores(context) as (store, other):
        before, its, after = store.now(), other.now(), store.now()
        agree = before - CLOCKS_DIFFER_S <= its <= after + CLOCKS_DIFFER_S
        demand("CRD-3", agree, f"it is {before} to {after} for one client, and {its} for another")
        context.harness.advance(0.1)
        passed_s = other.now() - its
        demand("CRD-3", passed_s >= 0.1 - CLOCKS_DIFFER_S, f"in 0.1 s, {passed_s:.4f} s passed")
