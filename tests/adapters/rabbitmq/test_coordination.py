"""A coordination store that clients of several namespaces borrow: none sees another's records."""

from collections.abc import Callable, Iterator

import pytest

from mindtrace.jobs import LocalClient
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.rabbitmq.coordination import BorrowedCoordinationStore
from mindtrace.jobs.domain.errors import Closed
from mindtrace.jobs.ports import ABSENT, CoordinationStore, Migration, Place


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def store(clock: ManualClock) -> Iterator[CoordinationStore]:
    """The store that is lent."""
    with LocalClient(clock=clock) as client:
        yield client.coordination


@pytest.fixture
def one(store: CoordinationStore) -> BorrowedCoordinationStore:
    return BorrowedCoordinationStore(store, "one/")


@pytest.fixture
def two(store: CoordinationStore) -> BorrowedCoordinationStore:
    return BorrowedCoordinationStore(store, "two/")


def test_records_are_kept_apart(one: CoordinationStore, two: CoordinationStore) -> None:
    """Under the keys that the caller gave (CRD-1, CRD-2, CON-2)."""
    version = one.put("k/a", b"1", expected=ABSENT)
    assert two.put("k/a", b"2", expected=ABSENT) is not None
    assert one.put("k/a", b"3", expected=ABSENT) is None
    two.put("k/b", b"4")

    assert {key: record.value for key, record in one.scan("k/").items()} == {"k/a": b"1"}
    assert {key: record.value for key, record in two.scan("").items()} == {"k/a": b"2", "k/b": b"4"}
    assert one.get(["k/a", "k/b"]) == {"k/a": (b"1", version)}
    assert not one.delete("k/b")
    assert not two.delete("k/a", expected=version)
    assert one.delete("k/a", expected=version)
    assert list(two.scan("k/")) == ["k/a", "k/b"]


def test_a_namespace_that_begins_like_another_is_kept_apart(store: CoordinationStore) -> None:
    one, longer = (BorrowedCoordinationStore(store, prefix) for prefix in ("mtj:a/", "mtj:a.b/"))
    one.put("k", b"1")
    longer.put("k", b"2")

    assert one.scan("")["k"].value == b"1"
    assert len(one.scan("")) == 1


def test_the_time_and_times_are_those_of_the_store(one: CoordinationStore, clock: ManualClock) -> None:
    """It has no clock of its own (CRD-3)."""
    one.put("k", b"", ttl_s=5.0)
    assert one.now() == clock.now()

    clock.advance(5.0)
    assert one.now() == clock.now()
    assert one.get(["k"]) == {}


def test_places_are_kept_apart(one: CoordinationStore, two: CoordinationStore) -> None:
    """Of each namespace, a holder has the only place; it ends after its time (CRD-5)."""
    a, b = Place("k", 1, "a"), Place("k", 1, "b")
    assert one.take_places([a, b], ttl_s=60.0) == [True, False]
    assert two.take_places([b], ttl_s=60.0) == [True]

    two.leave_places([a])
    assert one.take_places([b], ttl_s=60.0) == [False]
    one.leave_places([a])
    assert one.take_places([b], ttl_s=60.0) == [True]


def test_turns_are_kept_apart(one: CoordinationStore, two: CoordinationStore) -> None:
    """Each namespace has its own rate, by all that the caller asks for (CRD-6)."""
    for store in (one, two):
        assert store.reserve("k", 3, interval_s=10.0, burst=2, max_wait_s=5.0) == ([0.0, 0.0], 10.0)


CALLS: dict[str, Callable[[CoordinationStore], object]] = {
    "now": lambda store: store.now(),
    "get": lambda store: store.get(["k"]),
    "scan": lambda store: store.scan(""),
    "put": lambda store: store.put("k", b""),
    "delete": lambda store: store.delete("k"),
    "take_places": lambda store: store.take_places([Place("k", 1, "a")], ttl_s=1.0),
    "leave_places": lambda store: store.leave_places([Place("k", 1, "a")]),
    "reserve": lambda store: store.reserve("k", 1, interval_s=1.0),
}


@pytest.mark.parametrize("call", CALLS.values(), ids=CALLS)
def test_closing_it_leaves_the_store_open(
    one: CoordinationStore, two: CoordinationStore, call: Callable[[CoordinationStore], object]
) -> None:
    """Others may use that (CON-2)."""
    one.close()
    one.close()

    with pytest.raises(Closed, match="this RabbitMQClient is closed"):
        call(one)
    call(two)


class Tables(BorrowedCoordinationStore):
    """A store with a URL, and with tables of an earlier release."""

    missing = (Migration("there", 2, "…"),)

    def pending_migrations(self) -> tuple[Migration, ...]:
        return self.missing

    def migrate(self) -> tuple[Migration, ...]:
        made, self.missing = self.missing, ()
        return made

    def make_url(self, *, with_passwords: bool = False) -> str:
        return f"there://{'secret@' if with_passwords else ''}host"


def test_its_tables_and_its_url_are_those_of_the_store(store: CoordinationStore) -> None:
    one = BorrowedCoordinationStore(Tables(store, ""), "one/")

    assert one.pending_migrations() == one.migrate() == Tables.missing
    assert one.pending_migrations() == ()
    assert one.make_url() == "there://host"
    assert one.make_url(with_passwords=True) == "there://secret@host"
