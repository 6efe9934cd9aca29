"""Guarded publish on a real Redis, and stores that are opened, forked and closed."""

import secrets
import subprocess
import sys
import threading
from collections.abc import Iterator

import pytest
from redis import Redis

from background import Background
from brokers.fixtures import StartRedis
from brokers.redis_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import RedisClient, RedisCoordinationStore
from mindtrace.jobs.adapters.redis.keys import CoordinationKeys
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import AccessDenied, BackendError, BackendUnavailable, Closed, QueueNotFound
from mindtrace.jobs.ports import ABSENT, Guard, Message, Place, PublishOutcome, PublishStatus, QueueCounts

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


# -- guarded publish ------------------------------------------------------------------------------


def test_of_those_who_publish_under_one_guard_one_succeeds(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    """Each slot has one job, and the record says whose (CRD-4)."""

    def publish(client: RedisClient, who: int) -> list[str]:
        won = []
        for slot in range(50):
            id_ = f"{slot}.{who}"
            guard = Guard(f"slot/{slot}", ABSENT, id_.encode(), LONG_S)
            if client.publish_guarded("jobs", Message(id_, b"{}"), guard) is not None:
                won.append(id_)
        return won

    with redis_address.client(namespace) as first, redis_address.client(namespace) as second:
        first.declare(Queue("jobs"))
        with Background() as pool:
            tries = [pool.submit(publish, client, who) for who, client in enumerate((first, second) * 4)]
            won = [id_ for one in tries for id_ in one.result(LIMIT_S)]
        assert sorted(int(id_.split(".")[0]) for id_ in won) == list(range(50))
        records = second.coordination.scan("slot/")
        assert {record.value.decode() for record in records.values()} == set(won)
        deliveries = first.open_consumer("jobs").receive(100, 0)
        assert {delivery.id for delivery in deliveries} == set(won)


def test_a_guarded_publish_keeps_priority_and_delay(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    with redis_address.client(namespace) as client:
        client.declare(Queue("jobs", "priority"))
        plan = {"low": Message("low", b"1", priority=1), "high": Message("high", b"2", priority=8)}
        plan["later"] = Message("later", b"3", priority=9, delay_s=LONG_S)
        for key, message in plan.items():
            outcome = client.publish_guarded("jobs", message, Guard(key, ABSENT, b""))
            assert outcome == PublishOutcome(key, PublishStatus.ACCEPTED)
        assert client.counts("jobs") == QueueCounts(2, 1, 0, 0)
        deliveries = client.open_consumer("jobs").receive(3, 0)
        assert [(delivery.id, delivery.body) for delivery in deliveries] == [("high", b"2"), ("low", b"1")]


def test_a_guarded_publish_of_a_live_id_is_a_duplicate_and_writes_the_record(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    with redis_address.client(namespace) as client:
        client.declare(Queue("jobs"))
        client.publish("jobs", [Message("job", b"{}")])
        outcome = client.publish_guarded("jobs", Message("job", b"{}"), Guard("key", ABSENT, b"mine"))
        assert outcome == PublishOutcome("job", PublishStatus.DUPLICATE)
        assert client.coordination.get(["key"])["key"].value == b"mine"
        with pytest.raises(QueueNotFound):
            client.publish_guarded("other", Message("job", b"{}"), Guard("other", ABSENT, b""))
        assert client.coordination.get(["other"]) == {}


def test_a_full_server_writes_nothing_and_goes_on_otherwise(private_redis: StartRedis) -> None:
    """Reading, deleting, places and rates need no more memory than work does."""
    server = private_redis()
    with server.client() as client, server.admin() as admin:
        store = client.coordination
        client.declare(Queue("jobs"))
        version = store.put("key", b"value")
        admin.config_set("maxmemory", 1)
        with pytest.raises(BackendError, match="memory"):
            store.put("key", b"more")
        outcome = client.publish_guarded("jobs", Message("job", b"{}"), Guard("other", ABSENT, b""))

        assert outcome is not None
        assert outcome.status is PublishStatus.REJECTED
        assert "Redis is out of memory, nothing was published" in str(outcome.error)
        assert client.counts("jobs") == QueueCounts(0, 0, 0, 0)
        assert [record.version for record in store.scan("").values()] == [version]
        assert store.take_places([Place("gpu", 1, "me")], ttl_s=LONG_S) == [True]
        store.leave_places([Place("gpu", 1, "me")])
        assert store.reserve("api", 1, interval_s=1.0).waits_s == [0.0]
        assert store.delete("key")


# -- the store by itself --------------------------------------------------------------------------


def test_no_queue_sees_the_store_and_deleting_one_leaves_it(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    with redis_address.client(namespace) as client:
        store = client.coordination
        client.declare(Queue("jobs"))
        version = store.put("jobs}:meta", b"value")
        store.take_places([Place("jobs}:meta", 1, "me")], ttl_s=LONG_S)
        store.reserve("jobs}:meta", 1, interval_s=LONG_S)

        assert client.queues() == [Queue("jobs")]
        client.delete("jobs")
        assert store.get(["jobs}:meta"])["jobs}:meta"].version == version
        assert store.take_places([Place("jobs}:meta", 1, "you")], ttl_s=LONG_S) == [False]


def test_a_store_by_url_shares_what_a_client_of_the_namespace_has(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    with (
        redis_address.client(namespace) as client,
        RedisCoordinationStore.from_url(f"{redis_address.url}?namespace={namespace}") as store,
        RedisCoordinationStore.from_url(store.make_url(with_passwords=True)) as again,
    ):
        version = store.put("key", b"value")
        assert [record.version for record in client.coordination.scan("").values()] == [version]
        assert again.get(["key"])["key"].value == b"value"


def test_a_closed_store_refuses_calls_and_leaves_nothing(
    redis_address: Address, namespace: str, admin: Redis
) -> None:
    """Nor does that of a client which is closed (CON-2)."""
    before = set(threading.enumerate())
    with redis_address.client(namespace) as client, redis_address.coordination(namespace) as store:
        for each in (client.coordination, store):
            version = each.put("key", b"value")
            each.delete("key", expected=version)
        name = store._client_name
    for each in (client.coordination, store):
        each.close()
        with pytest.raises(Closed, match="this RedisCoordinationStore is closed"):
            each.put("key", b"value")
        with pytest.raises(Closed):
            each.now()
    assert set(threading.enumerate()) <= before
    assert set(keys_of(admin, namespace)) <= {f"mtj:{{{namespace}/}}:versions".encode()}
    eventually(lambda: all(one["name"] != name for one in admin.client_list()), "it disconnects")


def test_a_password_is_shown_nowhere(private_redis: StartRedis, caplog: pytest.LogCaptureFixture) -> None:
    """SEC-3: not by an error, an object or a log."""
    server = private_redis(requirepass="the-right-one")
    with (
        RedisCoordinationStore("127.0.0.1", server.address.port, password=SECRET) as store,
        pytest.raises(AccessDenied) as denied,
    ):
        store.put("key", b"value")
    assert SECRET not in str(denied.value) + repr(store) + repr(vars(store)) + store.make_url() + caplog.text


def test_a_server_that_is_not_there_is_told_within_its_time() -> None:
    with RedisCoordinationStore("127.0.0.1", 1, retry_timeout_s=0.1) as store:
        for call in (store.now, lambda: store.get(["key"]), lambda: store.put("key", b"value")):
            with pytest.raises(BackendUnavailable, match=r"no Redis answers at 127\.0\.0\.1:1"):
                call()


FORKS = """
import os, sys
from mindtrace.jobs import RedisClient

store = RedisClient(port=int(sys.argv[1])).coordination
store.put("parent", b"")
for child in range(4):
    if os.fork() == 0:
        os._exit(0 if store.put(f"child-{child}", b"") and store.delete("parent") is (child == 0) else 1)
    assert os.wait()[1] == 0
assert store.put("parent", b"", expected=0)
print(len(store.scan("")))
"""


def test_no_request_of_a_forked_process_is_taken_for_its_parents(private_redis: StartRedis) -> None:
    server = private_redis()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(server.address.port)],
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
    )

    assert (done.stdout, done.stderr) == ("5\n", "")
