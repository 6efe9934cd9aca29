"""Requests to Redis whose replies are lost or late: each takes effect once, and the answer is true."""

import random
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from typing import Any

import pytest

from background import Background
from brokers.fixtures import StartRedis
from brokers.proxy import Disruption, Proxy
from brokers.redis_server import PrivateRedis, sent_by_clients
from conditions import LIMIT_S, eventually
from mindtrace.jobs import (
    ConsumerBackend,
    PublishStatus,
    QueueCounts,
)
from mindtrace.jobs.adapters.redis import RedisClient, scripts
from mindtrace.jobs.adapters.redis.consumer import RedisConsumerBackend
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.scripts import (
    DELETE,
    PUBLISH,
    PURGE,
    REDRIVE_OR_DISCARD,
    SETTLE_AND_TAKE,
    Script,
)
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import (
    BackendUnavailable,
    Closed,
    QueueNotFound,
)
from mindtrace.jobs.ports import Ack, Dead, Delivery, Message, Retry, Settlement, SettleOutcome

FOR_EVER_S = 3600.0
"""A wait that only what is tested can end."""


@dataclass
class Line:
    """A client of ours behind a proxy, with a queue, on a server that knows the scripts already."""

    proxy: Proxy
    backend: RedisClient
    server: PrivateRedis

    @contextmanager
    def waiting(self, consumer: ConsumerBackend, max_jobs: int = 1) -> Iterator["Future[list[Delivery]]"]:
        """Receive on another thread, and go on once that waits at the server, or at the proxy."""
        disrupted = self.proxy.disrupted
        with Background() as thread, self.server.admin() as admin:
            received = thread.submit(consumer.receive, max_jobs, FOR_EVER_S)
            eventually(
                lambda: self.proxy.disrupted > disrupted or admin.info("clients")["blocked_clients"] == 1,
                "the consumer waits",
            )
            yield received

    @contextmanager
    def with_a_short_retry_timeout(self) -> Iterator[None]:
        """Have calls give up after a second, which a busy machine may take where nothing is wrong."""
        self.backend._redis.retry_timeout_s = 1.0
        yield
        self.backend._redis.retry_timeout_s = LIMIT_S

    def release(self) -> None:
        """Let through what the proxy holds, and wait until the server has run it."""
        with self.server.admin() as admin:
            before, held = sent_by_clients(admin), self.proxy.held
            self.proxy.release()
            eventually(lambda: sent_by_clients(admin) >= before + held, "all has arrived")

    def publish(self, *ids: str) -> list[PublishStatus]:
        messages = [Message(id_, b"{}") for id_ in ids]
        return [outcome.status for outcome in self.backend.publish("jobs", messages)]


@pytest.fixture
def line(private_redis: StartRedis) -> Iterator[Line]:
    server = private_redis()
    with server.admin() as admin:
        for script in vars(scripts).values():
            if isinstance(script, scripts.Script):
                admin.script_load(script.text)
    proxy = Proxy(server.address.host, server.address.port)
    with proxy, RedisClient("127.0.0.1", proxy.port, retry_timeout_s=1.0, sweep_s=0.5) as backend:
        backend._redis.retry_timeout_s = LIMIT_S  # but each try is given up after half a second
        backend.declare(Queue("jobs"))
        yield Line(proxy, backend, server)


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE])
def test_a_publish_whose_reply_is_lost_is_sent_again_and_counts_once(line: Line, how: Disruption) -> None:
    line.proxy.disrupt_next(PUBLISH.sha.encode(), how)

    assert line.publish("a", "b") == [PublishStatus.ACCEPTED] * 2
    assert line.proxy.disrupted == 1
    assert line.backend.counts("jobs") == QueueCounts(2, 0, 0, 0)


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE])
def test_a_publish_that_never_hears_back_is_unknown_and_known_when_it_is_repeated(
    line: Line, how: Disruption
) -> None:
    line.proxy.disrupt_next(PUBLISH.sha.encode(), how, times=100)
    with line.with_a_short_retry_timeout():
        assert line.publish("a", "b") == [PublishStatus.UNKNOWN] * 2
    line.proxy.stop_disrupting()

    consumer = line.backend.open_consumer("jobs")  # another worker is faster than the repetition
    consumer.settle([Ack(delivery.receipt) for delivery in consumer.receive(1, 0)])

    assert line.publish("a", "b", "c") == [PublishStatus.DUPLICATE] * 2 + [PublishStatus.ACCEPTED]
    assert line.backend.counts("jobs") == QueueCounts(2, 0, 0, 0)
    assert line.publish("a") == [PublishStatus.ACCEPTED], "done long since, and published anew"


def test_a_publish_that_arrives_after_it_was_given_up_changes_nothing(line: Line) -> None:
    line.proxy.disrupt_next(PUBLISH.sha.encode(), Disruption.HOLD, times=100)
    with line.with_a_short_retry_timeout():
        assert line.publish("a") == [PublishStatus.UNKNOWN]
    line.proxy.stop_disrupting()

    assert line.publish("a") == [PublishStatus.ACCEPTED]
    consumer = line.backend.open_consumer("jobs")
    consumer.settle([Ack(delivery.receipt) for delivery in consumer.receive(1, 0)])
    line.release()

    assert line.backend.counts("jobs") == QueueCounts(0, 0, 0, 0)


def test_of_a_large_batch_each_message_is_answered_though_the_queue_is_deleted_meanwhile(line: Line) -> None:
    """The first 500 were confirmed, and the rest is known not to be in the queue (PUB-4)."""
    line.proxy.disrupt_next(b"job-600", Disruption.HOLD, times=1000)
    with Background() as thread, line.server.client() as other:
        answered = thread.submit(line.publish, *[f"job-{number}" for number in range(1200)])
        eventually(lambda: line.proxy.disrupted >= 1, "the second part is held")
        other.delete("jobs")
        line.proxy.stop_disrupting()
        statuses = answered.result()

    assert statuses == [PublishStatus.ACCEPTED] * 500 + [PublishStatus.REJECTED] * 700
    with pytest.raises(QueueNotFound):
        line.publish("a")


def test_of_a_large_batch_what_was_confirmed_before_an_outage_is_known(
    line: Line, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What comes after it is unknown, and costs the patience of one call (PUB-4)."""
    redis = line.backend._redis
    run = redis.run

    def run_and_lose_patience(*arguments: Any, **options: Any) -> Any:
        answer = run(*arguments, **options)
        redis.retry_timeout_s = 1.0
        return answer

    monkeypatch.setattr(redis, "run", run_and_lose_patience)
    line.proxy.disrupt_next(b"job-600", Disruption.SILENCE, times=100)
    statuses = line.publish(*[f"job-{number}" for number in range(3000)])

    assert statuses == [PublishStatus.ACCEPTED] * 500 + [PublishStatus.UNKNOWN] * 2500
    monkeypatch.undo()
    redis.retry_timeout_s = LIMIT_S
    line.proxy.stop_disrupting()
    again = line.publish(*[f"job-{number}" for number in range(500, 3000)])
    assert again == [PublishStatus.DUPLICATE] * 500 + [PublishStatus.ACCEPTED] * 2000
    assert line.backend.counts("jobs") == QueueCounts(3000, 0, 0, 0)


def test_a_publish_is_unknown_where_memory_ran_out_after_its_reply_was_lost(line: Line) -> None:
    """The refusal is of the repetition: the first try may have been, and was, carried out (PUB-1, PUB-4)."""
    line.proxy.disrupt_next(PUBLISH.sha.encode(), Disruption.SILENCE)
    line.proxy.disrupt_next(PUBLISH.sha.encode(), Disruption.HOLD, times=1000)
    with Background() as thread, line.server.admin() as admin:
        answered = thread.submit(line.publish, "a")
        body = QueueKeys("default", "jobs").body
        eventually(lambda: admin.hlen(body) == 1, "it is in the queue")
        admin.config_set("maxmemory", 1)
        line.proxy.stop_disrupting()
        assert answered.result() == [PublishStatus.UNKNOWN]
        admin.config_set("maxmemory", 0)
        assert line.publish("a") == [PublishStatus.DUPLICATE]


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE])
@pytest.mark.parametrize(
    ("script", "call", "answer", "counts"),
    [
        (REDRIVE_OR_DISCARD, lambda backend: backend.redrive("jobs"), 3, QueueCounts(5, 0, 0, 0)),
        (REDRIVE_OR_DISCARD, lambda backend: backend.redrive("jobs", ["a", "b"]), 2, QueueCounts(4, 0, 0, 1)),
        (REDRIVE_OR_DISCARD, lambda backend: backend.discard("jobs"), 3, QueueCounts(2, 0, 0, 0)),
        (REDRIVE_OR_DISCARD, lambda backend: backend.discard("jobs", ["c", "d"]), 1, QueueCounts(2, 0, 0, 2)),
        (PURGE, lambda backend: backend.purge("jobs"), 2, QueueCounts(0, 0, 0, 3)),
        (DELETE, lambda backend: backend.delete("jobs"), None, None),
    ],
    ids=["redrive all", "redrive some", "discard all", "discard some", "purge", "delete"],
)
def test_an_operation_whose_reply_is_lost_is_answered_as_if_it_had_come(
    line: Line,
    how: Disruption,
    script: Script,
    call: Callable[[RedisClient], int | None],
    answer: int | None,
    counts: QueueCounts | None,
) -> None:
    """It says what it did, and did it once (DLQ-2, DLQ-3, ADM-2, ADM-3, CON-1)."""
    line.publish("a", "b", "c")
    consumer = line.backend.open_consumer("jobs")
    deliveries = consumer.receive(3, 0)
    consumer.settle([Dead(delivery.receipt, "rejected", "no") for delivery in deliveries])
    line.publish("d", "e")
    line.proxy.disrupt_next(script.sha.encode(), how)

    assert call(line.backend) == answer
    assert line.proxy.disrupted == 1
    if counts is not None:
        assert line.backend.counts("jobs") == counts
    else:
        with pytest.raises(QueueNotFound):
            line.backend.counts("jobs")


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.SILENCE])
def test_a_delivery_whose_reply_is_lost_is_delivered_once(line: Line, how: Disruption) -> None:
    line.publish("a", "b", "c")
    consumer = line.backend.open_consumer("jobs")
    line.proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), how)

    first = consumer.receive(2, 0)
    assert [(delivery.id, delivery.number) for delivery in first] == [("a", 1), ("b", 1)]
    assert line.backend.counts("jobs") == QueueCounts(1, 0, 2, 0)

    line.proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), how)
    outcomes, second = consumer.settle([Ack(delivery.receipt) for delivery in first], take=2)
    assert outcomes == [SettleOutcome.OK] * 2
    assert [delivery.id for delivery in second] == ["c"]
    assert line.proxy.disrupted == 2
    assert line.backend.counts("jobs") == QueueCounts(0, 0, 1, 0)


def test_a_request_for_jobs_that_arrives_after_it_was_given_up_takes_none(line: Line) -> None:
    line.publish("a", "b")
    consumer = line.backend.open_consumer("jobs")
    line.proxy.disrupt_next(SETTLE_AND_TAKE.sha.encode(), Disruption.HOLD, times=100)
    with line.with_a_short_retry_timeout(), pytest.raises(BackendUnavailable):
        consumer.receive(1, 0)
    line.proxy.stop_disrupting()

    (delivery,) = consumer.receive(1, 0)
    line.release()

    assert delivery.id == "a"
    assert line.backend.counts("jobs") == QueueCounts(1, 0, 1, 0)
    assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


@pytest.mark.parametrize("how", [Disruption.CUT, Disruption.TRUNCATE, Disruption.SILENCE])
def test_a_delivery_that_ends_a_wait_and_whose_reply_is_lost_is_delivered_once(
    line: Line, how: Disruption
) -> None:
    """Whether the connection breaks before, between or within the two replies (LSE-1, CON-1)."""
    consumer = line.backend.open_consumer("jobs")
    line.proxy.disrupt_next(b"XREAD", how)
    with line.waiting(consumer, max_jobs=2) as received:
        line.publish("a", "b")
        deliveries = received.result(LIMIT_S)

    assert [(delivery.id, delivery.number) for delivery in deliveries] == [("a", 1), ("b", 1)]
    assert line.proxy.disrupted == 1
    assert line.backend.counts("jobs") == QueueCounts(0, 0, 2, 0)
    acks = [Ack(delivery.receipt) for delivery in deliveries]
    assert consumer.settle(acks).outcomes == [SettleOutcome.OK] * 2


@contextmanager
def losing_a_wait(
    line: Line, consumer: RedisConsumerBackend, meanwhile: Callable[[], object]
) -> Iterator[None]:
    """Have a wait take a job and its reply be lost, and do something before the consumer asks for it."""
    redis = consumer._redis
    wait = redis.wait

    def lose(*arguments: Any) -> Any:
        answer = wait(*arguments)
        if line.proxy.disrupted:
            redis.wait = wait  # type: ignore[method-assign]
            assert answer[1] is None, "the reply was lost"
            meanwhile()
        return answer

    line.proxy.disrupt_next(b"XREAD", Disruption.CUT)
    redis.wait = lose  # type: ignore[method-assign]
    yield


def test_a_job_that_a_wait_took_is_delivered_though_a_settlement_overtakes_the_question(line: Line) -> None:
    """The settlement is another thread's, over a connection that lives on (LSE-1, RTY-3)."""
    line.publish("a")
    consumer = line.backend.open_consumer("jobs")
    (held,) = consumer.receive(1, 0)

    def settle() -> None:
        with Background() as settler:
            settled = settler.submit(consumer.settle, [Ack(held.receipt)]).result(LIMIT_S)
        assert settled.outcomes == [SettleOutcome.OK]

    with losing_a_wait(line, consumer, settle), line.waiting(consumer) as received:
        line.publish("b")
        (delivery,) = received.result(LIMIT_S)

    assert (delivery.id, delivery.number, delivery.crashes) == ("b", 1, 0)
    assert line.backend.counts("jobs") == QueueCounts(0, 0, 1, 0)
    assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


def test_a_job_that_a_wait_took_comes_back_at_once_when_its_consumer_closes_before_it_asks(
    line: Line,
) -> None:
    """Nobody would release it otherwise, and it would be charged with a crash (CON-2, RTY-3)."""
    consumer = line.backend.open_consumer("jobs", lease_s=FOR_EVER_S)
    with Background() as closer:

        def close() -> None:
            closer.submit(consumer.close)
            eventually(lambda: consumer._closed, "it is closed")

        with losing_a_wait(line, consumer, close), line.waiting(consumer) as received:
            line.publish("a")
            assert isinstance(received.exception(LIMIT_S), Closed)

    assert line.backend.counts("jobs") == QueueCounts(1, 0, 0, 0)
    (delivery,) = line.backend.open_consumer("jobs").receive(1, 0)
    assert delivery.crashes == 0


def test_a_consumer_that_closes_while_it_waits_takes_nothing(line: Line) -> None:
    """Jobs that are published at that very moment stay, or come back at once (CON-2, SET-4)."""
    chance = random.Random(4)
    for number in range(40):
        consumer = line.backend.open_consumer("jobs")
        with line.waiting(consumer) as received, Background() as thread:
            published = thread.submit(line.publish, f"job-{number}")
            time.sleep(chance.uniform(0, 0.002))
            consumer.close()
            published.result()
            assert received.exception() is None or isinstance(received.exception(), Closed)
        assert line.backend.counts("jobs") == QueueCounts(1, 0, 0, 0)
        assert line.backend.purge("jobs") == 1
    line.backend.close()
    with line.server.admin() as admin:
        assert set(admin.scan_iter("mtj:{default/*")).isdisjoint(admin.scan_iter("*:last:*"))
        assert set(admin.scan_iter("mtj:{default/*")).isdisjoint(admin.scan_iter("*:interrupt:*"))


def test_a_wait_that_reaches_the_server_after_its_consumer_closed_takes_nothing(line: Line) -> None:
    consumer = line.backend.open_consumer("jobs")
    line.proxy.disrupt_next(b"XREAD", Disruption.HOLD)
    with line.waiting(consumer) as received:
        consumer.close()
        line.publish("a")
        line.release()
        assert isinstance(received.exception(LIMIT_S), Closed)

    assert line.backend.counts("jobs") == QueueCounts(1, 0, 0, 0)


@pytest.mark.parametrize("settlement", [Ack, partial(Retry, delay_s=0.0, error="once more")])
def test_a_consumer_that_settles_while_it_waits_is_woken_all_the_same(
    line: Line, settlement: Callable[[str], Settlement]
) -> None:
    """The settlement overtakes the request that waits, which then has to be made anew (RCV-2)."""
    line.publish("a")
    consumer = line.backend.open_consumer("jobs")
    (held,) = consumer.receive(1, 0)
    with line.waiting(consumer) as received:
        assert consumer.settle([settlement(held.receipt)]).outcomes == [SettleOutcome.OK]
        line.publish("b")
        (delivery,) = received.result(LIMIT_S)

    assert delivery.id == ("b" if settlement is Ack else "a")
    assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


def test_an_interrupt_ends_a_wait_and_takes_nothing(line: Line) -> None:
    consumer = line.backend.open_consumer("jobs")
    for _ in range(3):
        with line.waiting(consumer) as received:
            consumer.interrupt()
            assert received.result(LIMIT_S) == []
    line.publish("a")
    assert [delivery.id for delivery in consumer.receive(1, FOR_EVER_S)] == ["a"]


def test_a_silent_server_costs_no_more_than_patience(line: Line) -> None:
    line.proxy.disrupt_next(b"", Disruption.SILENCE, times=1000)
    with line.with_a_short_retry_timeout(), pytest.raises(BackendUnavailable):
        line.backend.counts("jobs")
    assert line.proxy.disrupted <= 3, "each try may take half a second"
