"""A Redis that comes back with older data, under clients that go on living.

It was restored from an old dump, or a replica took over that lagged behind. Each test remembers a state of
the server, does something that the state lacks, and goes back to it.
"""

import asyncio
import secrets
from abc import ABC, abstractmethod
from collections.abc import Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from background import Background
from brokers.fixtures import StartRedis
from brokers.private_server import free_port
from brokers.proxy import Disruption, Proxy
from brokers.redis_server import PrivateRedis
from conditions import LIMIT_S, eventually
from mindtrace.jobs import AsyncOrchestrator, Orchestrator, PublishStatus, QueueCounts
from mindtrace.jobs.adapters.redis import RedisClient, ended_jobs
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.requests import NumberedRequests
from mindtrace.jobs.adapters.redis.scripts import PUBLISH
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendError, QueueNotFound
from mindtrace.jobs.ports import Ack, JobResult, Message, Next, ResultStatus, SettleOutcome

from .recording_worker import SCHEMA, Numbered

FOR_EVER_S = 3600.0
"""A wait that only what is tested can end."""


class Older(ABC):
    """A server that can be taken back to an earlier state of its data, behind a proxy that leads to it."""

    def __init__(self, start: StartRedis) -> None:
        self.server: PrivateRedis = start()
        with self.server.admin() as admin:
            admin.script_load(PUBLISH.text)  # or the reply that a test cuts off would be that it isn't known
        self.proxy = Proxy(self.server.address.host, self.server.address.port)
        self._stack = ExitStack()

    @abstractmethod
    def remember(self) -> None:
        """Remember the state of the data."""

    @abstractmethod
    def replace(self) -> None:
        """Have the server end, and one come that has the remembered state."""

    def go_back(self) -> None:
        """Go back to the remembered state."""
        self.replace()
        self.reconnect()

    def cut_off(self) -> None:
        """Cut off who comes by the proxy."""
        self.proxy.redirect("127.0.0.1", free_port())

    def reconnect(self) -> None:
        """Lead to the server again."""
        self.proxy.redirect(self.server.address.host, self.server.address.port)

    def client(self, *queues: str, direct: bool = False, **options: Any) -> RedisClient:
        """Connect a client, and declare queues."""
        port = self.server.address.port if direct else self.proxy.port
        options = {"retry_timeout_s": LIMIT_S, "sweep_s": 0.5} | options
        client = self._stack.enter_context(RedisClient("127.0.0.1", port, **options))
        for queue in queues:
            client.declare(Queue(queue))
        return client

    def close(self) -> None:
        self._stack.close()
        self.proxy.close()


class Restored(Older):
    """A server that is killed, and starts from an old dump."""

    def remember(self) -> None:
        with self.server.admin() as admin:
            admin.save()

    def replace(self) -> None:
        self.server.kill()
        self.server.start()


class FailedOver(Older):
    """A server whose place a replica takes that has stopped following."""

    def __init__(self, start: StartRedis) -> None:
        super().__init__(start)
        self._replica: PrivateRedis = start(config=f"replicaof 127.0.0.1 {self.server.address.port}\n")

    def remember(self) -> None:
        mark = secrets.token_hex(4).encode()
        with self.server.admin() as master, self._replica.admin() as replica:
            master.set("mark", mark)
            eventually(lambda: replica.get("mark") == mark, "the replica follows")
            replica.replicaof("NO", "ONE")

    def replace(self) -> None:
        self.server.kill()
        self.server = self._replica


@pytest.fixture(params=[Restored, FailedOver], ids=["restored", "failed over"])
def older(request: pytest.FixtureRequest, private_redis: StartRedis) -> Iterator[Older]:
    older = request.param(private_redis)
    yield older
    older.close()


def publish(client: RedisClient, *ids: str, queue: str = "jobs") -> list[PublishStatus]:
    return [outcome.status for outcome in client.publish(queue, [Message(id_, b"{}") for id_ in ids])]


def end_one(client: RedisClient, queue: str = "jobs") -> str:
    """Take a job, and ack it."""
    with client.open_consumer(queue) as consumer:
        (delivery,) = consumer.receive(1, LIMIT_S)
        assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]
    return delivery.id


# -- queues ---------------------------------------------------------------------------------------


def test_a_queue_that_the_older_data_lacks_is_declared_again_by_those_who_declared_it(older: Older) -> None:
    """By publishers and by workers, and empty (CON-1)."""
    publisher, worker = older.client("before"), older.client("before")
    older.remember()
    for client in (publisher, worker):
        client.declare(Queue("jobs"))
    consumer = worker.open_consumer("jobs")
    publish(publisher, "lost")
    older.go_back()

    assert consumer.receive(1, 0.0) == []
    assert publish(publisher, "new") == [PublishStatus.ACCEPTED]
    (delivery,) = consumer.receive(1, LIMIT_S)
    assert delivery.id == "new"
    assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


def test_a_publisher_alone_declares_what_the_older_data_lacks(older: Older) -> None:
    publisher = older.client("before")
    older.remember()
    publisher.declare(Queue("jobs"))
    older.go_back()

    assert publish(publisher, "new") == [PublishStatus.ACCEPTED]
    assert publish(older.client(), "other") == [PublishStatus.ACCEPTED]


def test_an_ack_publishes_its_next_job_into_a_queue_that_the_older_data_lacks(older: Older) -> None:
    """The script that acks finds another queue missing than its own (THEN-2)."""
    worker = older.client("jobs")
    publish(worker, "first")
    older.remember()
    worker.declare(Queue("next"))
    older.go_back()

    with worker.open_consumer("jobs") as consumer:
        (delivery,) = consumer.receive(1, LIMIT_S)
        ack = Ack(delivery.receipt, then=(Next("next", Message("second", b"{}")),))
        assert consumer.settle([ack]).outcomes == [SettleOutcome.OK]
    assert end_one(worker, "next") == "second"


def test_a_queue_that_was_deleted_stays_deleted_in_older_data(older: Older) -> None:
    """Also for a client that had declared it, and that wasn't told before (ADM-3)."""
    ours, theirs = older.client("jobs", "other"), older.client("jobs")
    consumer = ours.open_consumer("jobs")
    theirs.delete("jobs")
    older.remember()
    theirs.declare(Queue("more"))
    older.go_back()

    with pytest.raises(QueueNotFound):
        publish(ours, "a")
    with pytest.raises(QueueNotFound):
        consumer.receive(1, 0.0)
    assert publish(theirs, "a", queue="more") == [PublishStatus.ACCEPTED]
    with pytest.raises(QueueNotFound):
        ours.counts("jobs")


def test_a_queue_that_was_declared_after_its_deletion_is_declared_again(older: Older) -> None:
    """Though the older data has the deletion, and not what came after it."""
    ours, theirs = older.client("jobs"), older.client("jobs")
    theirs.delete("jobs")
    older.remember()
    theirs.declare(Queue("jobs"))
    older.go_back()

    with pytest.raises(QueueNotFound):
        publish(ours, "a")
    assert publish(theirs, "a") == [PublishStatus.ACCEPTED]
    assert publish(ours, "b") == [PublishStatus.ACCEPTED]


def test_a_queue_that_was_deleted_stays_deleted_for_clients_that_reconnect(older: Older) -> None:
    """To a server that was there all the time (ADM-3)."""
    ours, theirs = older.client("jobs"), older.client("jobs")
    theirs.delete("jobs")
    older.reconnect()

    with pytest.raises(QueueNotFound):
        publish(ours, "a")


def test_the_last_thousand_deletions_are_remembered(private_redis: StartRedis) -> None:
    server, key = private_redis(), QueueKeys("default", "").deleted
    with server.admin() as admin, server.client() as client:
        admin.zadd(key, {f"old-{number}": number for number in range(1000)})
        client.declare(Queue("jobs"))
        client.delete("jobs")

        assert admin.zcard(key) == 1000
        assert admin.zrank(key, "old-1") == 0
        assert admin.zrank(key, "jobs") == 999


def test_a_damaged_record_of_deletions_leaves_a_queue_whole(private_redis: StartRedis) -> None:
    """Its deletion fails before anything is removed (ADM-3)."""
    server, key = private_redis(), QueueKeys("default", "").deleted
    with server.admin() as admin, server.client() as client:
        client.declare(Queue("jobs"))
        publish(client, "a")
        admin.set(key, "damaged")
        with pytest.raises(BackendError):
            client.delete("jobs")

        assert client.counts("jobs").ready == 1
        admin.delete(key)
        client.delete("jobs")
        assert client.queues() == []


# -- results --------------------------------------------------------------------------------------


@pytest.mark.parametrize("hidden", [False, True], ids=["alone", "another waits again first"])
def test_who_waits_for_results_is_told_that_ends_may_be_missing(
    older: Older, hidden: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The older data doesn't know that anybody waits, so no wake-up tells of a job that ends then (RES-1)."""
    monkeypatch.setattr(ended_jobs, "_MARGIN_MS", 600_000)
    client = older.client("jobs")
    publish(client, "job")
    older.remember()
    with client.ended_jobs("jobs") as ended:
        assert list(ended.wait(0.01) or ()) == []
        older.go_back()
        end_one(client)
        if hidden:
            client.ended_jobs("jobs").wait(0.01)
        assert ended.wait(0.01) is None
        publish(client, "next")
        end_one(client)
        told = ended.wait(LIMIT_S)
        assert told is None or list(told) == ["next"]


def test_a_coroutine_that_waits_for_a_result_gets_it_though_nobody_was_told_of_the_end(older: Older) -> None:
    """The job ends in the older data before the waiter is back (RES-1)."""

    async def wait_for_result() -> Any:
        async with AsyncOrchestrator(older.client()) as orchestrator:
            await orchestrator.register(SCHEMA)
            waits = asyncio.create_task(orchestrator.result(SCHEMA, job_id, timeout_s=FOR_EVER_S))
            with older.server.admin() as admin:
                while admin.info("clients")["blocked_clients"] < 1:
                    await asyncio.sleep(0.01)
            older.cut_off()
            older.replace()
            worker = older.client(SCHEMA.name, direct=True)
            assert end_one(worker, SCHEMA.name) == job_id
            older.reconnect()
            async with asyncio.timeout(LIMIT_S):
                return await waits

    with Orchestrator(older.client()) as publisher:
        publisher.register(SCHEMA)
        job_id = publisher.publish(SCHEMA, Numbered(number=1))
        older.remember()
        assert asyncio.run(wait_for_result()) is None


def test_a_thread_that_waits_for_a_result_gets_it_though_nobody_was_told_of_the_end(older: Older) -> None:
    client = older.client("jobs")
    publish(client, "job")
    older.remember()
    with Background() as thread, older.server.admin() as admin:
        waits = thread.submit(client.result, "jobs", "job", timeout_s=FOR_EVER_S)
        eventually(lambda: admin.info("clients")["blocked_clients"] == 1, "it waits")
        older.cut_off()
        older.replace()
        end_one(older.client("jobs", direct=True))
        older.reconnect()
        assert waits.result(LIMIT_S) == JobResult(ResultStatus.DONE)


# -- a publish that was answered UNKNOWN ----------------------------------------------------------


def leave_unknown(older: Older, client: RedisClient, id_: str, *, finds_out: bool = True) -> None:
    """Publish a job that arrives, while no answer does; have the client find out that it did, or not yet."""
    older.proxy.disrupt_next(PUBLISH.sha.encode(), Disruption.CUT, times=100)
    client._redis.retry_timeout_s = 1.0
    assert publish(client, id_) == [PublishStatus.UNKNOWN]
    client._redis.retry_timeout_s = LIMIT_S
    older.proxy.stop_disrupting()
    if finds_out:
        assert publish(client, "found-out") == [PublishStatus.ACCEPTED]


@pytest.mark.parametrize("others", [0, 1], ids=["at once", "after another"])
def test_a_repeated_publish_that_the_older_data_lacks_is_accepted(older: Older, others: int) -> None:
    """The client knows that the job was in the queue, and not that it isn't any more (PUB-5)."""
    client = older.client("jobs")
    older.remember()
    leave_unknown(older, client, "a")
    older.go_back()

    for _ in range(others):
        assert publish(client, "b") == [PublishStatus.ACCEPTED]
    assert publish(client, "a", "c") == [PublishStatus.ACCEPTED] * 2
    assert client.counts("jobs") == QueueCounts(2 + others, 0, 0, 0)


@pytest.mark.parametrize("has_found_out", [False, True], ids=["at once", "after another"])
def test_a_repeated_publish_into_a_queue_that_was_deleted_and_made_anew_is_accepted(
    older: Older, has_found_out: bool
) -> None:
    """Its job went with the queue (PUB-5, ADM-3)."""
    client, other = older.client("jobs"), older.client()
    leave_unknown(older, client, "a", finds_out=has_found_out)
    other.delete("jobs")
    with pytest.raises(QueueNotFound):
        publish(client, "a")
    other.declare(Queue("jobs"))

    assert publish(client, "a") == [PublishStatus.ACCEPTED]
    assert client.counts("jobs").ready == 1


def test_of_a_publish_that_was_answered_unknown_no_body_is_kept(older: Older) -> None:
    """Once the client has found out that it arrived, its number is enough."""
    client = older.client("jobs")
    leave_unknown(older, client, "a")
    publisher = client._publishers["jobs"]

    known = publisher._confirmed_late["a"]
    assert [publisher._requests.unanswered, known.requests.unanswered] == [None, None]
    assert {type(getattr(known, name)) for name in known.__slots__} == {NumberedRequests, int, float}


def test_a_repeated_publish_that_the_older_data_has_is_a_duplicate(older: Older) -> None:
    """Also if the job was done since (PUB-5)."""
    client = older.client("jobs")
    leave_unknown(older, client, "a")
    assert end_one(client) == "a"
    older.remember()
    publish(client, "lost")
    older.go_back()

    assert publish(client, "a", "b") == [PublishStatus.DUPLICATE, PublishStatus.ACCEPTED]
    assert publish(client, "a") == [PublishStatus.ACCEPTED], "done long since, and published anew"
