"""PostgreSQL's coordination store: many threads, lost answers, ended backends, poolers and roles."""

import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from datetime import timedelta
from pathlib import Path
from typing import Any, TypeVar
from uuid import uuid4

import psycopg
import pytest

from background import Background
from brokers.fixtures import StartPgBouncer, StartPostgreSQL
from brokers.postgresql_server import Address, make_schema
from brokers.proxy import Disruption, Proxy
from conditions import LIMIT_S, eventually
from mindtrace.jobs import PostgreSQLClient, PostgreSQLCoordinationStore, PublishStatus, Queue
from mindtrace.jobs.adapters.postgresql import schema
from mindtrace.jobs.errors import BackendUnavailable, BrokerUnsuitable, Closed, MigrationNeeded
from mindtrace.jobs.ports import (
    ABSENT,
    CoordinationStore,
    Guard,
    Message,
    Place,
    Record,
)

from .postgresql_releases import SHIPPED, make_release
from .postgresql_tries import connected, three_tries

THREADS = 16
JOB = Message("a", b"marked body")

AnswerT = TypeVar("AnswerT")


@pytest.fixture
def namespace(postgresql_address: Address) -> Iterator[str]:
    """A schema of one's own."""
    yield from make_schema(postgresql_address)


@pytest.fixture
def client(postgresql_address: Address, namespace: str) -> Iterator[PostgreSQLClient]:
    """A client with a queue, whose calls try for long."""
    with client_of(postgresql_address, namespace) as client:
        client.declare(Queue("jobs"))
        yield client


@pytest.fixture
def store(client: PostgreSQLClient) -> CoordinationStore:
    return client.coordination


@pytest.fixture
def admin(postgresql_address: Address, namespace: str) -> "Iterator[psycopg.Connection[Any]]":
    """A plain connection, to which the tables are known by their names."""
    with postgresql_address.connect() as admin:
        admin.execute(f'SET search_path = "{namespace}"')
        yield admin


def client_of(address: Address, namespace: str, **options: Any) -> PostgreSQLClient:
    return address.client(namespace, **({"retry_timeout_s": LIMIT_S} | options))


def in_threads(call: Callable[[int], AnswerT]) -> list[AnswerT]:
    """Have each of many threads call, all of them at once, and return the answers."""
    start = threading.Barrier(THREADS, timeout=LIMIT_S)

    def run(number: int) -> AnswerT:
        start.wait()
        return call(number)

    with Background() as threads:
        return threads.map(run, range(THREADS))


# -- many at one key ------------------------------------------------------------------------------


def test_of_writers_that_expect_no_record_one_succeeds(store: CoordinationStore) -> None:
    for key in ("a", "b", "c", "d"):
        written = in_threads(lambda number, key=key: store.put(key, b"%d" % number, expected=ABSENT))
        (winner,) = [number for number, version in enumerate(written) if version is not None]
        assert store.get([key]) == {key: Record(b"%d" % winner, written[winner])}


def test_writers_that_count_up_by_the_expected_version_lose_no_step(store: CoordinationStore) -> None:
    store.put("count", b"0")

    def count_up(_: int) -> list[int]:
        versions = []
        while len(versions) < 10:
            found = store.get(["count"])["count"]
            version = store.put("count", b"%d" % (int(found.value) + 1), expected=found.version)
            if version is not None:
                versions.append(version)
        return versions

    versions = [version for those in in_threads(count_up) for version in those]
    assert store.get(["count"])["count"].value == b"%d" % (10 * THREADS)
    assert len(set(versions)) == len(versions)


def test_never_more_than_the_limit_have_a_place_and_each_gets_its_turn(store: CoordinationStore) -> None:
    """Of two keys, which threads name in opposite orders (CRD-5)."""
    limit, lock = 3, threading.Lock()
    having, most = Counter[str](), Counter[str]()

    def have_turns(number: int) -> None:
        keys = ["one", "two"] if number % 2 else ["two", "one"]
        places = [Place(key, limit, f"holder-{number}") for key in keys]
        for _ in range(5):
            had = set[str]()
            while had != set(keys):
                taken = store.take_places(places, ttl_s=600.0)
                got = {place.key for place, has_it in zip(places, taken, strict=True) if has_it}
                with lock:
                    having.update(got)
                    for key in keys:
                        most[key] = max(most[key], having[key])
                with lock:
                    having.subtract(got)
                store.leave_places([place for place in places if place.key in got])
                had |= got

    in_threads(have_turns)
    assert all(1 <= most[key] <= limit for key in ("one", "two")), most
    assert store.take_places([Place(key, 1, "other") for key in most], ttl_s=1.0) == [True, True]


def test_calls_that_name_keys_in_opposite_orders_do_not_deadlock(start_postgresql: StartPostgreSQL) -> None:
    server = start_postgresql(fsync="off")
    with server.client(retry_timeout_s=LIMIT_S) as client:
        store = client.coordination

        def take(number: int) -> None:
            keys = [f"key-{place}" for place in range(20)]
            places = [Place(key, 5, f"holder-{number}") for key in (keys if number % 2 else keys[::-1])]
            for _ in range(10):
                assert len(store.take_places(places, ttl_s=600.0)) == len(places)
                store.leave_places(places[::2])

        in_threads(take)
    assert "deadlock" not in server.log()


def test_turns_that_many_reserve_are_an_interval_apart(store: CoordinationStore) -> None:
    """The interval is so long that the test takes none of it (CRD-6)."""
    interval_s = 10_000.0

    def reserve(_: int) -> list[float]:
        waits_s = []
        for count in (1, 2, 3):
            reserved = store.reserve("rate", count, interval_s=interval_s, burst=4, max_wait_s=1e9)
            assert (len(reserved.waits_s), reserved.retry_s) == (count, 0.0)
            waits_s += reserved.waits_s
        return waits_s

    turns = Counter(round(wait_s / interval_s) for those in in_threads(reserve) for wait_s in those)
    assert turns == {0: 4} | dict.fromkeys(range(1, 6 * THREADS - 3), 1)
    refused = store.reserve("rate", 1, interval_s=interval_s, burst=4)
    assert refused.waits_s == []
    assert round(refused.retry_s / interval_s) == 6 * THREADS - 3


def test_an_interval_between_two_microseconds_is_rounded_up(
    store: CoordinationStore, admin: "psycopg.Connection[Any]"
) -> None:
    """As on the other backends: rounded to the nearest one, turns would come sooner than the rate allows."""

    def turn() -> Any:
        assert store.reserve("rate", 1, interval_s=600.000_000_4, max_wait_s=1e6).waits_s
        row = admin.execute("SELECT turn FROM rate WHERE key = 'rate'").fetchone()
        assert row is not None
        return row[0]

    first, second = turn(), turn()
    assert (second - first) / timedelta(microseconds=1) == 600_000_001


def test_of_guarded_publishes_that_expect_one_version_one_publishes(client: PostgreSQLClient) -> None:
    def publish(number: int) -> PublishStatus | None:
        outcome = client.publish_guarded(
            "jobs", Message(f"j{number}", b""), Guard("slot", ABSENT, b"%d" % number)
        )
        return outcome and outcome.status

    answers = in_threads(publish)
    assert Counter(answers) == {PublishStatus.ACCEPTED: 1, None: THREADS - 1}
    assert client.counts("jobs").ready == 1
    with client.open_consumer("jobs") as consumer:
        (held,) = consumer.receive(1, LIMIT_S)
    assert held.id == f"j{client.coordination.get(['slot'])['slot'].value.decode()}"


def test_a_guarded_publish_wakes_a_waiting_consumer(postgresql_address: Address, namespace: str) -> None:
    with (
        client_of(postgresql_address, namespace, poll_s=600.0) as waiting,
        client_of(postgresql_address, namespace) as client,
        Background() as thread,
    ):
        client.declare(Queue("jobs"))
        with waiting.open_consumer("jobs") as consumer:
            received = thread.submit(consumer.receive, 1, 600.0)
            eventually(lambda: client_waits(client), "the consumer waits")
            client.publish_guarded("jobs", JOB, Guard("slot", ABSENT, b""))
            assert [each.id for each in received.result(LIMIT_S)] == ["a"]


def client_waits(client: PostgreSQLClient) -> bool:
    """Whether a connection listens, and the last look after the announcement is over."""
    with psycopg.connect(client.make_url(with_passwords=True).partition("?")[0], autocommit=True) as admin:
        rows = admin.execute(
            "SELECT 1 FROM pg_stat_activity WHERE query LIKE %s AND state = 'idle'"
            " AND state_change < clock_timestamp() - interval '0.5 s'",
            [f'LISTEN "{client._namespace}"%'],
        ).fetchall()
    return bool(rows)


# -- what has ended -------------------------------------------------------------------------------


def test_what_has_ended_is_removed_while_others_are_written(
    store: CoordinationStore, admin: "psycopg.Connection[Any]"
) -> None:
    """Time passes for the rows by hand: all that was written before ended an hour ago."""
    for number in range(60):
        store.put(f"ended-{number}", b"", ttl_s=1000.0)
        store.take_places([Place(f"key-{number}", 1, holder) for holder in "abc"], ttl_s=1000.0)
        store.reserve(f"rate-{number}", 1, interval_s=1.0)
    for table in ("shared_record", "place_key", "place", "rate"):
        admin.execute(f"UPDATE {table} SET ends = clock_timestamp() - interval '1 h'")
    admin.execute("UPDATE coordination_sweep SET before = '-infinity', swept = '-infinity'")

    for _ in range(64):
        store.put("other", b"")

    counts = "SELECT (SELECT count(*) FROM shared_record), (SELECT count(*) FROM place_key),"
    counts += " (SELECT count(*) FROM place), (SELECT count(*) FROM rate)"
    assert admin.execute(counts).fetchall() == [(1, 0, 0, 0)]


def test_who_left_the_line_without_a_word_is_forgotten(
    store: CoordinationStore, admin: "psycopg.Connection[Any]"
) -> None:
    """Also while others wait on, so that a line is no longer than those in it."""
    store.take_places([Place("key", 1, "first")], ttl_s=1000.0)
    for number in range(40):
        store.take_places([Place("key", 1, f"gone-{number}")], ttl_s=1000.0)
    admin.execute("UPDATE place SET ends = clock_timestamp() WHERE holder <> 'first'")

    for _ in range(3):
        assert store.take_places([Place("key", 1, "waits")], ttl_s=1000.0) == [False]

    left = admin.execute("SELECT holder FROM place ORDER BY holder").fetchall()
    assert left == [("first",), ("waits",)]
    store.leave_places([Place("key", 1, "first")])
    assert store.take_places([Place("key", 1, "late")], ttl_s=1000.0) == [False]
    assert store.take_places([Place("key", 1, "waits")], ttl_s=1000.0) == [True]


def test_what_is_written_again_and_again_changes_no_index(start_postgresql: StartPostgreSQL) -> None:
    """Records, extended places and rates are HOT updates, all but one or two a minute."""
    server, rounds = start_postgresql(fsync="off"), 200
    with server.client(retry_timeout_s=LIMIT_S) as client:
        for number in range(rounds):
            client.coordination.put("beat", b"%d" % number, ttl_s=100.0)
            client.coordination.take_places([Place("key", 1, "holder")], ttl_s=100.0)
            client.coordination.reserve("rate", 1, interval_s=0.001, max_wait_s=100.0)
    counted = "SELECT relname, n_tup_upd, n_tup_hot_upd FROM pg_stat_user_tables WHERE n_tup_upd >= %s"
    with server.connect() as admin:

        def updates() -> dict[str, float]:
            rows = admin.execute(counted, [rounds - 1]).fetchall()
            return {name: hot / all_ for name, all_, hot in rows}

        eventually(lambda: len(updates()) >= 3, "the server has counted")
        found = updates()
    assert found.keys() >= {"shared_record", "place", "rate"}
    assert min(found.values()) > 0.9


def test_keys_sort_and_match_by_their_characters(store: CoordinationStore) -> None:
    """Whatever the database's collation is (CRD-1)."""
    keys = [
        "a",
        "A",
        "a/",
        "a/b",
        "a/B",
        "a/ä",
        "a/%",
        "a0",
        "ä",
        "a/😀",
        "a\\",
        "a'b",
        "_",
        "a/" + "ß" * 500,
    ]
    for key in keys:
        store.put(key, key.encode() + b"\0")
    assert list(store.scan("")) == sorted(keys)
    for prefix in ("a/", "a", "ä", "_", "%", "a/😀"):
        assert list(store.scan(prefix)) == sorted(key for key in keys if key.startswith(prefix))
    assert store.get(["a/ä"])["a/ä"].value == "a/ä".encode() + b"\0"


def test_the_longest_keys_holders_and_values_are_kept(store: CoordinationStore) -> None:
    longest = "".join(chr(0x1F300 + number % 256) for number in range(512))
    store.put(longest, b"\xff" * 65_536, ttl_s=1e12)
    assert store.get([longest])[longest].value == b"\xff" * 65_536
    assert store.take_places([Place(longest, 2**40, longest)], ttl_s=1000.0) == [True]
    assert store.reserve(longest, 1, interval_s=1.0, burst=2**40).waits_s == [0.0]


# -- lost answers and ended backends --------------------------------------------------------------


@pytest.fixture
def behind_a_proxy(postgresql_address: Address, namespace: str) -> Iterator[tuple[Proxy, PostgreSQLClient]]:
    with Proxy(postgresql_address.host, postgresql_address.port) as proxy:
        address = replace(postgresql_address, host="127.0.0.1", port=proxy.port)
        with client_of(address, namespace, libpq={"sslmode": "disable"}) as client:
            client.declare(Queue("jobs"))
            yield proxy, client


def test_a_guarded_publish_whose_answer_is_lost_is_carried_out_once(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient],
) -> None:
    """Its token tells, though the record has another version by then (CRD-4)."""
    proxy, client = behind_a_proxy
    proxy.disrupt_next(b"marked body", Disruption.CUT)

    outcome = client.publish_guarded("jobs", JOB, Guard("slot", ABSENT, b"done"))

    assert proxy.disrupted == 1
    assert outcome is not None
    assert outcome.status is PublishStatus.ACCEPTED
    assert client.counts("jobs").ready == 1
    assert client.publish_guarded("jobs", JOB, Guard("slot", ABSENT, b"again")) is None


def test_a_guarded_publish_that_is_never_answered_is_unknown(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient],
) -> None:
    """Both happened here, as the record tells who asks again."""
    proxy, client = behind_a_proxy
    guard = Guard("slot", ABSENT, b"done")
    with connected(client, retry_timeout_s=1.0):
        proxy.disrupt_next(b"marked body", Disruption.SILENCE, times=20)
        outcome = client.publish_guarded("jobs", JOB, guard)
    proxy.stop_disrupting()

    assert outcome is not None
    assert (outcome.status, type(outcome.error)) == (PublishStatus.UNKNOWN, BackendUnavailable)
    eventually(lambda: client.coordination.get(["slot"]), "the server has carried it out")
    assert client.publish_guarded("jobs", JOB, guard) is None
    assert client.coordination.get(["slot"])["slot"].value == b"done"
    assert client.counts("jobs").ready == 1


def test_a_put_whose_answer_is_lost_is_not_written_twice(
    behind_a_proxy: tuple[Proxy, PostgreSQLClient],
) -> None:
    """It may have been, which the record tells."""
    proxy, client = behind_a_proxy
    store = client.coordination
    store.put("key", b"before")
    proxy.disrupt_next(b"marked value", Disruption.CUT)

    with pytest.raises(BackendUnavailable):
        store.put("key", b"marked value", expected=store.get(["key"])["key"].version)

    assert proxy.disrupted == 1
    assert store.get(["key"])["key"].value == b"marked value"


def terminate(admin: "psycopg.Connection[Any]", which: str, namespace: str) -> int:
    """End the backends of a namespace's clients."""
    ends = f"SELECT pg_terminate_backend(pid) FROM pg_stat_activity WHERE application_name = %s AND {which}"
    return len(admin.execute(ends, [namespace]).fetchall())


@contextmanager
def locked(address: Address, namespace: str, *tables: str) -> Iterator[None]:
    """Lock the rows of tables meanwhile, on a connection of its own."""
    with address.connect(autocommit=False) as other:
        for table in tables:
            other.execute(f'SELECT 1 FROM "{namespace}".{table} FOR UPDATE')
        yield


WAITS = "cardinality(pg_blocking_pids(pid)) > 0"


@pytest.fixture
def named(postgresql_address: Address, namespace: str) -> Iterator[PostgreSQLClient]:
    """A client whose backends can be told from those of others."""
    with client_of(postgresql_address, namespace, libpq={"application_name": namespace}) as client:
        client.declare(Queue("jobs"))
        client.coordination.put("key", b"before")
        yield client


def test_a_put_whose_backend_is_ended_before_it_wrote_is_written_once(
    named: PostgreSQLClient, admin: "psycopg.Connection[Any]", postgresql_address: Address, namespace: str
) -> None:
    """The server says so: nothing was done yet, so that it is safe to try again."""
    store = named.coordination
    version = store.get(["key"])["key"].version
    with Background() as thread:
        with locked(postgresql_address, namespace, "shared_record"):
            put = thread.submit(store.put, "key", b"after", expected=version)
            eventually(lambda: terminate(admin, WAITS, namespace), "the put waits, and is ended")
        written = put.result(LIMIT_S)
    assert written is not None
    assert store.get(["key"]) == {"key": Record(b"after", written)}


def test_calls_that_may_run_twice_go_on_when_their_backend_is_ended(
    named: PostgreSQLClient, admin: "psycopg.Connection[Any]", postgresql_address: Address, namespace: str
) -> None:
    """A guarded publish, by its token, publishes one job; a place is had once."""
    store = named.coordination
    guard = Guard("key", store.get(["key"])["key"].version, b"after")
    place = Place("key", 1, "holder")
    store.take_places([place], ttl_s=1000.0)
    with Background() as threads:
        with locked(postgresql_address, namespace, "shared_record", "place_key"):
            publish = threads.submit(named.publish_guarded, "jobs", JOB, guard)
            eventually(lambda: terminate(admin, WAITS, namespace), "the publish waits, and is ended")
            take = threads.submit(store.take_places, [place], ttl_s=1000.0)
            takes = f"{WAITS} AND query LIKE '%%take_places%%'"
            eventually(lambda: terminate(admin, takes, namespace), "it waits, and is ended")
        outcome = publish.result(LIMIT_S)
        assert take.result(LIMIT_S) == [True]
    assert outcome is not None
    assert outcome.status is PublishStatus.ACCEPTED
    assert store.get(["key"])["key"].value == b"after"
    assert named.counts("jobs").ready == 1


def test_a_put_does_not_mind_that_idle_connections_have_ended(
    named: PostgreSQLClient, admin: "psycopg.Connection[Any]", namespace: str
) -> None:
    store = named.coordination
    gone = "SELECT 1 FROM pg_stat_activity WHERE application_name = %s"
    for number in range(3):
        assert terminate(admin, "state = 'idle'", namespace) >= 1
        eventually(lambda: not admin.execute(gone, [namespace]).fetchall(), "all have ended")
        assert store.put("key", b"%d" % number) is not None
        assert store.delete("key")


def test_a_server_that_takes_no_writes_is_told_with_the_remedy(
    named: PostgreSQLClient, admin: "psycopg.Connection[Any]", postgresql_address: Address, namespace: str
) -> None:
    read_only = {"options": "-c default_transaction_read_only=on"}
    with client_of(postgresql_address, namespace, libpq=read_only) as client, three_tries():
        assert client.coordination.get(["key"])["key"].value == b"before"
        assert abs(client.coordination.now() - named.coordination.now()) < LIMIT_S
        for call in (
            lambda: client.coordination.put("key", b"after"),
            lambda: client.coordination.take_places([Place("key", 1, "holder")], ttl_s=1.0),
            lambda: client.coordination.reserve("key", 1, interval_s=1.0),
        ):
            with pytest.raises(BackendUnavailable, match="default_transaction_read_only = off"):
                call()


# -- a pooler -------------------------------------------------------------------------------------


@pytest.mark.parametrize("max_prepared_statements", [0, 100])
def test_it_works_behind_a_pooler_in_transaction_mode(
    postgresql_address: Address, namespace: str, start_pgbouncer: StartPgBouncer, max_prepared_statements: int
) -> None:
    pooler = start_pgbouncer(
        postgresql_address, max_prepared_statements=max_prepared_statements, default_pool_size=2
    )
    with client_of(pooler.address, namespace) as client:
        client.declare(Queue("jobs"))
        store = client.coordination

        def use(number: int) -> None:
            key, place = f"key-{number}", Place("limit", THREADS, f"holder-{number}")
            version = store.put(key, b"1", expected=ABSENT, ttl_s=600.0)
            assert store.put(key, b"2", expected=version) is not None
            assert store.take_places([place], ttl_s=600.0) == [True]
            store.leave_places([place])
            assert len(store.reserve("rate", 1, interval_s=1e-6, max_wait_s=1e6).waits_s) == 1
            guard = Guard(f"slot-{number}", ABSENT, b"")
            assert client.publish_guarded("jobs", Message(f"j{number}", b""), guard) is not None
            assert client.publish_guarded("jobs", Message(f"k{number}", b""), guard) is None
            assert store.delete(key)

        in_threads(use)
        assert len(store.scan("slot-")) == client.counts("jobs").ready == THREADS
        assert store.scan("key-") == {}


# -- tables, releases and stores ------------------------------------------------------------------


def test_who_only_looks_changes_no_tables(
    postgresql_address: Address, namespace: str, admin: "psycopg.Connection[Any]"
) -> None:
    with client_of(postgresql_address, namespace) as client:
        store = client.coordination
        assert (store.get(["key"]), store.scan("")) == ({}, {})
        assert admin.execute("SELECT 1 FROM pg_namespace WHERE nspname = %s", [namespace]).fetchall() == []
        assert len(store.pending_migrations() or ()) == 1
        assert store.put("key", b"1") is not None
        assert list(store.scan("")) == ["key"]
        admin.execute(f'DROP SCHEMA "{namespace}" CASCADE')
        with pytest.raises(BrokerUnsuitable, match="it was dropped"):
            store.get(["key"])


def test_a_user_who_may_not_migrate_is_told_the_command(
    postgresql_address: Address,
    namespace: str,
    admin: "psycopg.Connection[Any]",
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    user = f"app_{uuid4().hex[:12]}"
    with client_of(postgresql_address, namespace) as owner:
        owner.migrate()
    monkeypatch.setattr(schema, "FOLDER", make_release(tmp_path / "next", SHIPPED))
    admin.execute(f"CREATE ROLE {user} LOGIN")
    try:
        admin.execute(f'GRANT USAGE ON SCHEMA "{namespace}" TO {user}')
        admin.execute(f'GRANT SELECT ON ALL TABLES IN SCHEMA "{namespace}" TO {user}')
        app = replace(postgresql_address, user=user)
        with PostgreSQLCoordinationStore.from_url(app.url(namespace)) as store:
            assert store.get(["key"]) == {}
            with pytest.raises(MigrationNeeded, match="run `mindtrace-jobs migrate` as its owner"):
                store.put("key", b"1")
    finally:
        admin.execute(f"DROP OWNED BY {user}")
        admin.execute(f"DROP ROLE {user}")


def test_a_store_of_its_own_shares_the_records_of_its_namespace_and_shows_no_secret(
    postgresql_address: Address, client: PostgreSQLClient, namespace: str
) -> None:
    secret = "open-sesame-4711"
    address = (
        postgresql_address if postgresql_address.password else replace(postgresql_address, password=secret)
    )
    with PostgreSQLCoordinationStore.from_url(address.url(namespace)) as store:
        version = store.put("key", b"1", ttl_s=600.0)
        assert client.coordination.get(["key"]) == {"key": Record(b"1", version or 0)}
        assert store.migrate() == []
        shown = repr(store) + store.make_url() + repr(vars(store))
        assert address.password not in shown
        with PostgreSQLCoordinationStore.from_url(store.make_url(with_passwords=True)) as same:
            assert list(same.scan("k")) == ["key"]
    for call in (store.now, lambda: store.get(["key"]), lambda: store.put("key", b"2"), store.migrate):
        with pytest.raises(Closed, match="PostgreSQLCoordinationStore"):
            call()


def test_the_store_of_a_client_is_closed_with_it(postgresql_address: Address, namespace: str) -> None:
    with client_of(postgresql_address, namespace) as client:
        store = client.coordination
        store.put("key", b"1")
        assert store is client.coordination
    with pytest.raises(Closed):
        store.get(["key"])
    store.close()
