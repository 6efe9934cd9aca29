"""What Redis, its network and the workers can suffer, and how the account of all jobs stands afterwards.

What several backends can suffer alike is tried in ``faults/``; here is what is Redis's own. Where a worker is
killed, it is a process, as a user runs it.
"""

import logging
import os
import random
import re
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

from brokers.account import Account, Record, Totals
from brokers.fixtures import StartRedis
from brokers.proxy import Proxy, Spoil
from brokers.redis_server import PrivateRedis
from mindtrace.jobs import (
    Consumer,
    ConsumerBackend,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Orchestrator,
    PublishStatus,
    QueueCounts,
    job_from_schema,
)
from mindtrace.jobs.adapters.redis import RedisClient, scripts
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.scripts import DELETE, EXCHANGE, PUBLISH, PURGE, REDRIVE_OR_DISCARD, Script
from mindtrace.jobs.adapters.redis.transport import retrying_connection
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import (
    AccessDenied,
    BackendUnavailable,
    Closed,
    QueueNotFound,
)
from mindtrace.jobs.ports import Ack, Dead, Delivery, Message, Retry, Settlement, SettleOutcome

from .worker import SCHEMA, Numbered, Square
from .workers import WorkerProcess, eventually

QUEUE = SCHEMA.name
PATIENCE_S = 60.0
"""How long a test waits for what must happen; only a failing test waits that long."""
FOR_EVER_S = 3600.0
"""A wait that only what is tested can end."""
NOBODYS_PORT = 1
"""A port that no server listens on, and none of the tests' can be given."""


# -- workers --------------------------------------------------------------------------------------


class Squarer(Consumer):
    """The same worker on a thread of this process."""

    def __init__(self, record: Record) -> None:
        super().__init__(QUEUE)
        self._descriptor = record.writer()
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self.error: BaseException | None = None

    def run(self, job: Job[Numbered]) -> Square:
        Record.write(self._descriptor, job.id)
        time.sleep(0.001)
        return Square(square=job.payload.number**2)

    def _consume(self) -> None:
        try:
            self.consume()
        except BaseException as error:
            self.error = error

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, *_exc: Any) -> None:
        self.stop()
        self._thread.join(PATIENCE_S)
        assert not self._thread.is_alive(), "the consumer doesn't stop"
        self.close()
        os.close(self._descriptor)
        assert self.error is None, repr(self.error)


@dataclass
class Trial:
    """One server, one queue, the producer's side of it, and the account of what becomes of its jobs."""

    server: PrivateRedis
    backend: RedisClient
    record: Record
    stack: ExitStack
    account: Account = field(default_factory=Account)
    asked_again: int = 0

    def __post_init__(self) -> None:
        self.orchestrator = Orchestrator(self.backend)
        self.orchestrator.register(SCHEMA)

    def jobs(self, count: int) -> list[Job[Numbered]]:
        return [job_from_schema(SCHEMA, Numbered(number=number)) for number in range(count)]

    def publish(self, jobs: list[Job[Numbered]]) -> None:
        """Publish ``jobs``, and again what was left open or not sent, until all are confirmed."""
        left = jobs
        while left:
            self.account.unconfirmed.update(job.id for job in left)
            try:
                outcomes = self.orchestrator.publish_batch(QUEUE, left)
            except BackendUnavailable:  # nothing was sent
                continue
            unknown = {outcome.id for outcome in outcomes if outcome.status is PublishStatus.UNKNOWN}
            rejected = [outcome for outcome in outcomes if outcome.status is PublishStatus.REJECTED]
            assert not rejected, rejected[0].error
            confirmed = {outcome.id for outcome in outcomes} - unknown
            self.account.confirmed |= confirmed
            self.account.unconfirmed -= confirmed
            left = [job for job in left if job.id in unknown]
            self.asked_again += bool(left)

    def start_worker(self, **options: float) -> WorkerProcess:
        """Start a worker process, and wait until it works."""
        before = len(self.record)
        worker = WorkerProcess(self.server.url, self.record, **options)
        self.stack.callback(worker.kill)
        eventually(lambda: worker.has_ended or len(self.record) > before, PATIENCE_S, "a worker works")
        assert not worker.has_ended, worker.end()
        return worker

    def worker(self, orchestrator: Orchestrator | None = None, **options: Any) -> Squarer:
        """A worker on a thread, for ``with``."""
        worker = Squarer(self.record)
        worker.connect(orchestrator or self.orchestrator, **options)
        return worker

    def expect_drained(self) -> None:
        empty = QueueCounts(0, 0, 0, 0)
        eventually(lambda: self.backend.counts(QUEUE) == empty, PATIENCE_S, "every job is done")

    def expect_waiting(self, workers: int) -> None:
        with self.server.admin() as admin:
            blocked = lambda: admin.info("clients")["blocked_clients"]  # noqa: E731
            eventually(lambda: blocked() == workers, PATIENCE_S, f"{workers} wait")

    def check(self) -> Totals:
        return self.account.check(self.backend, QUEUE, self.record)


@pytest.fixture
def trial_on(tmp_path: Path) -> Iterator[Callable[..., Trial]]:
    with ExitStack() as stack:

        def start(server: PrivateRedis, backend: RedisClient | None = None, **options: Any) -> Trial:
            client = stack.enter_context(backend or server.client(**options))
            return Trial(server, client, Record(tmp_path / "record"), stack)

        yield start


TrialOn = Callable[..., Trial]


# -- workers that die or sleep --------------------------------------------------------------------


def test_a_worker_that_is_killed_while_it_waits_takes_no_job_along(
    private_redis: StartRedis, trial_on: TrialOn
) -> None:
    """What is published right after goes to another worker, which nothing else would wake (RCV-2, LSE-1)."""
    trial = trial_on(private_redis(), sweep_s=FOR_EVER_S)
    with trial.worker(lease_s=FOR_EVER_S, poll_timeout_s=FOR_EVER_S):
        for _ in range(3):
            doomed = WorkerProcess(trial.server.url, trial.record, lease_s=FOR_EVER_S)
            trial.stack.callback(doomed.kill)
            trial.expect_waiting(2)
            trial.publish(trial.jobs(20))
            trial.expect_drained()
            trial.expect_waiting(2)
            doomed.kill()
            trial.publish(trial.jobs(1))
            trial.expect_drained()


# -- a broker that dies ---------------------------------------------------------------------------


def test_a_broker_that_kept_nothing_is_given_its_queues_again(
    private_redis: StartRedis, trial_on: TrialOn
) -> None:
    server = private_redis()
    trial = trial_on(server)

    with trial.worker():
        trial.publish(trial.jobs(5))
        trial.expect_drained()
        server.kill()
        server.start()
        jobs = trial.jobs(5)
        trial.publish(jobs)
        eventually(lambda: len(trial.record) == 10, PATIENCE_S, "the worker goes on")
        trial.expect_drained()


def test_an_outage_is_told_once_and_not_once_for_every_try(
    private_redis: StartRedis, trial_on: TrialOn, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis(appendonly="yes")
    trial = trial_on(server, retry_timeout_s=0.5)
    worker, tries = trial.worker(), Counter[str]()
    receive = worker.consumer_backend.receive

    def counted(max_jobs: int, timeout_s: float) -> list[Delivery]:
        tries["begun"] += 1
        try:
            return receive(max_jobs, timeout_s)
        except BackendUnavailable:
            tries["failed"] += 1
            raise

    worker.consumer_backend.receive = counted  # type: ignore[method-assign]
    with caplog.at_level(logging.INFO), worker:
        eventually(lambda: tries["begun"], PATIENCE_S, "the worker works")
        server.kill()
        eventually(lambda: tries["failed"] >= 4, PATIENCE_S, "it tries again and again")
        server.start()
        trial.publish(trial.jobs(1))
        trial.expect_drained()

    told = Counter(re.sub(r"\d+", "N", record.getMessage()) for record in caplog.records)
    assert any("out of reach" in message for message in told)
    assert any("is back" in message for message in told)
    assert set(told.values()) == {1}, told


# -- commands and memory that are taken away ------------------------------------------------------


def kill_clients(admin: Redis) -> None:
    admin.client_kill_filter(_type="normal", skipme=True)


def flush_scripts(admin: Redis) -> None:
    admin.script_flush()


@contextmanager
def disturbing(server: PrivateRedis, how: Callable[[Redis], None]) -> Iterator[Callable[[], None]]:
    """Yield what has the server disturbed once more, at some moment of what the caller does next."""
    asked, chance = SimpleQueue[bool](), random.Random(4)

    def disturb() -> None:
        with server.admin() as admin:
            while asked.get():
                time.sleep(chance.uniform(0, 0.005))
                how(admin)

    thread = threading.Thread(target=disturb, daemon=True)
    thread.start()
    try:
        yield lambda: asked.put(True)
    finally:
        asked.put(False)
        thread.join()


@pytest.mark.parametrize("how", [kill_clients, flush_scripts])
@pytest.mark.parametrize("retry_timeout_s", [PATIENCE_S, 0.01])
def test_cut_connections_and_flushed_scripts_lose_nothing_and_repeat_nothing(
    private_redis: StartRedis, trial_on: TrialOn, how: Callable[[Redis], None], retry_timeout_s: float
) -> None:
    server = private_redis()
    trial = trial_on(server, retry_timeout_s=PATIENCE_S)
    jobs = trial.jobs(4000)

    with server.client(retry_timeout_s=retry_timeout_s) as publisher:
        worker = trial.worker()
        trial.orchestrator = Orchestrator(publisher)  # with little patience it answers UNKNOWN at times
        trial.orchestrator.register(SCHEMA)
        with worker, disturbing(server, how) as disturb:
            for start in range(0, 4000, 20):
                disturb()
                trial.publish(jobs[start : start + 20])
            trial.expect_drained()
            stats = worker.stats

    totals = trial.check()
    print(f"{totals}, {stats}, {trial.asked_again} publishes answered UNKNOWN")
    assert totals.ran_again == 0


# -- servers that can't be used -------------------------------------------------------------------


@pytest.mark.parametrize(
    ("maxmemory", "policy"), [("0", "allkeys-lru"), ("100mb", "noeviction"), ("100mb", "volatile-lru")]
)
def test_a_server_that_evicts_no_job_is_used(private_redis: StartRedis, maxmemory: str, policy: str) -> None:
    with private_redis(maxmemory=maxmemory, maxmemory_policy=policy).client() as backend:
        Orchestrator(backend).register(SCHEMA)


@pytest.mark.parametrize(
    "who", [{"password": "a-wrong-one"}, {"username": "x", "password": "a-wrong-one"}, {}]
)
def test_a_wrong_password_is_denied_at_once_and_shown_nowhere(
    private_redis: StartRedis, who: dict[str, str], caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis(requirepass="the-right-one")

    backend = RedisClient(server.address.host, server.address.port, retry_timeout_s=FOR_EVER_S, **who)
    with backend, caplog.at_level(logging.DEBUG), pytest.raises(AccessDenied) as denied:
        Orchestrator(backend).register(SCHEMA)

    shown = f"{denied.value} {denied.value.__cause__!r} {backend!r} {vars(backend)} {caplog.text}"
    assert "a-wrong-one" not in shown
    assert "the-right-one" not in shown


def test_a_user_who_may_not_wait_is_told_so_in_place_of_a_storm_of_requests(
    private_redis: StartRedis,
) -> None:
    server = private_redis()
    with server.admin() as admin:
        admin.execute_command("ACL", "SETUSER", "deaf", "on", ">secret", "~*", "+@all", "-xread")
    with server.client(username="deaf", password="secret") as backend:
        backend.declare(Queue("jobs"))
        with pytest.raises(AccessDenied, match="xread"):
            backend.open_consumer("jobs").receive(1, FOR_EVER_S)


@pytest.mark.parametrize("retry_timeout_s", [0.5, 2.0])
def test_a_server_that_is_not_there_is_told_within_patience_and_how_to_start_one(
    retry_timeout_s: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    with RedisClient(
        "127.0.0.1", NOBODYS_PORT, password="a-secret", retry_timeout_s=retry_timeout_s
    ) as backend:
        orchestrator = Orchestrator(backend)
        waited: list[float] = []
        monkeypatch.setattr(retrying_connection, "monotonic", lambda: 1000.0 + sum(waited))
        monkeypatch.setattr(backend._redis._closing, "wait", waited.append)
        with pytest.raises(BackendUnavailable) as error:
            orchestrator.register(SCHEMA)

    assert len(waited) >= 2
    assert sum(waited) < retry_timeout_s
    assert f"127.0.0.1:{NOBODYS_PORT}" in str(error.value)
    assert "redis-server" in str(error.value)
    assert "a-secret" not in str(error.value)


def test_backends_are_tried_in_turn_and_one_without_a_server_only_costs_its_own(
    capsys: pytest.CaptureFixture[str],
) -> None:
    class MyConsumer(Consumer):
        def run(self, job: Job[Any]) -> None: ...

    backends = [
        ("Redis", RedisClient(host="localhost", port=NOBODYS_PORT, db=0, retry_timeout_s=0.5)),
        ("Local", LocalClient()),
    ]
    for name, backend in backends:
        try:
            orchestrator = Orchestrator(backend)
            orchestrator.register(SCHEMA)
            orchestrator.publish(QUEUE, Numbered(number=1))
            consumer = MyConsumer(QUEUE)
            consumer.connect(orchestrator)
            print(f"✓ {name} backend: {type(consumer.consumer_backend).__name__}")
            consumer.consume(num_messages=1)
        except Exception as e:
            print(f"✗ {name} backend failed: {e}")
        backend.close()

    first, second = capsys.readouterr().out.splitlines()
    assert first.startswith("✗ Redis backend failed: no Redis answers at localhost:")
    assert second == "✓ Local backend: LocalConsumerBackend"


# -- a network that spoils connections ------------------------------------------------------------


@dataclass
class Line:
    """A client of ours behind a proxy, with a queue, on a server that knows the scripts already."""

    proxy: Proxy
    backend: RedisClient
    server: PrivateRedis

    @contextmanager
    def waiting(self, consumer: ConsumerBackend, max_jobs: int = 1) -> Iterator["Future[list[Delivery]]"]:
        """Receive on another thread, and go on once that waits at the server, or at the proxy."""
        spoiled = self.proxy.spoiled
        with ThreadPoolExecutor(1) as thread, self.server.admin() as admin:
            received = thread.submit(consumer.receive, max_jobs, FOR_EVER_S)
            eventually(
                lambda: self.proxy.spoiled > spoiled or admin.info("clients")["blocked_clients"] == 1,
                PATIENCE_S,
                "the consumer waits",
            )
            yield received

    @contextmanager
    def with_little_patience(self) -> Iterator[None]:
        """Have calls give up after a second, which a busy machine may take where nothing is wrong."""
        self.backend._redis.retry_timeout_s = 1.0
        yield
        self.backend._redis.retry_timeout_s = PATIENCE_S

    def release(self) -> None:
        """Let through what the proxy holds, and wait until the server has run it."""
        with self.server.admin() as admin:
            before, held = sent_by_clients(admin), self.proxy.held
            self.proxy.release()
            eventually(lambda: sent_by_clients(admin) >= before + held, PATIENCE_S, "all has arrived")

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
        backend.declare(Queue("jobs"))
        backend._redis.retry_timeout_s = PATIENCE_S  # but each try is given up after half a second
        yield Line(proxy, backend, server)


@pytest.mark.parametrize("how", [Spoil.CUT, Spoil.SILENCE])
def test_a_publish_whose_reply_is_lost_is_sent_again_and_counts_once(line: Line, how: Spoil) -> None:
    line.proxy.spoil_next(PUBLISH.sha.encode(), how)

    assert line.publish("a", "b") == [PublishStatus.ACCEPTED] * 2
    assert line.proxy.spoiled == 1
    assert line.backend.counts("jobs") == QueueCounts(2, 0, 0, 0)


@pytest.mark.parametrize("how", [Spoil.CUT, Spoil.SILENCE])
def test_a_publish_that_never_hears_back_is_unknown_and_known_when_it_is_repeated(
    line: Line, how: Spoil
) -> None:
    line.proxy.spoil_next(PUBLISH.sha.encode(), how, times=100)
    with line.with_little_patience():
        assert line.publish("a", "b") == [PublishStatus.UNKNOWN] * 2
    line.proxy.forgive()

    consumer = line.backend.open_consumer("jobs")  # another worker is faster than the repetition
    consumer.settle([Ack(delivery.receipt) for delivery in consumer.receive(1, 0)])

    assert line.publish("a", "b", "c") == [PublishStatus.DUPLICATE] * 2 + [PublishStatus.ACCEPTED]
    assert line.backend.counts("jobs") == QueueCounts(2, 0, 0, 0)
    assert line.publish("a") == [PublishStatus.ACCEPTED], "done long since, and published anew"


def test_a_publish_that_arrives_after_it_was_given_up_changes_nothing(line: Line) -> None:
    line.proxy.spoil_next(PUBLISH.sha.encode(), Spoil.HOLD, times=100)
    with line.with_little_patience():
        assert line.publish("a") == [PublishStatus.UNKNOWN]
    line.proxy.forgive()

    assert line.publish("a") == [PublishStatus.ACCEPTED]
    consumer = line.backend.open_consumer("jobs")
    consumer.settle([Ack(delivery.receipt) for delivery in consumer.receive(1, 0)])
    line.release()

    assert line.backend.counts("jobs") == QueueCounts(0, 0, 0, 0)


def test_of_a_large_batch_each_message_is_answered_though_the_queue_is_deleted_meanwhile(line: Line) -> None:
    """The first 500 were confirmed, and the rest is known not to be in the queue (PUB-4)."""
    line.proxy.spoil_next(b"job-600", Spoil.HOLD)
    with ThreadPoolExecutor(1) as thread, line.server.client() as other:
        answered = thread.submit(line.publish, *[f"job-{number}" for number in range(1200)])
        eventually(lambda: line.proxy.spoiled == 1, PATIENCE_S, "the second part is held")
        other.delete("jobs")
        statuses = answered.result()

    assert statuses == [PublishStatus.ACCEPTED] * 500 + [PublishStatus.REJECTED] * 700
    with pytest.raises(QueueNotFound):
        line.publish("a")


def test_of_a_large_batch_what_was_confirmed_before_an_outage_is_known(line: Line) -> None:
    """What comes after it is unknown, and costs the patience of one call (PUB-4)."""
    line.proxy.spoil_next(b"job-600", Spoil.SILENCE, times=100)
    with line.with_little_patience():
        statuses = line.publish(*[f"job-{number}" for number in range(3000)])

    assert statuses == [PublishStatus.ACCEPTED] * 500 + [PublishStatus.UNKNOWN] * 2500
    line.proxy.forgive()
    again = line.publish(*[f"job-{number}" for number in range(500, 3000)])
    assert again == [PublishStatus.DUPLICATE] * 500 + [PublishStatus.ACCEPTED] * 2000
    assert line.backend.counts("jobs") == QueueCounts(3000, 0, 0, 0)


def test_a_publish_is_unknown_where_memory_ran_out_after_its_reply_was_lost(line: Line) -> None:
    """The refusal is of the repetition: the first try may have been, and was, carried out (PUB-1, PUB-4)."""
    line.proxy.spoil_next(PUBLISH.sha.encode(), Spoil.SILENCE)
    line.proxy.spoil_next(PUBLISH.sha.encode(), Spoil.HOLD, times=1000)
    with ThreadPoolExecutor(1) as thread, line.server.admin() as admin:
        answered = thread.submit(line.publish, "a")
        body = QueueKeys("default", "jobs").body
        eventually(lambda: admin.hlen(body) == 1, PATIENCE_S, "it is in the queue")
        admin.config_set("maxmemory", 1)
        line.proxy.forgive()
        assert answered.result() == [PublishStatus.UNKNOWN]
        admin.config_set("maxmemory", 0)
        assert line.publish("a") == [PublishStatus.DUPLICATE]


@pytest.mark.parametrize("how", [Spoil.CUT, Spoil.SILENCE])
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
    how: Spoil,
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
    line.proxy.spoil_next(script.sha.encode(), how)

    assert call(line.backend) == answer
    assert line.proxy.spoiled == 1
    if counts is not None:
        assert line.backend.counts("jobs") == counts
    else:
        with pytest.raises(QueueNotFound):
            line.backend.counts("jobs")


@pytest.mark.parametrize("how", [Spoil.CUT, Spoil.SILENCE])
def test_a_delivery_whose_reply_is_lost_is_delivered_once(line: Line, how: Spoil) -> None:
    line.publish("a", "b", "c")
    consumer = line.backend.open_consumer("jobs")
    line.proxy.spoil_next(EXCHANGE.sha.encode(), how)

    first = consumer.receive(2, 0)
    assert [(delivery.id, delivery.number) for delivery in first] == [("a", 1), ("b", 1)]
    assert line.backend.counts("jobs") == QueueCounts(1, 0, 2, 0)

    line.proxy.spoil_next(EXCHANGE.sha.encode(), how)
    outcomes, second = consumer.settle([Ack(delivery.receipt) for delivery in first], take=2)
    assert outcomes == [SettleOutcome.OK] * 2
    assert [delivery.id for delivery in second] == ["c"]
    assert line.proxy.spoiled == 2
    assert line.backend.counts("jobs") == QueueCounts(0, 0, 1, 0)


def test_a_request_for_jobs_that_arrives_after_it_was_given_up_takes_none(line: Line) -> None:
    line.publish("a", "b")
    consumer = line.backend.open_consumer("jobs")
    line.proxy.spoil_next(EXCHANGE.sha.encode(), Spoil.HOLD, times=100)
    with line.with_little_patience(), pytest.raises(BackendUnavailable):
        consumer.receive(1, 0)
    line.proxy.forgive()

    (delivery,) = consumer.receive(1, 0)
    line.release()

    assert delivery.id == "a"
    assert line.backend.counts("jobs") == QueueCounts(1, 0, 1, 0)
    assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


@pytest.mark.parametrize("how", [Spoil.CUT, Spoil.TRUNCATE, Spoil.SILENCE])
def test_a_delivery_that_ends_a_wait_and_whose_reply_is_lost_is_delivered_once(
    line: Line, how: Spoil
) -> None:
    """Whether the connection breaks before, between or within the two replies (LSE-1, CON-1)."""
    consumer = line.backend.open_consumer("jobs")
    line.proxy.spoil_next(b"XREAD", how)
    with line.waiting(consumer, max_jobs=2) as received:
        line.publish("a", "b")
        deliveries = received.result(PATIENCE_S)

    assert [(delivery.id, delivery.number) for delivery in deliveries] == [("a", 1), ("b", 1)]
    assert line.proxy.spoiled == 1
    assert line.backend.counts("jobs") == QueueCounts(0, 0, 2, 0)
    acks = [Ack(delivery.receipt) for delivery in deliveries]
    assert consumer.settle(acks).outcomes == [SettleOutcome.OK] * 2


def test_a_consumer_that_closes_while_it_waits_takes_nothing(line: Line) -> None:
    """Jobs that are published at that very moment stay, or come back at once (CON-2, SET-4)."""
    chance = random.Random(4)
    for number in range(40):
        consumer = line.backend.open_consumer("jobs")
        with line.waiting(consumer) as received, ThreadPoolExecutor(1) as thread:
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
    line.proxy.spoil_next(b"XREAD", Spoil.HOLD)
    with line.waiting(consumer) as received:
        consumer.close()
        line.publish("a")
        line.release()
        assert isinstance(received.exception(PATIENCE_S), Closed)

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
        (delivery,) = received.result(PATIENCE_S)

    assert delivery.id == ("b" if settlement is Ack else "a")
    assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


def test_an_interrupt_ends_a_wait_and_takes_nothing(line: Line) -> None:
    consumer = line.backend.open_consumer("jobs")
    for _ in range(3):
        with line.waiting(consumer) as received:
            consumer.interrupt()
            assert received.result(PATIENCE_S) == []
    line.publish("a")
    assert [delivery.id for delivery in consumer.receive(1, FOR_EVER_S)] == ["a"]


def test_a_silent_server_costs_no_more_than_patience(line: Line) -> None:
    line.proxy.spoil_next(b"", Spoil.SILENCE, times=1000)
    with line.with_little_patience(), pytest.raises(BackendUnavailable):
        line.backend.counts("jobs")
    assert line.proxy.spoiled <= 3, "each try may take half a second"


# -- what an idle worker costs --------------------------------------------------------------------


def sent_by_clients(admin: Redis) -> int:
    """How many commands clients have sent; those inside scripts count as the script."""
    stats = admin.info("commandstats")
    return sum(stats.get(f"cmdstat_{name}", {"calls": 0})["calls"] for name in ("evalsha", "eval", "xread"))


def test_an_idle_worker_sends_a_handful_of_commands_a_minute_and_wakes_at_once(
    private_redis: StartRedis, trial_on: TrialOn
) -> None:
    trial = trial_on(private_redis())
    window_s = 10.5

    with trial.server.admin() as admin, trial.worker():
        trial.publish(trial.jobs(1))
        trial.expect_drained()
        trial.expect_waiting(1)
        before = sent_by_clients(admin)
        time.sleep(window_s)
        sent = sent_by_clients(admin) - before

    print(f"{sent} commands in {window_s} s")
    assert sent * 60 / window_s <= 30

    client = trial.stack.enter_context(trial.server.client(sweep_s=FOR_EVER_S))
    with trial.worker(Orchestrator(client), poll_timeout_s=FOR_EVER_S):
        for _ in range(20):  # and nothing but the publish can wake it
            trial.expect_waiting(1)
            trial.publish(trial.jobs(1))
            trial.expect_drained()


# -- a server that another takes the place of -----------------------------------------------------


def role(server: PrivateRedis) -> str:
    with suppress(RedisError), server.admin() as admin:
        return str(admin.info("replication")["role"])
    return "none"


def test_workers_and_publishers_follow_a_failover(private_redis: StartRedis, trial_on: TrialOn) -> None:
    def is_followed() -> bool:
        with second.admin() as replica:
            return replica.info("replication")["master_link_status"] == "up"

    def tells_of_it() -> bool:
        with first.admin() as master:
            return master.info("replication").get("slave0", {}).get("state") == "online"

    def hands_over() -> bool:
        with suppress(RedisError):  # the Sentinel doesn't know the replica yet
            admin.execute_command("SENTINEL", "FAILOVER", "jobs")
            return True
        return False

    def names_the_second() -> bool:
        _, port = admin.execute_command("SENTINEL", "GET-MASTER-ADDR-BY-NAME", "jobs")
        return int(port) == second.address.port

    first = private_redis()
    second = private_redis(config=f"replicaof 127.0.0.1 {first.address.port}\n")
    eventually(is_followed, PATIENCE_S, "the replica follows")
    eventually(tells_of_it, PATIENCE_S, "the first server tells of it")
    sentinel = private_redis(
        sentinel=True, config=f"sentinel monitor jobs 127.0.0.1 {first.address.port} 1\n"
    )
    host, port = sentinel.address.host, sentinel.address.port
    trial = trial_on(first, backend=RedisClient.from_url(f"redis+sentinel://{host}:{port}/jobs/0"))

    with (
        sentinel.admin() as admin,
        RedisClient(sentinels=[(host, port)], sentinel_service="jobs") as workers,
        trial.worker(orchestrator=Orchestrator(workers)) as worker,
    ):
        trial.publish(trial.jobs(50))
        trial.expect_drained()
        eventually(hands_over, PATIENCE_S, "the Sentinel has a successor")
        eventually(lambda: (role(first), role(second)) == ("slave", "master"), PATIENCE_S, "it takes over")
        eventually(names_the_second, PATIENCE_S, "the Sentinel names it")
        trial.publish(trial.jobs(50))
        trial.expect_drained()
        eventually(lambda: worker.stats.done == 100, PATIENCE_S, "the worker has read that all are settled")

    assert trial.check().done == 100


def test_sentinels_that_have_a_password_are_asked_with_it(private_redis: StartRedis) -> None:
    server = private_redis()
    config = f"sentinel monitor jobs 127.0.0.1 {server.address.port} 1\n"
    sentinel = private_redis(sentinel=True, config=config, requirepass="a secret&more")
    address = f"{sentinel.address.host}:{sentinel.address.port}"

    with RedisClient.from_url(
        f"redis+sentinel://{address}/jobs?sentinel_password=a%20secret%26more"
    ) as backend:
        backend.declare(Queue("jobs"))
        assert backend.counts("jobs") == QueueCounts(0, 0, 0, 0)
    refusal = pytest.raises(BackendUnavailable, match="a Sentinel wants another sentinel_password")
    with RedisClient.from_url(f"redis+sentinel://{address}/jobs") as backend, refusal:
        backend.declare(Queue("jobs"))


# -- the first steps ------------------------------------------------------------------------------

EXAMPLE_1 = """\
from mindtrace.jobs import Orchestrator, LocalClient, Consumer, JobSchema, JobInput

local_backend = LocalClient()
orchestrator = Orchestrator(local_backend)

schema = JobSchema(name="my_jobs", input=MyJobInput(), output=MyJobOutput())
orchestrator.register(schema)

class MyConsumer(Consumer):
    def run(self, job):
        print(f"Processing job {job.id} with LOCAL backend")

consumer = MyConsumer("my_jobs")
consumer.connect(orchestrator)
consumer.consume(num_messages=5)
"""
EXAMPLE_2 = """\
from mindtrace.jobs import RedisClient

redis_backend = RedisClient(host="localhost", port=6379, db=0)
orchestrator = Orchestrator(redis_backend)

consumer = MyConsumer("my_jobs")
consumer.connect(orchestrator)
consumer.consume(num_messages=5)
"""
MODELS = """\
from mindtrace.jobs import JobOutput, JobInput

class MyJobInput(JobInput):
    x: float = 0.0

class MyJobOutput(JobOutput):
    total: float = 0.0
"""


@pytest.mark.parametrize("waiting", [0, 5])
def test_the_second_example_works_after_the_first_and_ends(private_redis: StartRedis, waiting: int) -> None:
    class MyJobInput(JobInput):
        x: float = 0.0

    server = private_redis()
    schema = JobSchema(name="my_jobs", input=MyJobInput)
    with server.client() as backend:
        orchestrator = Orchestrator(backend)
        orchestrator.register(schema)
        ids = [orchestrator.publish("my_jobs", MyJobInput(x=number)) for number in range(waiting)]

        port = str(server.address.port)
        script = f"{MODELS}\n{EXAMPLE_1}\n{EXAMPLE_2.replace('6379', port)}"
        ended = subprocess.run(
            [sys.executable, "-W", "error", "-c", script], capture_output=True, encoding="utf-8", timeout=100
        )

        assert ended.returncode == 0, ended.stderr
        assert ended.stderr == ""
        assert ended.stdout.splitlines() == [f"Processing job {id_} with LOCAL backend" for id_ in ids]
        assert backend.counts("my_jobs") == QueueCounts(0, 0, 0, 0)


FORKS = """
import os, sys
from mindtrace.jobs import JobInput, JobOutput, JobSchema, Orchestrator, RedisClient
from mindtrace.jobs.domain.errors import Closed

backend = RedisClient(port=int(sys.argv[1]))
orchestrator = Orchestrator(backend)
orchestrator.register(JobSchema("forked", JobInput, JobOutput))
orchestrator.publish("forked", {})
consumer = backend.open_consumer("forked")
for _ in range(4):
    if os.fork() == 0:
        orchestrator.publish("forked", {})
        try:
            consumer.receive(1, 0.0)
        except Closed:
            os._exit(0)
        os._exit(1)
for _ in range(4):
    assert os.wait()[1] == 0
orchestrator.publish("forked", {})
print(orchestrator.count_queue_messages("forked"), len(consumer.receive(10, 1.0)))
"""


def test_a_client_that_was_forked_is_another_client(private_redis: StartRedis) -> None:
    """No publish of a child is taken for its parent's, and no child shares a consumer (PUB-1, RCV-3)."""
    server = private_redis()
    done = subprocess.run(
        [sys.executable, "-W", "ignore", "-c", FORKS, str(server.address.port)],
        capture_output=True,
        text=True,
    )

    assert (done.stdout, done.stderr) == ("6 6\n", "")
