"""CRD-2: of writers that expect one version one succeeds, and the others change nothing."""

from collections.abc import Callable
from functools import partial
from typing import TypeVar

from ...domain.errors import BackendUnavailable, Closed
from ...ports import ABSENT, CoordinationStore, Guard, OrchestratorBackend, Place, Record
from ..check_context import CheckContext
from ..registry import check
from ..stores import expect_wins, stores
from ..violation import demand
from .races import at_once

AnswerT = TypeVar("AnswerT")

_ROUNDS = 15
_WRITERS = 6


@check("CRD-2", needs="coordination")
def a_write_that_expects_another_version_changes_nothing(context: CheckContext) -> None:
    """Neither a put nor a delete: with a stale version, a future one, or ABSENT where there is a record."""
    with stores(context) as (store, other):
        _expect_refused(store, "key", None, [1, 7, 1_000_000])
        stale = store.put("key", b"first")
        version = other.put("key", b"second", expected=stale)
        demand("CRD-2", version is not None, "a put with the right version was refused")
        assert stale is not None
        assert version is not None
        wrong = [ABSENT, stale, version + 1, version + 1_000_000]
        _expect_refused(store, "key", Record(b"second", version), wrong)
        demand("CRD-2", other.delete("key", expected=version), "a delete with the right version was refused")
        _expect_refused(store, "key", None, [stale, version])
        demand("CRD-2", not other.delete("key"), "a delete of what isn't there says that it was")
        again = store.put("key", b"third", expected=ABSENT)
        demand("CRD-2", again is not None, "after a delete, a put that expects no record was refused")
        demand("CRD-2", other.delete("key"), "a delete of what is there says that it wasn't")


def _expect_refused(store: CoordinationStore, key: str, there: Record | None, wrong: list[int]) -> None:
    for expected in wrong:
        written = store.put(key, b"wrong", expected=expected)
        found = f"a put that expects version {expected} of {there}"
        demand("CRD-2", written is None, f"{found} gave {written}")
        demand("CRD-2", store.get([key]).get(key) == there, f"{found} left {store.get([key])}")
        deleted = store.delete(key, expected=expected)
        found = f"a delete that expects version {expected} of {there}"
        demand("CRD-2", deleted is False, f"{found} was answered {deleted}")
        demand("CRD-2", store.get([key]).get(key) == there, f"{found} left {store.get([key])}")


@check("CRD-2", needs="coordination")
def of_writers_at_once_one_succeeds(context: CheckContext) -> None:
    """Six writers of two clients write a new record, or one version of it, at once: it is the winner's."""
    with stores(context) as both:
        for number in range(_ROUNDS):
            key, expected = f"key-{number // 3}", ABSENT
            if number % 3:
                expected = both[0].get([key])[key].version
            calls = [
                partial(both[n % 2].put, key, b"%d-%d" % (number, n), expected=expected)
                for n in range(_WRITERS)
            ]
            answers = at_once(context, *calls)
            (*winners,) = [n for n, version in enumerate(answers) if version is not None]
            expect_wins(len(winners), f"{_WRITERS} that expect version {expected} wrote a record")
            record = both[1].get([key])[key]
            own = Record(b"%d-%d" % (number, winners[0]), answers[winners[0]] or ABSENT)
            demand("CRD-2", record == own, f"the winner was told {own}, and there is {record}")


@check("CRD-2", needs="coordination")
def of_deletes_at_once_one_succeeds(context: CheckContext) -> None:
    """Clients delete a record, or delete and write one version of it, at once: one of them is told so."""
    with stores(context) as both:
        for number in range(_ROUNDS):
            version = both[0].put("key", b"%d" % number)
            expected = None if number % 3 == 0 else version
            calls: list[Callable[[], object]] = [
                partial(both[n % 2].delete, "key", expected=expected) for n in range(_WRITERS)
            ]
            if number % 3 == 2:
                calls[:2] = [partial(store.put, "key", b"new", expected=version) for store in both]
            answers = at_once(context, *calls)
            winners = [n for n, answer in enumerate(answers) if answer not in (None, False)]
            expect_wins(len(winners), f"{_WRITERS} deleted or wrote version {expected} of a record")
            was_put = number % 3 == 2 and winners[0] < 2
            there = both[1].get(["key"]).get("key")
            demand("CRD-2", (there is not None) == was_put, f"winner {winners[0]} left {there}")


@check("CRD-2", needs="coordination")
def no_update_is_lost(context: CheckContext) -> None:
    """Four that count in one record, each until ten of its writes succeeded, count to forty."""
    times = 10

    def count(store: CoordinationStore) -> list[int]:
        given: list[int] = []
        while len(given) < times:
            record = store.get(["count"])["count"]
            version = store.put("count", b"%d" % (int(record.value) + 1), expected=record.version)
            given += [] if version is None else [version]
        return given

    with stores(context) as both:
        both[0].put("count", b"0")
        answers = at_once(context, *[partial(count, both[n % 2]) for n in range(4)])
        counted = int(both[1].get(["count"])["count"].value)
        demand("CRD-2", counted == 4 * times, f"{4 * times} writes succeeded, and they count to {counted}")
        given = [version for answer in answers for version in answer]
        demand("CRD-1", len(set(given)) == len(given), "two writes gave one version")


@check("CRD-2", "CRD-1", needs="coordination")
def writers_that_expect_nothing_all_succeed(context: CheckContext) -> None:
    """Six write a record at once, whatever is there: each gets its own version, and the last one's stays."""
    with stores(context) as both:
        for number in range(_ROUNDS):
            calls = [partial(both[n % 2].put, "key", b"%d-%d" % (number, n)) for n in range(_WRITERS)]
            given = [version or ABSENT for version in at_once(context, *calls)]
            demand("CRD-1", len(set(given)) == _WRITERS, f"writes at once gave the versions {given}")
            record = both[0].get(["key"])["key"]
            writer = int(record.value.partition(b"-")[2])
            demand("CRD-2", given[writer] == record.version, f"{given} were given, and {record} is there")


@check("CON-2", "CRD-1", needs="coordination")
def a_closed_store_says_so(context: CheckContext) -> None:
    """It closes with its client, and closing it again does nothing; any other call then raises Closed."""
    place, guard = Place("key", 1, "holder"), Guard("key", ABSENT, b"")
    calls: dict[str, Callable[[CoordinationStore], object]] = {
        "now": lambda store: store.now(),
        "get": lambda store: store.get(["key"]),
        "scan": lambda store: store.scan("key"),
        "put": lambda store: store.put("key", b""),
        "delete": lambda store: store.delete("key"),
        "take_places": lambda store: store.take_places([place], ttl_s=60.0),
        "leave_places": lambda store: store.leave_places([place]),
        "reserve": lambda store: store.reserve("key", 1, interval_s=1.0),
    }
    with context.backends(2) as (mine, other):
        queue, store = context.queue_on(mine), mine.coordination
        store.put("key", b"mine")
        mine.close()
        store.close()
        store.close()
        for name, call in calls.items():
            error = context.failure_of(partial(call, store))
            demand("CON-2", isinstance(error, Closed), f"after close, {name} raised {error!r}")
        if context.capabilities.guarded_publish:
            error = context.failure_of(lambda: mine.publish_guarded(queue.name, queue.message("job"), guard))
            demand("CON-2", isinstance(error, Closed), f"after close, publish_guarded raised {error!r}")
        demand("CRD-1", "key" in other.coordination.get(["key"]), "a record went with its client")


@check("CON-1", "CRD-1", needs="coordination")
def a_store_survives_a_cut_connection(context: CheckContext) -> None:
    """After a cut each call works again; a write may raise BackendUnavailable, and then works."""
    with context.backends(1) as (backend,):
        store, sever = backend.coordination, partial(context.harness.sever, backend)
        given: list[int] = []
        for number in range(5):
            sever()
            value = b"%d" % number
            put = partial(store.put, "key", value)
            version = _unless_unavailable(put) or put()
            sever()
            record = store.get(["key"]).get("key")
            demand("CON-1", record == (value, version), f"{value!r} left {record}")
            assert record is not None
            demand("CRD-1", record.version not in given, f"{record} came after {given}")
            given.append(record.version)
        sever()
        demand("CON-1", list(store.scan("")) == ["key"], "after a cut, a scan doesn't find the record")
        sever()
        take = partial(store.take_places, [Place("key", 1, "a")], ttl_s=600.0)
        taken = _unless_unavailable(take) or take()
        sever()
        take_for_another = partial(store.take_places, [Place("key", 1, "b")], ttl_s=600.0)
        others = _unless_unavailable(take_for_another) or take_for_another()
        demand("CRD-5", (taken, others) == ([True], [False]), f"over a cut, places were {taken}, {others}")
        sever()
        deleted = _unless_unavailable(partial(store.delete, "key", expected=given[-1]))
        demand("CON-1", deleted is not False, "after a cut, a delete says that there was nothing")


def _unless_unavailable(call: Callable[[], AnswerT]) -> AnswerT | None:
    try:
        return call()
    except BackendUnavailable:
        return None


@check("CON-1", "CRD-2", needs="coordination")
def a_write_whose_reply_is_lost_is_answered_truly(context: CheckContext) -> None:
    """A put says its version and a delete that there was a record, or they raise BackendUnavailable."""
    with context.backends(2) as (mine, other):
        for expected in (ABSENT, None):
            key = f"key-{expected}"
            put = partial(mine.coordination.put, key, b"mine", expected=expected)
            version = _without_reply(context, mine, put)
            record = other.coordination.get([key]).get(key)
            found = "a put whose reply was lost says that the version was another"
            demand("CON-1", version is not None, found)
            if version != UNAVAILABLE:
                demand("CON-1", record == (b"mine", version), f"a put says {version}, and there is {record}")
        other.coordination.put("key", b"theirs")
        version = other.coordination.get(["key"])["key"].version
        deleted = _without_reply(context, mine, lambda: mine.coordination.delete("key", expected=version))
        left = other.coordination.get(["key"])
        demand("CON-1", deleted in (True, UNAVAILABLE), f"a delete whose reply was lost says {deleted}")
        demand("CON-1", deleted == UNAVAILABLE or not left, f"a delete says {deleted}, and there is {left}")
        place = Place("key", 1, "mine")
        taken = _without_reply(context, mine, lambda: mine.coordination.take_places([place], ttl_s=600.0))
        demand("CON-1", taken in ([True], UNAVAILABLE), f"a free place was answered {taken}")
        late = other.coordination.take_places([place._replace(holder="late")], ttl_s=600.0)
        demand("CRD-5", taken == UNAVAILABLE or late == [False], f"a place that was taken was {late}")
        _without_reply(context, mine, lambda: mine.coordination.reserve("key", 1, interval_s=600.0))
        other.coordination.reserve("key", 1, interval_s=600.0)  # takes it, if that request never arrived
        turns = other.coordination.reserve("key", 1, interval_s=600.0).waits_s
        demand("CRD-6", turns == [], f"after a reservation whose reply was lost, another got {turns}")


UNAVAILABLE = "unavailable"
"""Stands for an answer: it raised BackendUnavailable."""


def _without_reply(context: CheckContext, backend: OrchestratorBackend, call: Callable[[], object]) -> object:
    """Make a call whose reply is lost, if the harness can; return what it answered."""
    context.cut_reply(backend)
    try:
        return call()
    except BackendUnavailable:
        return UNAVAILABLE
