"""The coordination store on a real Redis: its records, places and rates, and the keys that they leave."""

import secrets
import struct
import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from background import Background
from brokers.fixtures import StartRedis
from brokers.redis_server import Address, sent_by_clients
from conditions import LIMIT_S, eventually
from mindtrace.jobs import RedisClient, RedisCoordinationStore
from mindtrace.jobs.adapters.redis.keys import CoordinationKeys
from mindtrace.jobs.ports import ABSENT, Place

LONG_S = 600.0
"""A time that is never over while a test runs."""
SECRET = "hunter2"


@pytest.fixture
def namespace() -> str:
    return f"test-{secrets.token_hex(4)}"


@pytest.fixture
def keys(namespace: str) -> CoordinationKeys:
    return CoordinationKeys(namespace)


@pytest.fixture
def store(redis_address: Address, namespace: str) -> Iterator[RedisCoordinationStore]:
    with redis_address.coordination(namespace, retry_timeout_s=30.0) as store:
        yield store


@pytest.fixture
def admin(redis_address: Address, namespace: str) -> Iterator[Redis]:
    with redis_address.admin() as admin:
        yield admin
        if left := keys_of(admin, namespace):
            admin.unlink(*left)


def keys_of(admin: Redis, namespace: str) -> list[bytes]:
    return list(admin.scan_iter(f"mtj:{{{namespace}/*", count=1000))


# -- records --------------------------------------------------------------------------------------


def test_records_are_kept_to_the_byte_under_any_key(store: RedisCoordinationStore, admin: Redis) -> None:
    values = {"": b"", "a|b:c}:meta": bytes(range(256)), "é … 👍": b"x" * 65_536, "A": b"1", "a": b"2"}
    versions = {f"k{key}": store.put(f"k{key}", value) for key, value in values.items()}

    records = store.get(["none", *versions])
    assert {key: (record.value, record.version) for key, record in records.items()} == {
        f"k{key}": (value, versions[f"k{key}"]) for key, value in values.items()
    }
    assert list(store.scan("k").items()) == sorted(records.items())
    assert store.scan("ka") == {key: records[key] for key in ("ka", "ka|b:c}:meta")}
    assert len(set(versions.values())) == len(versions)


def test_a_version_never_comes_again_whatever_happens_to_the_record(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """Nor after a clock went back, or the server lost its memory (CRD-1)."""
    versions = [store.put("key", b"first", expected=ABSENT)]
    assert store.delete("key")
    versions.append(store.put("key", b"short", expected=ABSENT, ttl_s=0.0))
    versions.append(store.put("key", b"third", expected=ABSENT))
    future = int((store.now() + 3600) * 1e6)
    admin.set(keys.versions, future)
    versions += [store.put("key", b"fourth"), store.put("key", b"fifth")]
    assert versions[-2:] == [future + 1, future + 2]
    admin.unlink(keys.records, keys.record_keys, keys.versions)
    versions.append(store.put("key", b"sixth", expected=ABSENT))

    assert None not in versions
    assert len(set(versions)) == 6
    assert versions[:3] == sorted(versions[:3], key=lambda version: version or 0)


def test_a_record_of_more_than_a_page_is_listed_whole_in_order_and_in_few_requests(
    private_redis: StartRedis,
) -> None:
    """Each looks at 500 records or 4 MB, so that the server serves others meanwhile."""
    server = private_redis()
    with server.address.coordination() as store, server.admin() as admin, server.client() as other:
        wanted = {f"page/{number:04}": b"%d" % number for number in range(1100)}
        wanted |= {f"page/large/{number:03}": b"x" * 65_536 for number in range(100)}
        records = [*wanted.items(), ("pag", b""), ("page0", b"")]
        with Background() as pool:
            pool.map(lambda first: [store.put(*each) for each in records[first::4]], range(4))
        before = sent_by_clients(admin)
        found = store.scan("page/")
        requests = sent_by_clients(admin) - before

        assert {key: record.value for key, record in found.items()} == wanted
        assert list(found) == sorted(wanted)
        assert 4 <= requests <= 6
        assert store.get(list(wanted)) == found
        assert other.coordination.scan("page/") == found
        with server.address.coordination("another") as another:
            assert another.scan("") == {}


def test_a_record_with_a_time_is_there_until_then_and_a_write_without_keeps_it(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """By the server's clock, to the microsecond (CRD-3)."""
    store.put("kept", b"1", ttl_s=0.2)
    store.put("kept", b"2")
    began = store.now()
    version = store.put("short", b"3", ttl_s=0.2)
    ended = store.now()
    assert version is not None
    until = admin.zscore(keys.record_ends, "short")
    assert until is not None
    assert began + 0.2 <= until / 1e6 <= ended + 0.2

    eventually(lambda: store.now() >= until / 1e6, "its time is over")
    assert list(store.get(["kept", "short"])) == ["kept"]
    assert list(store.scan("")) == ["kept"]
    assert not store.delete("short")
    assert store.put("short", b"4", expected=version) is None
    assert store.put("short", b"5", expected=ABSENT) is not None


def test_each_write_removes_a_bounded_number_of_those_whose_time_is_over(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """So that a store in use doesn't grow and no write takes long."""
    for number in range(250):
        store.put(f"key-{number}", b"", ttl_s=LONG_S)
    admin.zadd(keys.record_ends, {f"key-{number}": 1 for number in range(250)})
    sizes = []
    for _ in range(4):
        store.put("kept", b"")
        sizes.append((admin.hlen(keys.records), admin.zcard(keys.record_keys), admin.zcard(keys.record_ends)))

    assert sizes == [(151, 151, 150), (51, 51, 50), (1, 1, 0), (1, 1, 0)]


def test_a_record_that_is_cut_short_is_none(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """Another program wrote it: the next write repairs it."""
    store.put("key", b"value")
    admin.hset(keys.records, "key", struct.pack(">d", 5.0))

    assert store.get(["key"]) == {} == store.scan("")
    assert not store.delete("key")
    assert store.put("key", b"again", expected=ABSENT) is not None


def test_of_those_who_count_together_none_is_lost(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    """Two clients of four threads each, which read, add one, and write if nobody else did (CRD-2)."""

    def count(client: RedisClient) -> None:
        store = client.coordination
        for _ in range(50):
            while True:
                record = store.get(["sum"]).get("sum")
                number = int(record.value) if record else 0
                expected = record.version if record else ABSENT
                if store.put("sum", b"%d" % (number + 1), expected=expected) is not None:
                    break

    with redis_address.client(namespace) as first, redis_address.client(namespace) as second:
        with Background() as pool:
            for counted in [pool.submit(count, client) for client in (first, second) * 4]:
                counted.result(LIMIT_S)
        assert first.coordination.get(["sum"])["sum"].value == b"400"


# -- places and rates -----------------------------------------------------------------------------


def test_of_those_who_want_a_place_never_more_have_one_than_there_are(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    """Two clients of four threads each, at three places (CRD-5)."""
    held, most, lock = 0, 0, threading.Lock()

    def work(client: RedisClient, who: int) -> None:
        nonlocal held, most
        place = Place("gpu", 3, f"worker {who}")
        for _ in range(20):
            while client.coordination.take_places([place], ttl_s=LONG_S) == [False]:
                pass
            with lock:
                held += 1
                most = max(most, held)
            with lock:
                held -= 1
            client.coordination.leave_places([place])

    with (
        redis_address.client(namespace) as first,
        redis_address.client(namespace) as second,
        Background() as pool,
    ):
        for one in [pool.submit(work, client, who) for who, client in enumerate((first, second) * 4)]:
            one.result(LIMIT_S)
    assert 1 <= most <= 3
    assert keys_of(admin, namespace) == []


def test_who_comes_first_gets_a_free_place_also_among_those_of_one_call(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """However many places a call is about, and though one in line stops asking (CRD-5)."""
    names = [f"job-{number:04}" for number in range(1200, 0, -1)]  # not in the order that a sorted set has
    places = [Place("gpu", 2, name) for name in names]
    assert store.take_places(places, ttl_s=LONG_S) == [True, True, *[False] * 1198]
    store.leave_places([places[0], places[2]])
    assert store.take_places([places[5]], ttl_s=LONG_S) == [False]
    assert store.take_places([places[3]], ttl_s=LONG_S) == [True]
    store.leave_places(places[:2])
    admin.zadd(keys.places("gpu")[1], {places[4].holder: 1})  # as if its time was over
    assert store.take_places([places[6], places[5]], ttl_s=LONG_S) == [False, True]
    assert store.take_places([Place("gpu", 1, places[5].holder)], ttl_s=LONG_S) == [True], "it has one"


def test_who_stops_asking_frees_a_place_for_nobody_before(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """It had none: whoever stands before it in line waits on (CRD-5)."""
    has, waits, stops = (Place("gpu", 1, name) for name in ("has", "waits", "stops"))
    assert store.take_places([has, waits, stops], ttl_s=LONG_S) == [True, False, False]
    admin.zadd(keys.places("gpu")[1], {stops.holder: 1})  # as if its time was over
    assert store.take_places([waits, has], ttl_s=LONG_S) == [False, True]


def test_taking_a_place_again_extends_it(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """And so does asking again for the one who waits, each by its own time (CRD-5)."""
    both, ends = [Place("gpu", 1, "has"), Place("gpu", 1, "waits")], keys.places("gpu")[1]
    for ttl_s in (1.0, LONG_S, 2.0):
        began = store.now()
        assert store.take_places(both, ttl_s=ttl_s) == [True, False]
        ended = store.now()
        for _, until in admin.zrange(ends, 0, -1, withscores=True):
            assert began + ttl_s <= until / 1e6 <= ended + ttl_s


def test_places_and_rates_leave_no_key_behind(
    store: RedisCoordinationStore, admin: Redis, namespace: str
) -> None:
    places = [Place("gpu", 1, "has it"), Place("gpu", 1, "waits"), Place("x}:meta", 1, "alone")]
    store.take_places(places, ttl_s=0.05)
    store.reserve("api", 3, interval_s=0.01, max_wait_s=1.0)
    store.close()

    eventually(lambda: keys_of(admin, namespace) == [], "all keys have expired")


def test_a_short_place_does_not_end_a_long_one(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    store.take_places(
        [Place("gpu", 2, "long"), Place("gpu", 2, "other"), Place("gpu", 2, "waits", "watch-1")], ttl_s=LONG_S
    )
    store.take_places([Place("gpu", 2, "short", "watch-1")], ttl_s=0.001)

    assert all(admin.pttl(name) > 1000 * LONG_S / 2 for name in keys.places("gpu"))


def test_turns_of_a_rate_come_at_their_times(
    store: RedisCoordinationStore, admin: Redis, keys: CoordinationKeys
) -> None:
    """In whole microseconds, also where a float of seconds has too much (CRD-6)."""
    first = store.reserve("api", 10, interval_s=200.01, burst=3, max_wait_s=600.03)
    assert first.waits_s == [0.0, 0.0, 0.0, 200.01, 400.02, 600.03]
    assert first.retry_s == 800.04
    again = store.reserve("api", 1, interval_s=200.01, burst=3, max_wait_s=600.03)
    assert again.waits_s == []
    assert 600.03 < again.retry_s < 800.04
    turn = admin.get(keys.rate("api"))
    assert turn is not None
    assert admin.pexpiretime(keys.rate("api")) > int(turn) / 1000, "it lasts as long as its turns"
    assert store.reserve("api", 0, interval_s=200.01) == ([], 0.0)
    assert store.reserve("other", 2, interval_s=1 / 3, max_wait_s=float("inf")) == ([0.0, 0.333334], 0.0)
