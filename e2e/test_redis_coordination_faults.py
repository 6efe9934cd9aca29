"""The coordination store in Redis under faults: lost replies, restarts, lost memory and failovers."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from typing import Any

import pytest
from redis import RedisError

from brokers.fixtures import StartRedis
from brokers.proxy import Disruption, Proxy
from brokers.redis_server import PrivateRedis, sent_by_clients
from conditions import LIMIT_S, eventually
from mindtrace.jobs import RedisClient
from mindtrace.jobs.adapters.redis import scripts
from mindtrace.jobs.adapters.redis.scripts import (
    DELETE_RECORD,
    PUBLISH_GUARDED,
    PUT_RECORD,
    RESERVE,
    TAKE_PLACES,
    Script,
)
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import (
    ABSENT,
    CoordinationStore,
    Guard,
    Message,
    Place,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
)

LONG_S = 600.0
"""A time that is never over while a test runs."""
ME, OTHER = Place("gpu", 1, "me"), Place("gpu", 1, "other")
JOB, GUARD = Message("job", b"{}"), Guard("slot", ABSENT, b"mine", LONG_S)

lost = pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE])


@dataclass
class Line:
    """A client of ours behind a proxy, with a queue, on a server that knows the scripts already."""

    proxy: Proxy
    client: RedisClient
    server: PrivateRedis

    @property
    def store(self) -> CoordinationStore:
        return self.client.coordination

    @contextmanager
    def never_answered(self, script: Script, how: Disruption) -> Iterator[None]:
        """Have calls of a script give up after a second, without an answer."""
        self.proxy.disrupt_next(script.sha.encode(), how, times=1000)
        self.client._redis.retry_timeout_s = 1.0
        yield
        self.client._redis.retry_timeout_s = LIMIT_S
        self.proxy.stop_disrupting()

    def release(self) -> None:
        """Let through what the proxy holds, and wait until the server has run it."""
        with self.server.admin() as admin:
            before, held = sent_by_clients(admin), self.proxy.held
            self.proxy.release()
            eventually(lambda: sent_by_clients(admin) >= before + held, "all has arrived")


@pytest.fixture
def line(private_redis: StartRedis) -> Iterator[Line]:
    server = private_redis()
    with server.admin() as admin:
        for script in vars(scripts).values():
            if isinstance(script, Script):
                admin.script_load(script.text)
    proxy = Proxy(server.address.host, server.address.port)
    with proxy, RedisClient("127.0.0.1", proxy.port, retry_timeout_s=1.0) as client:
        client._redis.retry_timeout_s = LIMIT_S  # but each try is given up after half a second
        client.declare(Queue("jobs"))
        yield Line(proxy, client, server)


# -- lost replies ---------------------------------------------------------------------------------


@lost
def test_a_put_whose_reply_is_lost_is_answered_as_if_it_had_come(line: Line, how: Disruption) -> None:
    """It doesn't take its own record for another's (CRD-2)."""
    for expected in (ABSENT, None):
        line.proxy.disrupt_next(PUT_RECORD.sha.encode(), how)
        version = line.store.put("key", b"value", expected=expected)
        assert version is not None
        assert line.store.get(["key"])["key"].version == version
    line.proxy.disrupt_next(PUT_RECORD.sha.encode(), how)
    assert line.store.put("key", b"value", expected=ABSENT) is None
    assert line.proxy.disrupted == 3


@lost
def test_a_delete_whose_reply_is_lost_is_answered_as_if_it_had_come(line: Line, how: Disruption) -> None:
    version = line.store.put("key", b"value")
    line.proxy.disrupt_next(DELETE_RECORD.sha.encode(), how)
    assert line.store.delete("key", expected=version)
    assert line.proxy.disrupted == 1
    assert line.store.get(["key"]) == {}


@lost
def test_turns_whose_reply_is_lost_are_reserved_once(line: Line, how: Disruption) -> None:
    line.proxy.disrupt_next(RESERVE.sha.encode(), how)
    assert line.store.reserve("api", 2, interval_s=LONG_S, burst=3).waits_s == [0.0, 0.0]
    assert line.proxy.disrupted == 1
    assert line.store.reserve("api", 2, interval_s=LONG_S, burst=3).waits_s == [0.0]


@lost
def test_places_whose_reply_is_lost_are_taken_and_left_once(line: Line, how: Disruption) -> None:
    line.proxy.disrupt_next(TAKE_PLACES.sha.encode(), how)
    assert line.store.take_places([ME, OTHER], ttl_s=LONG_S) == [True, False]
    line.proxy.disrupt_next(TAKE_PLACES.sha.encode(), how)
    line.store.leave_places([ME])
    assert line.proxy.disrupted == 2
    assert line.store.take_places([ME, OTHER], ttl_s=LONG_S) == [False, True]


@lost
def test_a_guarded_publish_whose_reply_is_lost_publishes_once(line: Line, how: Disruption) -> None:
    """Another worker may be so fast that the job is done before it is sent again (CRD-4)."""
    line.proxy.disrupt_next(PUBLISH_GUARDED.sha.encode(), how)
    outcome = line.client.publish_guarded("jobs", JOB, GUARD)
    assert outcome == PublishOutcome("job", PublishStatus.ACCEPTED)
    assert line.proxy.disrupted == 1
    assert line.client.publish_guarded("jobs", Message("another", b"{}"), GUARD) is None
    assert line.client.counts("jobs") == QueueCounts(1, 0, 0, 0)
    assert line.store.get(["slot"])["slot"].value == b"mine"


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE, Disruption.HOLD])
def test_a_guarded_publish_that_is_never_answered_is_unknown_and_can_be_asked_again(
    line: Line, how: Disruption
) -> None:
    """Whether it arrived, or arrives late: the job is there once, and so is the record (CRD-4)."""
    with line.never_answered(PUBLISH_GUARDED, how):
        outcome = line.client.publish_guarded("jobs", JOB, GUARD)
    assert outcome is not None
    assert outcome.status is PublishStatus.UNKNOWN
    assert isinstance(outcome.error, BackendUnavailable)

    again = line.client.publish_guarded("jobs", JOB, GUARD)
    assert (again is None) is (how is not Disruption.HOLD)
    line.release()
    assert line.store.get(["slot"])["slot"].value == b"mine"
    assert line.client.counts("jobs") == QueueCounts(1, 0, 0, 0)


WRITES: dict[str, tuple[Script, Callable[[CoordinationStore], Any]]] = {
    "put": (PUT_RECORD, lambda store: store.put("key", b"value")),
    "delete": (DELETE_RECORD, lambda store: store.delete("key")),
    "take": (TAKE_PLACES, lambda store: store.take_places([ME], ttl_s=LONG_S)),
    "leave": (TAKE_PLACES, lambda store: store.leave_places([ME])),
    "reserve": (RESERVE, lambda store: store.reserve("api", 1, interval_s=1.0)),
}


@pytest.mark.parametrize("write", WRITES)
def test_a_write_that_is_never_answered_raises_and_the_next_goes_on(line: Line, write: str) -> None:
    """The first may arrive late, and then counts: its caller was told that it may."""
    script, call = WRITES[write]
    call(line.store)
    with line.never_answered(script, Disruption.HOLD), pytest.raises(BackendUnavailable):
        call(line.store)
    line.release()
    call(line.store)
    line.client.close()
    with line.server.admin() as admin:
        left = list(admin.scan_iter("*:last:*"))
        assert all(0 < admin.pttl(key) <= 600_000 for key in left)


def test_a_late_write_of_a_sender_that_went_on_changes_nothing(line: Line) -> None:
    """Its reply had come by another connection; what the server reads then is out of date (CRD-2)."""
    line.proxy.disrupt_next(PUT_RECORD.sha.encode(), Disruption.HOLD)
    first = line.store.put("key", b"first")
    second = line.store.put("key", b"second", expected=first)
    assert line.proxy.disrupted == 1
    line.release()

    assert line.store.get(["key"])["key"] == (b"second", second)


# -- servers that forget or hand over -------------------------------------------------------------


def use(client: RedisClient, slot: str) -> int:
    """Use all that there is; return the version of a record."""
    store = client.coordination
    version = store.put("key", slot.encode())
    assert version is not None
    assert store.get(["key"])["key"] == (slot.encode(), version) == store.scan("k")["key"]
    outcome = client.publish_guarded("jobs", Message(slot, b"{}"), Guard(slot, ABSENT, b"", LONG_S))
    assert outcome == PublishOutcome(slot, PublishStatus.ACCEPTED)
    assert store.take_places([Place(slot, 1, "me")], ttl_s=LONG_S) == [True]
    store.leave_places([Place(slot, 1, "me")])
    assert store.reserve(slot, 1, interval_s=1.0).waits_s == [0.0]
    assert store.delete(slot)
    return version


def test_flushed_scripts_and_cut_connections_change_nothing(private_redis: StartRedis) -> None:
    server = private_redis()
    with server.client() as client, server.admin() as admin:
        client.declare(Queue("jobs"))
        versions = [use(client, "first")]
        admin.script_flush()
        versions.append(use(client, "second"))
        for connection in admin.client_list():
            if connection["name"] == client._client_name:
                admin.client_kill_filter(_id=connection["id"])
        versions.append(use(client, "third"))

    assert sorted(set(versions)) == versions


@pytest.mark.parametrize("end", [PrivateRedis.stop, PrivateRedis.kill], ids=["stopped", "killed"])
def test_what_was_confirmed_outlives_the_server(
    private_redis: StartRedis, end: Callable[[PrivateRedis], None]
) -> None:
    server = private_redis(appendonly="yes", appendfsync="always")
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue("jobs"))
        version = use(client, "before")
        assert client.coordination.take_places([ME, OTHER], ttl_s=LONG_S) == [True, False]
        client.coordination.reserve("api", 1, interval_s=LONG_S)
        end(server)
        server.start()

        assert client.coordination.get(["key"])["key"] == (b"before", version)
        assert client.coordination.take_places([OTHER, ME], ttl_s=LONG_S) == [False, True]
        assert client.coordination.reserve("api", 1, interval_s=LONG_S).waits_s == []
        assert use(client, "after") > version


def test_a_server_that_lost_its_memory_starts_anew_with_other_versions(private_redis: StartRedis) -> None:
    server = private_redis()
    with server.client() as client, server.admin() as admin:
        client.declare(Queue("jobs"))
        version = use(client, "before")
        admin.flushall()
        assert client.coordination.get(["key"]) == {}
        assert client.coordination.put("key", b"", expected=version) is None
        assert use(client, "after") > version  # the queue was declared again as well


def test_a_replica_that_missed_the_last_writes_gives_none_of_their_versions(
    private_redis: StartRedis,
) -> None:
    """Or a writer that read one of those would overwrite what it never read (CRD-1, CRD-2)."""
    first, second = _pair(private_redis)
    with first.client() as before, second.client() as after, second.admin() as admin:
        version = before.coordination.put("key", b"both")
        eventually(lambda: admin.exists("mtj:{default/}:records") == 1, "it is replicated")
        admin.replicaof("NO", "ONE")
        missed = [before.coordination.put("key", b"missed") for _ in range(5)]

        assert after.coordination.get(["key"])["key"] == (b"both", version)
        assert after.coordination.put("key", b"", expected=missed[-1]) is None
        new = [after.coordination.put("key", b"new") for _ in range(10)]
        assert set(new).isdisjoint(missed)
        assert after.coordination.put("key", b"", expected=missed[-1]) is None


def test_a_client_of_sentinels_uses_the_successor(private_redis: StartRedis) -> None:
    first, second = _pair(private_redis)
    config = f"sentinel monitor jobs 127.0.0.1 {first.address.port} 1\n"
    sentinel = private_redis(sentinel=True, config=config)
    host, port = sentinel.address.host, sentinel.address.port

    def hands_over() -> bool:
        with suppress(RedisError):  # the Sentinel doesn't know the replica yet
            admin.execute_command("SENTINEL", "FAILOVER", "jobs")
            return True
        return False

    def names_the_second() -> bool:
        _, named = admin.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "jobs")
        return int(named) == second.address.port

    with (
        sentinel.admin() as admin,
        RedisClient(sentinels=[(host, port)], sentinel_service="jobs", retry_timeout_s=LIMIT_S) as client,
    ):
        client.declare(Queue("jobs"))
        version = use(client, "before")
        eventually(hands_over, "the Sentinel has a successor")
        eventually(names_the_second, "the Sentinel names it")
        assert use(client, "after") > version


def _pair(private_redis: StartRedis) -> tuple[PrivateRedis, PrivateRedis]:
    """A server and its replica."""
    first = private_redis()
    second = private_redis(config=f"replicaof 127.0.0.1 {first.address.port}\n")
    with first.admin() as master, second.admin() as replica:
        eventually(
            lambda: (
                replica.info("replication")["master_link_status"] == "up"
                and master.info("replication").get("slave0", {}).get("state") == "online"
            ),
            "the replica follows",
        )
    return first, second
