"""CRD-7: who is next in line for a place that gets free is told, each time, and nobody before that."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from ...domain.errors import UnsupportedCapability
from ...ports import CoordinationStore, Place
from ..check_context import CheckContext
from ..registry import check, refusal
from ..stores import stores
from ..violation import demand

_LONG_S = 86_400.0
_MANY = 300
_FIRST = "the first of a watch"


class Told:
    """Which keys a watch was told, in order.

    Args:
        act: What to do as it is told one.
    """

    def __init__(self, act: Callable[[], None] = lambda: None) -> None:
        self.keys: list[str] = []
        self._is_ready = False
        self._act = act
        self._changed = threading.Condition()

    def tell(self, key: str | None) -> None:
        """Note what is told; this is what a store calls. Reports that may have been lost are none."""
        is_first = key == _FIRST
        if key is not None and not is_first:
            self._act()
        with self._changed:
            self._is_ready = self._is_ready or is_first
            if key is not None and not is_first:
                self.keys.append(key)
            self._changed.notify_all()

    def wait_until_ready(self, seconds: float) -> bool:
        """Wait for a report of the first place, and return whether it came."""
        with self._changed:
            return self._changed.wait_for(lambda: self._is_ready, seconds)

    def expect(self, context: CheckContext, keys: Counter[str], why: str) -> None:
        """Demand that each of these keys is told so often at least, from the beginning."""

        def is_told() -> bool:
            return not keys - Counter(self.keys)

        with self._changed:
            self._changed.wait_for(is_told, context.harness.timeout_s)
            told = Counter(self.keys)
        demand("CRD-7", not keys - told, f"{why}: {dict(told)} was told, and not {dict(keys)}")


@contextmanager
def watching(context: CheckContext, store: CoordinationStore, told: Told) -> Iterator[str]:
    """The name of a watch that tells ``told``, once it does: one that has just begun may miss reports."""
    watch = store.watch_places(told.tell)
    try:
        passed_s = context.stopwatch()
        while not told.wait_until_ready(0.0):
            demand("CRD-7", passed_s() < context.harness.timeout_s, "a watch was told of no place")
            store.take_places([Place(_FIRST, 1, "a"), Place(_FIRST, 1, "b", watch.name)], ttl_s=_LONG_S)
            store.leave_places([Place(_FIRST, 1, "a")])
            told.wait_until_ready(0.1)
            store.leave_places([Place(_FIRST, 1, "b", watch.name)])
        yield watch.name
    finally:
        watch.close()


def _ask(store: CoordinationStore, holder: str, watch: str = "", key: str = "key", limit: int = 1) -> bool:
    (has_it,) = store.take_places([Place(key, limit, holder, watch)], ttl_s=_LONG_S)
    return has_it


def _leave(
    store: CoordinationStore, *holders: str, watch: str = "", key: str = "key", limit: int = 1
) -> None:
    store.leave_places([Place(key, limit, holder, watch) for holder in holders])


@check("CRD-7", needs="freed_places")
def whoever_is_next_is_told(context: CheckContext) -> None:
    """Of those in line the first is told, wherever it is, and another only once it is the first."""
    line = ["b", "c", "d"]
    told = {holder: Told() for holder in line}
    with (
        stores(context, 3) as (store, other, third),
        watching(context, other, told["b"]) as b,
        watching(context, third, told["c"]) as c,
        watching(context, other, told["d"]) as d,
    ):
        _ask(store, "a")
        for holder, watch, asking in (("b", b, other), ("c", c, third), ("d", d, other)):
            demand("CRD-7", not _ask(asking, holder, watch), f"{holder} has the place of a")
        before = "a"
        while line:
            others = {holder: list(told[holder].keys) for holder in line}
            demand("CRD-7", not any(others.values()), f"told before {before} left: {others}")
            _leave(store, before)
            told[line[0]].expect(context, Counter({"key": 1}), f"{before} left, and {line[0]} was next")
            demand("CRD-7", _ask(other, line[0]), f"{line[0]} was told, and had no place")
            before = line.pop(0)


@check("CRD-7", needs="freed_places")
def who_is_told_may_take_the_place(context: CheckContext) -> None:
    """The place is free when its watch is told, at once: the telling isn't ahead of the leave."""
    taken: list[bool] = []
    with stores(context) as (store, other):
        told = Told(lambda: taken.append(_ask(other, "b")))
        with watching(context, other, told) as watch:
            _ask(store, "a")
            _ask(other, "b", watch)
            _leave(store, "a")
            told.expect(context, Counter({"key": 1}), "a left, and b was next")
            demand("CRD-7", taken[0], "b asked as it was told, and the place was still taken")


@check("CRD-7", needs="freed_places")
def no_report_is_lost_among_others(context: CheckContext) -> None:
    """Places of many keys that get free in one call, or one right after the other, are told one by one."""
    told = Told()
    with stores(context) as (store, other), watching(context, other, told) as watch:
        keys = [f"key-{number}" for number in range(_MANY)]
        for holder, name, asking in (("a", "", store), ("b", watch, other)):
            asking.take_places([Place(key, 1, holder, name) for key in keys], ttl_s=_LONG_S)
        store.leave_places([Place(key, 1, "a") for key in keys[:-10]])
        for key in keys[-10:]:
            _leave(store, "a", key=key)
        told.expect(context, Counter(keys), f"{_MANY} places got free")


@check("CRD-7", needs="freed_places")
def as_many_are_told_as_places_are_free(context: CheckContext) -> None:
    """Two places that get free together are told to two; one who leaves the line has the next one told."""
    first, second, third = Told(), Told(), Told()
    with (
        stores(context) as (store, other),
        watching(context, other, first) as b,
        watching(context, other, second) as c,
        watching(context, other, third) as d,
    ):
        for holder in ("a", "z"):
            _ask(store, holder, limit=2)
        for holder, watch in (("b", b), ("c", c), ("d", d)):
            _ask(other, holder, watch, limit=2)
        _leave(store, "a", "z", limit=2)
        first.expect(context, Counter({"key": 1}), "two of two places got free, and b was the first in line")
        second.expect(
            context, Counter({"key": 1}), "two of two places got free, and c was the second in line"
        )
        demand("CRD-7", not third.keys, "d was told, who was behind two for two places")
        _leave(other, "b", watch=b, limit=2)
        third.expect(context, Counter({"key": 1}), "b left the line of a free place, and d was behind it")


@check("CRD-7", needs="freed_places")
def what_is_left_and_taken_in_one_call_is_told_if_it_is_free(context: CheckContext) -> None:
    """The next in line is told of a place that the call didn't take, and nobody of one that it took."""
    told = Told()
    with stores(context) as (store, other), watching(context, other, told) as watch:
        for key in ("taken", "free"):
            _ask(store, "a", key=key)
            _ask(other, "b", watch, key=key)
        here = Place("taken", 1, "b")
        (has_it,) = store.take_places([here], ttl_s=_LONG_S, leaving=[here._replace(holder="a")])
        demand("CRD-7", has_it, "a left, and b, who was next, was refused")
        store.take_places([Place("other", 1, "a")], ttl_s=_LONG_S, leaving=[Place("free", 1, "a")])
        told.expect(context, Counter({"free": 1}), "a left, and b was next")
        demand("CRD-7", told.keys == ["free"], f"{told.keys} were told, and the place of the first was taken")


@check("CRD-7", needs="freed_places")
def reports_to_two_namespaces_never_meet(context: CheckContext) -> None:
    """A place that gets free is told in its own namespace, though another waits for one of the same key."""
    here, there = Told(), Told()
    with (
        stores(context, 1) as (mine,),
        stores(context, 1) as (other,),
        watching(context, mine, here) as near,
        watching(context, other, there) as far,
    ):
        for store, watch in ((mine, near), (other, far)):
            _ask(store, "a")
            _ask(store, "b", watch)
        _leave(mine, "a")
        here.expect(context, Counter({"key": 1}), "a left, and b was next")
        demand("CRD-7", not there.keys, "a watch of another namespace was told")
        _leave(other, "a")
        there.expect(context, Counter({"key": 1}), "a left in the other namespace, and b was next there")
        demand("CRD-7", here.keys == ["key"], "a watch of the first namespace was told of the other's place")


@check("CRD-7", needs="freed_places")
def the_watch_that_asked_last_is_told(context: CheckContext) -> None:
    """A holder that another consumer asks for is that one's: it is told, and a closed watch isn't."""
    former, present, own = Told(), Told(), Told()
    with (
        stores(context) as (store, other),
        watching(context, other, present) as new,
        watching(context, store, own) as mine,
    ):
        with watching(context, store, former) as old:
            _ask(store, "a")
            _ask(store, "b", old)
            _ask(other, "b", new)
            _ask(store, "c", old)
            _leave(store, "a")
            present.expect(context, Counter({"key": 1}), "a left, and b was next, who asked by another watch")
            demand("CRD-7", not former.keys, "the watch that asked for b before was told")
        _ask(other, "b")
        _leave(other, "b")  # c is next, whose watch is closed
        _ask(store, "c", mine)
        _ask(store, "d", mine)
        _leave(store, "c", watch=mine)
        _ask(store, "d")
        _ask(other, "e", new)
        _leave(store, "d")
        present.expect(context, Counter({"key": 2}), "d left, and e was next")
        demand("CRD-7", not own.keys, "who left a place itself was told of it")


@refusal("freed_places")
def a_watch_is_refused(context: CheckContext) -> None:
    """An adapter that tells nobody raises UnsupportedCapability, so that those who wait ask again."""
    with context.backends(1) as (backend,):
        try:
            backend.coordination.watch_places(lambda _key: None)
        except UnsupportedCapability:
            return
        raise AssertionError("a watch was not refused, and nobody is told")
