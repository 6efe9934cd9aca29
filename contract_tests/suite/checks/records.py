"""CRD-1: records of the coordination store are kept whole, each write with a version of its own."""

from collections.abc import Callable, Iterable
from functools import partial

from hypothesis import strategies as st

from ...domain import Queue
from ...ports import ABSENT, CoordinationStore, Place, Record
from ...ports.coordination import MAX_KEY_CHARS, MAX_VALUE_BYTES
from ..check_context import CheckContext
from ..registry import check
from ..stores import end_of, stores, timed, wait_until_over
from ..violation import demand
from .races import at_once

_KEYS = [
    *("a", "A", "b", "ab", " a", "a ", "a  ", "a b", "0", "00", "-1", "None"),
    *("a:", "a:b", "a::b", "a/b", "a.b", "a*", "a*b", "a?", "a[b]", "a[", "{a}", "a{b}c"),
    *("a_", "a_b", "a%", "a%b", "a\\", "a\\b", "a\\_", "a'b", 'a"b', "a;b", "a--", "$1", "a,b"),
    *("ä", "Ä", "a\u0308", "ß", "ss", "SS", "\u0131", "i", "\u0130", "ж", "Ж"),
    *("\uffe6", "\U0001f600", "a\uffe6", "a\U0001f600", "ü\U0001f600"),
    *("x" * MAX_KEY_CHARS, "x" * (MAX_KEY_CHARS - 1) + "y", "X" * MAX_KEY_CHARS, "x" * 255, "x" * 256),
    *("ж" * MAX_KEY_CHARS, "\U0001f600" * MAX_KEY_CHARS),
]
"""Keys that are all different, though one store or another takes some for the same, or for a pattern."""

_PREFIXES = [
    *("", "a", "A", "a ", "a:", "a*", "a?", "a[", "a[b]", "{", "a_", "a%", "a\\", "a\\_", "a'", "$", "."),
    *("ä", "ß", "ж", "\uffe6", "\U0001f600", "a\uffe6", "i", "x", "x" * (MAX_KEY_CHARS - 1)),
    *("x" * MAX_KEY_CHARS, "nothing", "*", "%", "_"),
]

_VALUES = [
    *(b"", b"\0", b"a\0b", b"\0a", b"a\0", bytes(range(256)), b"\xff\xfe", b"\xc3", "größe".encode()),
    *(b" a ", b"a\r\n", b"007", b"1e5", b"null", b"true", b"{}", b'"a"', b"\\x41", b"'"),
    *(b"\0" * MAX_VALUE_BYTES, b"a" * MAX_VALUE_BYTES, (bytes(range(256)) * 256)[-MAX_VALUE_BYTES:]),
]

_MANY = 1200
"""More records than a store returns in one page."""
_HALF = _MANY // 2
_SOON_S = (0.5, 4.0)
"""Long enough to write so many; the second on a machine that is busy."""


def _shown(keys: Iterable[str]) -> list[str]:
    return [f"{key:.20}" for key in keys]


def _expect(store: CoordinationStore, key: str, value: bytes, when: str) -> Record:
    """Demand that a record is there with this value, and return it."""
    record = store.get([key]).get(key)
    demand("CRD-1", record is not None, f"{when}, there is no record {key!r:.40}")
    assert record is not None
    demand("CRD-1", type(record.value) is bytes, f"{when}, a value is of type {type(record.value)}")
    same = record.value == value
    demand("CRD-1", same, f"{when}, {key!r:.40} holds {record.value!r:.60}, not {value!r:.60}")
    return record


@check("CRD-1", needs="coordination")
def keys_are_told_apart(context: CheckContext) -> None:
    """Each of many similar keys has its own record: in another case, longer, in other letters, padded."""
    with stores(context) as (store, other):
        for key in _KEYS:
            version = store.put(key, key.encode(), expected=ABSENT)
            demand("CRD-1", version is not None, f"{key!r:.40} is taken for another key")
        found = other.get([*_KEYS, _KEYS[0], "nothing"])
        demand("CRD-1", found.keys() == set(_KEYS), f"{_shown(set(_KEYS) ^ found.keys())} differ")
        for key in _KEYS:
            _expect(other, key, key.encode(), "with many similar keys")
        for key in _KEYS[::2]:
            demand("CRD-1", store.delete(key), f"{key!r:.40} couldn't be deleted")
        left = other.get(_KEYS).keys()
        demand("CRD-1", left == set(_KEYS[1::2]), f"after deletes, {_shown(set(_KEYS[1::2]) ^ left)} differ")
        demand("CRD-1", store.get([]) == {}, "asked for no key, it returned records")


@check("CRD-1", needs="coordination")
def a_scan_returns_what_begins_with_the_prefix(context: CheckContext) -> None:
    """Exactly those keys, in their order: no character of a prefix stands for another."""
    with stores(context) as (store, other):
        versions = {key: store.put(key, key.encode()) for key in reversed(_KEYS)}
        for prefix in _PREFIXES:
            found = other.scan(prefix)
            expected = sorted(key for key in _KEYS if key.startswith(prefix))
            differ = found.keys() ^ set(expected)
            demand("CRD-1", not differ, f"a scan of {prefix!r:.40} differs in {_shown(differ)}")
            demand("CRD-1", list(found) == expected, f"a scan is in the order {_shown(found)}")
            wrong = [
                key for key, record in found.items() if record != (key.encode(), versions.get(key, ABSENT))
            ]
            demand("CRD-1", not wrong, f"a scan returns other records of {_shown(wrong)}")


@check("CRD-1", needs="coordination")
def values_are_kept_whole(context: CheckContext) -> None:
    """A value comes back as it was: empty, with any byte, or 64 KiB long, after a longer one."""
    with stores(context) as (store, other):
        for value in _VALUES:
            store.put("key", value)
            _expect(other, "key", value, "after a put")
            scanned = other.scan("key")["key"].value
            demand("CRD-1", scanned == value, f"a scan returns {scanned!r:.60}, not {value!r:.60}")

        @context.property(value=st.binary(max_size=300))
        def _(value: bytes) -> None:
            store.put("key", value)
            _expect(other, "key", value, "after a put")


@check("CRD-1", "CRD-3", needs="coordination")
def no_version_comes_twice(context: CheckContext) -> None:
    """Each write gives a version of its own, also of the same value, after a delete and after an expiry."""
    with stores(context, 3) as (store, other, third):
        given: list[int] = []

        def note(version: int | None, how: str) -> None:
            demand("CRD-1", isinstance(version, int) and version > ABSENT, f"{how} gave version {version}")
            assert version is not None
            demand("CRD-1", version not in given, f"{how} gave version {version} again, after {given}")
            record = third.get(["key"])["key"]
            demand("CRD-1", record.version == version, f"{how} gave {version}, and get {record.version}")
            given.append(version)

        for round_ in range(3):
            note(store.put("key", b"same", expected=ABSENT), "a put where there was none")
            note(other.put("key", b"same"), "a put of the same value")
            note(store.put("key", b"same", expected=given[-1]), "a put with the right version")
            note(other.put("key", b"another"), "a put of another value")
            store.put("other", b"")
            store.delete("key", expected=given[-1] if round_ else None)
            note(other.put("key", b"same"), "a put after a delete")
            put = timed(store, partial(store.put, "key", b"same", ttl_s=0.05))
            note_if_there(put.answer, given)
            wait_until_over(context, store, end_of(put, 0.05))
            left = third.get(["key"])
            demand("CRD-3", left == {}, f"put for 0.05 s, a record is there after that: {left}")
            for old in given:
                late = other.put("key", b"late", expected=old)
                demand("CRD-1", late is None, f"version {old} of a record that ended came back")
        note(store.put("key", b"same"), "the last put")
        for old in given[:-1]:
            demand("CRD-1", store.put("key", b"late", expected=old) is None, f"version {old} came back")
            demand("CRD-1", not store.delete("key", expected=old), f"version {old} came back")


def note_if_there(version: int | None, given: list[int]) -> None:
    """Note the version of a record that may have ended before it can be read."""
    demand("CRD-1", version is not None and version not in given, f"{version} was given after {given}")
    assert version is not None
    given.append(version)


@check("CRD-1", needs="coordination")
def many_records_are_found(context: CheckContext) -> None:
    """Of 1,200 records one call gets all, and a scan finds all, in order."""
    keys = [f"key-{number:04}" for number in range(_MANY)]

    def put(store: CoordinationStore, some: list[str]) -> None:
        for key in some:
            store.put(key, key.encode())

    with stores(context) as both:
        store, other = both
        at_once(context, *[partial(put, both[n % 2], keys[n::8]) for n in range(8)])
        found = other.get(keys)
        wrong = [key for key in keys if key not in found or found[key].value != key.encode()]
        demand("CRD-1", not wrong, f"of {_MANY} records, one call doesn't get {len(wrong)}: {wrong[:3]}")
        scanned = store.scan("key-")
        demand("CRD-1", list(scanned) == keys, f"a scan found {len(scanned)} of {_MANY}, or in another order")
        demand("CRD-1", scanned == found, "a scan and a get return different records")
        part = list(store.scan("key-11"))
        demand("CRD-1", part == keys[1100:], f"a scan found {len(part)} of 100")


@check("CRD-1", "CRD-3", needs="coordination")
def what_stands_behind_many_that_ended_is_found(context: CheckContext) -> None:
    """A scan passes over 600 records that have ended, more than a page, and finds those behind them."""
    ended = [f"key-{number:04}" for number in range(_HALF)]

    def put(store: CoordinationStore, some: list[str], ttl_s: float) -> None:
        for key in some:
            store.put(key, b"", ttl_s=ttl_s)

    with stores(context) as both:
        both[0].put("key-last", b"last")
        for ttl_s in _SOON_S:
            calls = [partial(put, both[n % 2], ended[n::8], ttl_s) for n in range(8)]
            puts = timed(both[0], partial(at_once, context, *calls))
            wait_until_over(context, both[0], end_of(puts, ttl_s))
            if puts.after - puts.before < ttl_s:
                break  # else a write may have removed some, before the last was written
        found = _shown(both[1].scan("key-"))
        demand("CRD-1", found == ["key-last"], f"behind {_HALF} that ended, a scan found {found}")


@check("CRD-1", needs="coordination")
def records_outlive_their_clients_and_queues(context: CheckContext) -> None:
    """A record is there after its client has closed, and after queues were purged, deleted and redeclared."""
    with context.backends(2) as (mine, other):
        queue = context.queue_on(other)
        version = mine.coordination.put("jobs", b"mine")
        mine.coordination.put("ends later", b"mine", ttl_s=3600.0)
        mine.close()
        acts: dict[str, Callable[[], object]] = {
            "after its client closed": lambda: None,
            "after a purge": lambda: other.purge(queue.name),
            "after a delete": lambda: other.delete(queue.name),
            "after a redeclaration": lambda: other.declare(Queue(queue.name)),
        }
        for when, act in acts.items():
            act()
            record = _expect(other.coordination, "jobs", b"mine", when)
            demand("CRD-1", record.version == version, f"{when}, its version is {record.version}")
            _expect(other.coordination, "ends later", b"mine", when)


@check("CRD-1", needs="coordination")
def records_places_rates_and_queues_share_no_key(context: CheckContext) -> None:
    """A record, a limit, a rate and a queue may all be named the same."""
    with context.backends(1) as (backend,):
        queue, store = context.queue_on(backend, name="same"), backend.coordination
        queue.publish("same")
        taken = store.take_places([Place("same", 1, "same")], ttl_s=600.0)
        turns = store.reserve("same", 1, interval_s=600.0)
        demand("CRD-5", taken == [True], f"beside a queue of its name, a place was {taken}")
        demand("CRD-6", turns.waits_s == [0.0], f"beside a limit of its name, a turn was {turns}")
        scanned = store.scan("")
        demand("CRD-1", scanned == {}, f"a scan shows {_shown(scanned)}, which are no records")
        version = store.put("same", b"same", expected=ABSENT)
        demand("CRD-1", version is not None, "a limit or a rate is taken for a record")
        demand("CRD-1", store.delete("same"), "the record can't be deleted")
        taken = store.take_places([Place("same", 1, "other")], ttl_s=600.0)
        demand("CRD-5", taken == [False], f"after a delete of the record, another's place was {taken}")
        turns = store.reserve("same", 1, interval_s=600.0)
        demand("CRD-6", turns.waits_s == [], f"after a delete of the record, a turn was {turns}")
        queue.expect_counts(ready=1)


@check("CON-2", needs="coordination")
def stores_of_two_namespaces_never_meet(context: CheckContext) -> None:
    """Records, places and turns of one namespace are unknown in another."""
    place = Place("key", 1, "holder")
    with stores(context, 1) as (mine,), stores(context, 1) as (other,):
        version = mine.put("key", b"mine")
        taken = [
            store.take_places([place._replace(holder=store_name)], ttl_s=600.0)
            for store_name, store in (("mine", mine), ("other", other))
        ]
        turns = [store.reserve("key", 1, interval_s=600.0).waits_s for store in (mine, other)]
        demand("CON-2", other.get(["key"]) == {} == other.scan(""), "another namespace's record is there")
        demand("CON-2", taken == [[True], [True]], f"places of two namespaces: {taken}")
        demand("CON-2", turns == [[0.0], [0.0]], f"turns of two namespaces: {turns}")
        demand("CON-2", not other.delete("key"), "another namespace's record can be deleted")
        other.leave_places([place._replace(holder="mine")])
        other.put("key", b"other")
        record = mine.get(["key"])["key"]
        demand("CON-2", record == (b"mine", version), f"after another namespace's put, there is {record}")
        late = mine.take_places([place._replace(holder="late")], ttl_s=600.0)
        demand("CON-2", late == [False], "another namespace gave a place back")
