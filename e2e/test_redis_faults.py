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
from contextlib import AbstractContextManager, ExitStack, contextmanager, suppress
from dataclasses import dataclass, field
from pathlib import Path
from queue import SimpleQueue
from typing import Any, Self

import pytest
from redis import Redis
from redis.exceptions import RedisError

from brokers.fixtures import StartRedis
from brokers.redis_server import PrivateRedis, sent_by_clients
from conditions import LIMIT_S, eventually
from job_audit import ExecutionRecord, JobAudit, Totals
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Orchestrator,
    PublishStatus,
    QueueCounts,
    job_from_schema,
)
from mindtrace.jobs.adapters.redis import RedisClient
from mindtrace.jobs.adapters.redis.errors import QueueDamaged
from mindtrace.jobs.adapters.redis.keys import QueueKeys
from mindtrace.jobs.adapters.redis.transport import retrying_connection
from mindtrace.jobs.adapters.redis.transport.connections import ConnectionBroke
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import (
    AccessDenied,
    BackendUnavailable,
)
from mindtrace.jobs.ports import Ack, Delivery, Message, Next, Release, SettleOutcome

from .recording_worker import SCHEMA, Numbered, Square
from .worker_process import WorkerProcess

QUEUE = SCHEMA.name
FOR_EVER_S = 3600.0
"""A wait that only what is tested can end."""
NOBODYS_PORT = 1
"""A port that no server listens on, and none of the tests' can be given."""


# -- workers --------------------------------------------------------------------------------------


class Squarer(Consumer):
    """The same worker on a thread of this process."""

    def __init__(self, record: ExecutionRecord) -> None:
        super().__init__(QUEUE)
        self._descriptor = record.writer()
        self._thread = threading.Thread(target=self._consume, daemon=True)
        self.error: BaseException | None = None

    def run(self, job: Job[Numbered]) -> Square:
        ExecutionRecord.write(self._descriptor, job.id)
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
        self._thread.join(LIMIT_S)
        assert not self._thread.is_alive(), "the consumer doesn't stop"
        self.close()
        os.close(self._descriptor)
        assert self.error is None, repr(self.error)


@dataclass
class Experiment:
    """One server, one queue, the producer's side of it, and the account of what becomes of its jobs."""

    server: PrivateRedis
    backend: RedisClient
    record: ExecutionRecord
    stack: ExitStack
    audit: JobAudit = field(default_factory=JobAudit)
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
            self.audit.unconfirmed.update(job.id for job in left)
            try:
                outcomes = [handle.outcome for handle in self.orchestrator.publish_batch(QUEUE, left)]
            except BackendUnavailable:  # nothing was sent
                continue
            unknown = {outcome.id for outcome in outcomes if outcome.status is PublishStatus.UNKNOWN}
            rejected = [outcome for outcome in outcomes if outcome.status is PublishStatus.REJECTED]
            assert not rejected, rejected[0].error
            confirmed = {outcome.id for outcome in outcomes} - unknown
            self.audit.confirmed |= confirmed
            self.audit.unconfirmed -= confirmed
            left = [job for job in left if job.id in unknown]
            self.asked_again += bool(left)

    def start_worker(self, **options: float) -> WorkerProcess:
        """Start a worker process, and wait until it works."""
        before = len(self.record)
        worker = WorkerProcess(self.server.url, self.record, **options)
        self.stack.callback(worker.kill)
        eventually(lambda: worker.has_ended or len(self.record) > before, "a worker works")
        assert not worker.has_ended, worker.end()
        return worker

    def worker(self, orchestrator: Orchestrator | None = None, **options: Any) -> Squarer:
        """A worker on a thread, for ``with``."""
        worker = Squarer(self.record)
        worker.connect(orchestrator or self.orchestrator, **options)
        return worker

    def expect_drained(self) -> None:
        empty = QueueCounts(0, 0, 0, 0)
        eventually(lambda: self.backend.counts(QUEUE) == empty, "every job is done")

    def expect_waiting(self, workers: int) -> None:
        with self.server.admin() as admin:
            blocked = lambda: admin.info("clients")["blocked_clients"]  # noqa: E731
            eventually(lambda: blocked() == workers, f"{workers} wait")

    def check(self) -> Totals:
        return self.audit.check(self.backend, QUEUE, self.record)


@pytest.fixture
def experiment_on(tmp_path: Path) -> Iterator[Callable[..., Experiment]]:
    with ExitStack() as stack:

        def start(server: PrivateRedis, backend: RedisClient | None = None, **options: Any) -> Experiment:
            client = stack.enter_context(backend or server.client(**options))
            return Experiment(server, client, ExecutionRecord(tmp_path / "record"), stack)

        yield start


ExperimentOn = Callable[..., Experiment]


# -- workers that die or sleep --------------------------------------------------------------------


@pytest.mark.long
def test_a_worker_that_is_killed_while_it_waits_takes_no_job_along(
    private_redis: StartRedis, experiment_on: ExperimentOn
) -> None:
    """What is published right after goes to another worker, which nothing else would wake (RCV-2, LSE-1)."""
    experiment = experiment_on(private_redis(), sweep_s=FOR_EVER_S)
    with experiment.worker(lease_s=FOR_EVER_S, poll_timeout_s=FOR_EVER_S):
        for _ in range(3):
            doomed = WorkerProcess(experiment.server.url, experiment.record, lease_s=FOR_EVER_S)
            experiment.stack.callback(doomed.kill)
            experiment.expect_waiting(2)
            experiment.publish(experiment.jobs(20))
            experiment.expect_drained()
            experiment.expect_waiting(2)
            doomed.kill()
            experiment.publish(experiment.jobs(1))
            experiment.expect_drained()


# -- a broker that dies ---------------------------------------------------------------------------


def test_a_broker_that_kept_nothing_is_given_its_queues_again(
    private_redis: StartRedis, experiment_on: ExperimentOn
) -> None:
    server = private_redis()
    experiment = experiment_on(server)

    with experiment.worker():
        experiment.publish(experiment.jobs(5))
        experiment.expect_drained()
        server.kill()
        server.start()
        jobs = experiment.jobs(5)
        experiment.publish(jobs)
        eventually(lambda: len(experiment.record) == 10, "the worker goes on")
        experiment.expect_drained()


def test_an_outage_is_told_once_and_not_once_for_every_try(
    private_redis: StartRedis, experiment_on: ExperimentOn, caplog: pytest.LogCaptureFixture
) -> None:
    server = private_redis(appendonly="yes")
    experiment = experiment_on(server, retry_timeout_s=LIMIT_S)
    experiment.backend._redis.retry_timeout_s = 0.5  # of an outage; for an answer it waits for long
    worker, tries = experiment.worker(), Counter[str]()
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
        eventually(lambda: tries["begun"], "the worker works")
        server.kill()
        eventually(lambda: tries["failed"] >= 4, "it tries again and again")
        server.start()
        experiment.publish(experiment.jobs(1))
        experiment.expect_drained()

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


@pytest.mark.long
@pytest.mark.parametrize("how", [kill_clients, flush_scripts])
@pytest.mark.parametrize("retry_timeout_s", [LIMIT_S, 0.01])
def test_cut_connections_and_flushed_scripts_lose_nothing_and_repeat_nothing(
    private_redis: StartRedis,
    experiment_on: ExperimentOn,
    how: Callable[[Redis], None],
    retry_timeout_s: float,
) -> None:
    server = private_redis()
    experiment = experiment_on(server, retry_timeout_s=LIMIT_S)
    jobs = experiment.jobs(4000)

    with server.client(retry_timeout_s=LIMIT_S) as publisher:
        worker = experiment.worker()
        experiment.orchestrator = Orchestrator(publisher)
        experiment.orchestrator.register(SCHEMA)
        publisher._redis.retry_timeout_s = retry_timeout_s  # with little, it answers UNKNOWN at times
        with worker, disturbing(server, how) as disturb:
            for start in range(0, 4000, 20):
                disturb()
                experiment.publish(jobs[start : start + 20])
            experiment.expect_drained()
            stats = worker.stats

    totals = experiment.check()
    print(f"{totals}, {stats}, {experiment.asked_again} publishes answered UNKNOWN")
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


@contextmanager
def denied(admin: Redis, command: str) -> Iterator[None]:
    """Deny all users without a name a command."""
    admin.execute_command("ACL", "SETUSER", "default", f"-{command}")
    yield
    admin.execute_command("ACL", "SETUSER", "default", f"+{command}")


@contextmanager
def damaged(admin: Redis, key: str) -> Iterator[None]:
    """Put a key of another type in place of this one."""
    admin.rename(key, "aside")
    admin.set(key, "not ours")
    yield
    admin.rename("aside", key)


REFUSING: dict[str, tuple[Callable[[Redis, str], AbstractContextManager[None]], type[Exception]]] = {
    "no script may run": (lambda admin, _: denied(admin, "evalsha"), AccessDenied),
    "a script is denied a command": (lambda admin, _: denied(admin, "time"), AccessDenied),
    "a key has another type": (damaged, QueueDamaged),
}


@pytest.mark.parametrize("then", [(), (Next("jobs", Message("next", b"{}")),)], ids=["alone", "chained"])
@pytest.mark.parametrize("refusing", REFUSING)
def test_a_refusal_loses_no_receipt(private_redis: StartRedis, refusing: str, then: tuple[Next, ...]) -> None:
    """Once the server takes the settlements, they count, and no job runs again (SET-1)."""
    refuse, error = REFUSING[refusing]
    server = private_redis()
    with server.client() as backend, server.admin() as admin:
        backend.declare(Queue("jobs"))
        backend.publish("jobs", [Message(f"job{number}", b"{}") for number in range(3)])
        consumer = backend.open_consumer("jobs")
        first, second, third = (delivery.receipt for delivery in consumer.receive(3, LIMIT_S))
        with refuse(admin, QueueKeys("default", "jobs").run), pytest.raises(error):
            consumer.settle([Ack(first, then=then), Release(second)])

        assert SettleOutcome.LOST not in consumer.extend([first, second, third])
        again = consumer.settle([Ack(first, then=then), Release(second), Ack(third)], take=1)
        assert set(again.outcomes) <= {SettleOutcome.OK, SettleOutcome.ALREADY}
        left = [*again.deliveries, *consumer.receive(3, 0.0)]
        assert [(each.id, each.attempt, each.crashes) for each in left] == [
            ("job1", 1, 0),
            *[("next", 1, 0) for _ in then],
        ]


def test_a_refusal_after_a_lost_answer_loses_no_receipt(
    private_redis: StartRedis, monkeypatch: pytest.MonkeyPatch
) -> None:
    def cut_off(*_words: Any) -> list[Any]:
        raise ConnectionBroke("the request was lost")

    server = private_redis()
    with server.client(retry_timeout_s=0.01) as backend, server.admin() as admin:
        backend.declare(Queue("jobs"))
        backend.publish("jobs", [Message("job", b"{}")])
        consumer = backend.open_consumer("jobs")
        (delivery,) = consumer.receive(1, LIMIT_S)
        with monkeypatch.context() as patch:
            patch.setattr(backend._redis._commands, "execute", cut_off)
            with pytest.raises(BackendUnavailable):
                consumer.settle([Ack(delivery.receipt)])
        with damaged(admin, QueueKeys("default", "jobs").run), pytest.raises(QueueDamaged):
            consumer.settle([Ack(delivery.receipt)])
        assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]


def test_a_user_who_may_wait_no_longer_charges_no_job_with_a_crash(private_redis: StartRedis) -> None:
    """The script that is sent along with the wait takes jobs all the same."""
    server = private_redis()
    with server.client() as backend, server.admin() as admin:
        backend.declare(Queue("jobs"))
        consumer = backend.open_consumer("jobs")
        assert consumer.receive(1, 0.0) == []
        backend.publish("jobs", [Message("job", b"{}")])
        with denied(admin, "xread"), pytest.raises(AccessDenied):
            consumer.receive(1, FOR_EVER_S)
        (delivery,) = consumer.receive(1, LIMIT_S)
        assert (delivery.id, delivery.attempt, delivery.crashes) == ("job", 1, 0)


def test_a_record_that_finds_no_room_is_an_outage(private_redis: StartRedis) -> None:
    server = private_redis()
    with server.client() as backend, server.admin() as admin:
        admin.config_set("maxmemory", 1)
        with pytest.raises(BackendUnavailable, match="memory"):
            backend.coordination.put("key", b"value")
        assert backend.coordination.get(["key"]) == {}
        admin.config_set("maxmemory", 0)
        assert backend.coordination.put("key", b"value")


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


# -- what an idle worker costs --------------------------------------------------------------------


@pytest.mark.long
def test_an_idle_worker_sends_a_handful_of_commands_a_minute_and_wakes_at_once(
    private_redis: StartRedis, experiment_on: ExperimentOn
) -> None:
    experiment = experiment_on(private_redis())
    with experiment.server.admin() as admin, experiment.worker():
        experiment.publish(experiment.jobs(1))
        experiment.expect_drained()
        experiment.expect_waiting(1)
        began, before = time.monotonic(), sent_by_clients(admin)
        time.sleep(10.5)
        sent = sent_by_clients(admin) - before
        window_s = time.monotonic() - began  # longer where the machine is busy

    print(f"{sent} commands in {window_s:.1f} s")
    assert sent * 60 / window_s <= 30

    client = experiment.stack.enter_context(experiment.server.client(sweep_s=FOR_EVER_S))
    with experiment.worker(Orchestrator(client), poll_timeout_s=FOR_EVER_S):
        for _ in range(20):  # and nothing but the publish can wake it
            experiment.expect_waiting(1)
            experiment.publish(experiment.jobs(1))
            experiment.expect_drained()


# -- a server that another takes the place of -----------------------------------------------------


def role(server: PrivateRedis) -> str:
    with suppress(RedisError), server.admin() as admin:
        return str(admin.info("replication")["role"])
    return "none"


@pytest.mark.long
def test_workers_and_publishers_follow_a_failover(
    private_redis: StartRedis, experiment_on: ExperimentOn
) -> None:
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
    eventually(is_followed, "the replica follows")
    eventually(tells_of_it, "the first server tells of it")
    sentinel = private_redis(
        sentinel=True, config=f"sentinel monitor jobs 127.0.0.1 {first.address.port} 1\n"
    )
    host, port = sentinel.address.host, sentinel.address.port
    experiment = experiment_on(first, backend=RedisClient.from_url(f"redis+sentinel://{host}:{port}/jobs/0"))

    with (
        sentinel.admin() as admin,
        RedisClient(sentinels=[(host, port)], sentinel_service="jobs") as workers,
        experiment.worker(orchestrator=Orchestrator(workers)) as worker,
    ):
        experiment.publish(experiment.jobs(50))
        experiment.expect_drained()
        eventually(hands_over, "the Sentinel has a successor")
        eventually(lambda: (role(first), role(second)) == ("slave", "master"), "it takes over")
        eventually(names_the_second, "the Sentinel names it")
        experiment.publish(experiment.jobs(50))
        experiment.expect_drained()
        eventually(lambda: worker.stats.done == 100, "the worker has read that all are settled")

    assert experiment.check().done == 100


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


@pytest.mark.long
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
        timeout=LIMIT_S,
    )

    assert (done.stdout, done.stderr) == ("6 6\n", "")
