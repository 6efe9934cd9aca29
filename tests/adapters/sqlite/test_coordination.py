"""What a file keeps for coordination: what is particular to a file, its processes and its faults."""

import signal
import sqlite3
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import closing
from pathlib import Path
from textwrap import dedent
from typing import Any

import pytest

from background import Background
from conditions import LIMIT_S
from mindtrace.jobs import PublishStatus, QueueCounts, SQLiteClient
from mindtrace.jobs.adapters.sqlite import publish as publish_module
from mindtrace.jobs.adapters.sqlite.session import Session
from mindtrace.jobs.domain.errors import BackendUnavailable, Closed
from mindtrace.jobs.ports import ABSENT, CoordinationStore, Guard, Message, Place, Record, Reservation

from .conftest import Machine

TABLES = ("record", "place", "turn")
JOB = Message("job", b"{}")


@pytest.fixture
def store(client: SQLiteClient) -> CoordinationStore:
    return client.coordination


@pytest.fixture
def other(path: Path) -> Iterator[sqlite3.Connection]:
    """Another program's connection to the file."""
    with closing(sqlite3.connect(path, isolation_level=None)) as db:
        yield db


def count_rows(path: Path) -> dict[str, int]:
    with closing(sqlite3.connect(path)) as db:
        return {name: db.execute(f"SELECT count(*) FROM {name}").fetchone()[0] for name in TABLES}


# -- versions -------------------------------------------------------------------------------------


def test_no_version_of_a_key_comes_twice_not_even_in_another_process(
    client: SQLiteClient, path: Path
) -> None:
    """Nor after the record, or all of them, were deleted (CRD-1)."""
    versions = []
    for _ in range(3):
        with SQLiteClient(path) as again:
            store = again.coordination
            versions += [store.put("key", b"1"), store.put("key", b"2")]
            assert store.delete("key")
            assert count_rows(path)["record"] == 0
            versions.append(store.put("key", b"3", expected=ABSENT))
            assert store.delete("key", expected=versions[-1])

    assert None not in versions
    assert len(set(versions)) == len(versions)


def test_of_clients_that_expect_one_version_one_succeeds(path: Path) -> None:
    """So that none of their increments is lost (CRD-2)."""
    clients, each = 4, 50

    def increment(_: int) -> list[int]:
        versions = []
        with SQLiteClient(path, durability="snapshot") as client:
            while len(versions) < each:
                record = client.coordination.get(["n"]).get("n", Record(b"0", ABSENT))
                value = str(int(record.value) + 1).encode()
                version = client.coordination.put("n", value, expected=record.version)
                if version is not None:
                    versions.append(version)
        return versions

    with Background() as threads:
        versions = [version for one in threads.map(increment, range(clients)) for version in one]

    with SQLiteClient(path) as client:
        assert client.coordination.get(["n"])["n"].value == str(clients * each).encode()
    assert len(set(versions)) == clients * each


def test_keys_are_in_the_order_of_their_characters_and_a_prefix_is_no_pattern(
    store: CoordinationStore,
) -> None:
    """Whatever is special to SQL (CRD-1)."""
    keys = ["a", "a%", "a%b", "a_", "a_b", "aB", "ab", "a\u00e9", "a\U0001f600", "b"]
    for key in reversed(keys):
        store.put(key, key.encode())

    assert list(store.scan("")) == sorted(keys)
    for prefix in ("a", "a%", "a_", "ab", "a\U0001f600", "c"):
        assert list(store.scan(prefix)) == sorted(key for key in keys if key.startswith(prefix))


# -- what is over ---------------------------------------------------------------------------------


def test_records_places_and_rates_that_are_over_do_not_pile_up(machine: Machine, path: Path) -> None:
    """Of any namespace: those who wrote them may never come again."""
    with SQLiteClient(path, namespace="gone", durability="snapshot") as client:
        for number in range(1000):
            client.coordination.put(f"key-{number}", b"1", ttl_s=60.0)
            client.coordination.reserve(f"rate-{number}", 1, interval_s=60.0)
        client.coordination.take_places([Place("limit", 9, f"h-{n}") for n in range(1000)], ttl_s=60.0)
        client.coordination.put("stays", b"1")
    assert count_rows(path) == {"record": 1001, "place": 1000, "turn": 1000}
    machine.run(61.0)

    with SQLiteClient(path, durability="snapshot") as client:
        for number in range(11):
            client.coordination.put("key", str(number).encode())
            client.coordination.reserve("rate", 1, interval_s=60.0, burst=99)
        client.coordination.take_places([Place("limit", 1, "new")], ttl_s=60.0)
    assert count_rows(path) == {"record": 2, "place": 1, "turn": 1}


def test_times_are_those_of_the_file_whatever_the_calendar_says(machine: Machine, path: Path) -> None:
    """And go on while the machine is off (CRD-3)."""
    with SQLiteClient(path) as client:
        store = client.coordination
        assert store.now() == pytest.approx(machine.calendar_s)
        store.put("key", b"1", ttl_s=100.0)
        store.take_places([Place("limit", 1, "first")], ttl_s=100.0)
        store.reserve("rate", 1, interval_s=100.0)
        machine.calendar_s += 3600.0
        machine.run(40.0)
        assert "key" in store.get(["key"])
        assert store.reserve("rate", 1, interval_s=100.0) == Reservation([], 60.0)
    machine.calendar_s -= 3600.0
    machine.restart(off_s=50.0)

    with SQLiteClient(path) as client:
        store = client.coordination
        assert "key" in store.get(["key"])
        assert store.take_places([Place("limit", 1, "second")], ttl_s=100.0) == [False]
        machine.run(10.0)
        assert store.get(["key"]) == {}
        assert store.scan("") == {}
        assert not store.delete("key")
        assert store.take_places([Place("limit", 1, "second")], ttl_s=100.0) == [True]
        assert store.reserve("rate", 1, interval_s=100.0) == Reservation([0.0], 0.0)


@pytest.mark.parametrize("interval_s", [1.0, 0.1, 1 / 3, 0.07])
def test_turns_add_up_exactly(machine: Machine, store: CoordinationStore, interval_s: float) -> None:
    """One by one or many at once, none of a burst has to wait for a rounding error (CRD-6)."""
    burst = 10
    one_by_one = [store.reserve("a", 1, interval_s=interval_s, burst=burst) for _ in range(burst)]
    assert one_by_one == [Reservation([0.0], 0.0)] * burst
    at_once = store.reserve("b", burst + 1, interval_s=interval_s, burst=burst)
    assert at_once.waits_s == [0.0] * burst
    assert interval_s <= at_once.retry_s <= interval_s + 2e-6

    machine.run(at_once.retry_s)
    assert store.reserve("b", 1, interval_s=interval_s, burst=burst) == Reservation([0.0], 0.0)


# -- guarded publishes ----------------------------------------------------------------------------


def test_a_publisher_that_is_killed_in_a_guarded_publish_leaves_neither_record_nor_job(
    client: SQLiteClient, path: Path
) -> None:
    """After it has written the record and the job, and before it commits (CRD-4)."""
    program = dedent(f"""
        import os, signal
        from mindtrace.jobs import SQLiteClient
        from mindtrace.jobs.adapters.sqlite import publish
        from mindtrace.jobs.ports import Guard, Message

        def publish_and_die(tx, messages, publish=publish.publish):
            publish(tx, messages)
            for table in ("job", "record"):
                assert tx.db.execute(f"SELECT count(*) FROM {{table}}").fetchone() == (1,)
            os.kill(os.getpid(), signal.SIGKILL)

        publish.publish = publish_and_die
        SQLiteClient({str(path)!r}).publish_guarded("points", Message("job", b""), Guard("slot", 0, b"1"))
    """)
    died = subprocess.run([sys.executable, "-c", program], check=False, timeout=LIMIT_S)
    assert died.returncode == -signal.SIGKILL
    assert client.coordination.get(["slot"]) == {}
    assert client.counts("points") == QueueCounts(0, 0, 0, 0)

    outcome = client.publish_guarded("points", JOB, Guard("slot", ABSENT, b"1"))
    assert outcome is not None
    assert outcome.status is PublishStatus.ACCEPTED


def test_a_guarded_publish_that_fails_writes_no_record(
    client: SQLiteClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever it fails for (CRD-4)."""

    def fail(*_: object) -> None:
        raise ZeroDivisionError

    monkeypatch.setattr(publish_module, "publish", fail)
    with pytest.raises(ZeroDivisionError):
        client.publish_guarded("points", JOB, Guard("slot", ABSENT, b"1"))

    assert client.coordination.get(["slot"]) == {}


# -- files in trouble -----------------------------------------------------------------------------

CALLS: dict[str, Callable[[CoordinationStore], object]] = {
    "put": lambda store: store.put("key", b"2"),
    "delete": lambda store: store.delete("key"),
    "take_places": lambda store: store.take_places([Place("limit", 1, "me")], ttl_s=60.0),
    "leave_places": lambda store: store.leave_places([Place("limit", 1, "me")]),
    "reserve": lambda store: store.reserve("rate", 1, interval_s=60.0),
}
READS: dict[str, Callable[[CoordinationStore], object]] = {
    "now": lambda store: store.now(),
    "get": lambda store: store.get(["key"]),
    "scan": lambda store: store.scan(""),
}


def test_a_locked_file_is_read_and_each_write_to_it_is_refused(
    client: SQLiteClient, path: Path, other: sqlite3.Connection
) -> None:
    client.coordination.put("key", b"1")
    with SQLiteClient(path, retry_timeout_s=0.05) as waiting:
        waiting.counts("points")
        waiting.coordination.now()
        other.execute("BEGIN IMMEDIATE")
        for call in CALLS.values():
            with pytest.raises(BackendUnavailable, match="locked for longer than retry_timeout_s"):
                call(waiting.coordination)
        for read in READS.values():
            read(waiting.coordination)
        outcome = waiting.publish_guarded("points", JOB, Guard("slot", ABSENT, b"1"))
        assert outcome is not None
        assert outcome.status is PublishStatus.REJECTED
        assert isinstance(outcome.error, BackendUnavailable)
        other.execute("ROLLBACK")
    assert client.coordination.get(["key", "slot"]).keys() == {"key"}
    assert client.counts("points").ready == 0


def test_a_reader_is_not_held_up_by_a_long_call_of_its_client(client: SQLiteClient) -> None:
    """A consumer asks whether it is paused, while another thread publishes many jobs."""
    client.coordination.put("paused", b"1")
    publishing, done = threading.Event(), threading.Event()

    def publish_for_long(*_: object) -> None:
        publishing.set()
        assert done.wait(30)

    with Background() as thread:
        call = thread.submit(client._session.write, publish_for_long)
        assert publishing.wait(30)
        found = client.coordination.get(["paused"])
        assert not call.done()
        done.set()
        call.result(30)
    assert found["paused"].value == b"1"


def test_a_closed_client_has_closed_its_store(client: SQLiteClient) -> None:
    store = client.coordination
    store.put("key", b"1")
    client.close()
    for call in (*CALLS.values(), *READS.values()):
        with pytest.raises(Closed, match="SQLiteCoordinationStore"):
            call(store)
    store.close()


ODD_VALUES = [
    "'many'",
    "'7'",
    "x'ff00'",
    "CAST(x'ff' AS TEXT)",
    "-5",
    "0",
    "9223372036854775807",
    "0.5",
    "9e999",
]
COLUMNS = {
    "record": ("namespace", "key", "value", "ends"),
    "place": ("number", "namespace", "key", "holder", "is_taken", "ends"),
    "turn": ("namespace", "key", "ends"),
}


@pytest.mark.parametrize(
    ("table", "column"), [(table, column) for table, columns in COLUMNS.items() for column in columns]
)
def test_an_odd_value_in_any_column_costs_at_most_its_own_record(
    path: Path, other: sqlite3.Connection, table: str, column: str
) -> None:
    """No call raises, and the neighbours are what they were."""
    for number, value in enumerate(ODD_VALUES):
        with SQLiteClient(path, namespace=f"ns-{number}", durability="snapshot") as client:
            store = client.coordination
            for key in ("one", "two", "three"):
                store.put(key, key.encode(), ttl_s=60.0)
                assert store.take_places([Place(key, 1, "me")], ttl_s=60.0) == [True]
                store.reserve(key, 1, interval_s=60.0)
            try:
                other.execute(
                    f"UPDATE {table} SET {column} = {value} WHERE namespace = ? AND key = 'two'",
                    (f"ns-{number}",),
                )
            except sqlite3.IntegrityError:  # no row of SQLite can have it
                continue
            expect_the_neighbours(store)


def expect_the_neighbours(store: CoordinationStore) -> None:
    for records in (store.scan(""), store.get(["one", "two", "three"])):
        assert {key: record.value for key, record in records.items() if key in ("one", "three")} == {
            "one": b"one",
            "three": b"three",
        }
    for key in ("one", "three"):
        assert store.take_places([Place(key, 1, "you"), Place(key, 1, "me")], ttl_s=60.0) == [False, True]
        assert store.reserve(key, 1, interval_s=60.0).waits_s == []
    store.take_places([Place("two", 1, "you")], ttl_s=60.0)
    store.reserve("two", 1, interval_s=60.0)
    store.put("two", b"again")
    assert store.get(["two"])["two"].value == b"again"
    assert store.delete("two")
    store.leave_places([Place("two", 1, "me"), Place("two", 1, "you")])


# -- places -----------------------------------------------------------------------------------------


def test_places_are_taken_and_left_without_a_sync(
    store: CoordinationStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What a crash of the machine takes away is of workers that it ended, too (ADR 142)."""
    synchronous: list[str] = []
    write = Session.write

    def noted(session: Session, work: Any) -> Any:
        synchronous.append(session._settings.synchronous)
        return write(session, work)

    monkeypatch.setattr(Session, "write", noted)
    place = Place("limit", 1, "me")
    assert store.take_places([place], ttl_s=60.0) == [True]
    assert store.take_places([place], ttl_s=60.0, leaving=[place]) == [True]
    store.leave_places([place])
    assert synchronous == ["NORMAL"] * 3
    store.put("record", b"")
    assert synchronous[3:] == ["FULL"]
