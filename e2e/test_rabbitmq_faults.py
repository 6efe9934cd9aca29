"""What RabbitMQ, its network and the workers can suffer, and how the account of all jobs stands afterwards.

What several backends can suffer alike is tried in ``faults/``; here is what is RabbitMQ's own.
"""

import logging
import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any

import pytest

from background import Background
from brokers.fixtures import StartRabbitMQ
from brokers.private_server import free_port
from brokers.proxy import Disruption, Proxy
from brokers.rabbitmq_server import PrivateRabbitMQ, retry_timeout
from conditions import LIMIT_S, eventually
from job_audit import ExecutionRecord, Fault, JobAudit
from mindtrace.jobs import (
    Consumer,
    Job,
    JobInput,
    JobSchema,
    Orchestrator,
    PublishStatus,
    RabbitMQClient,
    RetryPolicy,
    job_from_schema,
)
from mindtrace.jobs.adapters.rabbitmq.topology import Names, work_arguments
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import AccessDenied, BackendUnavailable, QueueConflict, QueueNotFound
from mindtrace.jobs.ports import Ack, Dead, Delivery, Message, Release, Retry, SettleOutcome

from .rabbitmq_jobs import receive

QUEUE = "squares"


class Numbered(JobInput):
    number: int
    note: str = ""


SCHEMA = JobSchema(QUEUE, Numbered, retry=RetryPolicy(max_crashes=20))


class Experiment:
    """One node, one queue, the producer's side of it, and what ran and was finished."""

    def __init__(self, server: PrivateRabbitMQ, folder: Path, **options: Any) -> None:
        self.server = server
        self.backend = server.client(**{"retry_timeout_s": LIMIT_S} | options)
        self.orchestrator = Orchestrator(self.backend)
        self.orchestrator.register(SCHEMA)
        self.started = ExecutionRecord(folder / "started")
        self.finished = ExecutionRecord(folder / "finished")
        self.audit = JobAudit()

    def publish(self, count: int) -> None:
        """Publish jobs, and note which were confirmed and which were left open."""
        jobs = [job_from_schema(SCHEMA, Numbered(number=number)) for number in range(count)]
        for handle in self.orchestrator.publish_batch(QUEUE, jobs):
            if handle.outcome.status is PublishStatus.ACCEPTED:
                self.audit.confirmed.add(handle.id)
            else:
                self.audit.unconfirmed.add(handle.id)

    def expect_finished(self) -> None:
        """Wait until every confirmed job was finished and nothing is left, and make the audit."""
        confirmed = self.audit.confirmed
        eventually(
            lambda: confirmed <= {run.job_id for run in self.finished.runs()},
            "every confirmed job is done",
        )
        eventually(lambda: self.backend.counts(QUEUE).waiting == 0, "the queue is empty")
        self.audit.check(self.backend, QUEUE, self.started, self.finished)

    def close(self) -> None:
        self.backend.close()


ExperimentOn = Callable[..., Experiment]


@pytest.fixture
def server(rabbitmq_node: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    """The node that is shared, without a queue that another test left."""
    yield rabbitmq_node
    with rabbitmq_node.client() as client:
        for name in (QUEUE, "my_jobs"):
            with suppress(QueueNotFound):
                client.delete(name)


@pytest.fixture
def experiment_on(tmp_path: Path) -> Iterator[ExperimentOn]:
    experiments: list[Experiment] = []

    def start(server: PrivateRabbitMQ, **options: Any) -> Experiment:
        experiments.append(Experiment(server, tmp_path, **options))
        return experiments[-1]

    yield start
    for experiment in experiments:
        experiment.close()


class Finisher(Consumer):
    """A worker on a thread of this process, that writes down what it did."""

    def __init__(
        self, experiment: Experiment, work: Callable[[], object] = lambda: time.sleep(0.001)
    ) -> None:
        super().__init__(QUEUE)
        self._experiment = experiment
        self._descriptors = (experiment.started.writer(), experiment.finished.writer())
        self._work = work

    def run(self, job: Job[Numbered]) -> None:
        started, finished = self._descriptors
        ExecutionRecord.write(started, job.id)
        self._work()
        ExecutionRecord.write(finished, job.id)

    def close(self) -> None:
        super().close()
        for descriptor in self._descriptors:
            os.close(descriptor)


@contextmanager
def consuming(
    experiment: Experiment, work: Callable[[], object] = lambda: time.sleep(0.001), **options: Any
) -> Iterator[Finisher]:
    worker = Finisher(experiment, work)
    worker.connect(experiment.orchestrator, **options)
    errors: list[BaseException] = []

    def consume() -> None:
        try:
            worker.consume()
        except BaseException as error:
            errors.append(error)

    thread = threading.Thread(target=consume, daemon=True)
    thread.start()
    try:
        yield worker
    finally:
        worker.stop()
        thread.join(LIMIT_S)
        alive = thread.is_alive()
        worker.close()
    assert not alive, "the consumer doesn't stop"
    assert not errors, repr(errors[0])


# -- workers that die, sleep or are busy ----------------------------------------------------------


@pytest.mark.long
def test_a_long_job_starves_no_heartbeat(server: PrivateRabbitMQ, experiment_on: ExperimentOn) -> None:
    """A handler that computes for three times the heartbeat keeps its connection, and its job (LSE-3)."""
    experiment = experiment_on(server, heartbeat_s=4)
    experiment.publish(1)

    def compute() -> None:
        until = time.monotonic() + 12.0
        while time.monotonic() < until:
            sum(range(10_000))

    with consuming(experiment, compute) as worker:
        experiment.expect_finished()
        eventually(lambda: worker.stats.done == 1, "it is settled")
        assert worker.stats.lost == 0


# -- a broker that goes away ----------------------------------------------------------------------


@contextmanager
def producing(experiment: Experiment) -> Iterator[None]:
    """Publish small batches all the time."""
    over, errors = threading.Event(), list[BaseException]()

    def produce() -> None:
        while not over.wait(0.005):
            try:
                experiment.publish(5)
            except BackendUnavailable:  # nothing of it was sent
                pass
            except BaseException as error:
                errors.append(error)
                return

    thread = threading.Thread(target=produce, daemon=True)
    thread.start()
    try:
        yield
    finally:
        over.set()
        thread.join(LIMIT_S)
    assert not errors, repr(errors[0])
    assert not thread.is_alive(), "the producer hangs"


@pytest.mark.long
def test_what_was_confirmed_survives_an_orderly_end_of_the_broker(
    private_rabbitmq: StartRabbitMQ, experiment_on: ExperimentOn
) -> None:
    """Which tells producers and consumers of it, in the middle of what they do."""
    server = private_rabbitmq()
    experiment = experiment_on(server)
    with consuming(experiment, prefetch=5) as worker:
        with producing(experiment):
            eventually(lambda: len(experiment.finished) > 100, "jobs run")
            began = len(experiment.started)
            with retry_timeout(experiment.backend, 1.0):
                server.stop()
                unsent = len(experiment.audit.unconfirmed)
                eventually(lambda: len(experiment.audit.unconfirmed) > unsent + 10, "several calls give up")
            server.start()
            hit = frozenset([os.getpid()])
            experiment.audit.faults.append(Fault(hit, began, len(experiment.started), in_flight=5))
            ran = len(experiment.finished)
            eventually(lambda: len(experiment.finished) > ran + 100, "jobs run again")
        experiment.expect_finished()
        audit = experiment.audit
        print(f"{len(audit.confirmed)} confirmed, {len(audit.unconfirmed)} open, {worker.stats}")


@pytest.mark.long
def test_an_outage_is_told_once(
    private_rabbitmq: StartRabbitMQ,
    experiment_on: ExperimentOn,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """An outage is one warning from the backend and one from the consumer, however often it is tried."""
    server = private_rabbitmq()
    experiment = experiment_on(server)
    failures = 0
    with consuming(experiment) as worker:
        receive = worker.consumer_backend.receive

        def counted(max_jobs: int, timeout_s: float) -> list[Delivery]:
            nonlocal failures
            try:
                return receive(max_jobs, timeout_s)
            except BackendUnavailable:
                failures += 1
                raise

        monkeypatch.setattr(worker.consumer_backend, "receive", counted)
        experiment.publish(1)
        experiment.expect_finished()
        eventually(lambda: worker.stats.done == 1, "it is settled")
        with caplog.at_level(logging.WARNING):
            with retry_timeout(experiment.backend, 1.0):
                server.stop()
                eventually(lambda: failures >= 2, "the consumer has tried again and again")
            server.start()
            experiment.publish(1)
            experiment.expect_finished()
    told = [record.getMessage() for record in caplog.records]
    assert sum("out of reach" in line for line in told) <= 2, told
    assert sum("backend unavailable" in line for line in told) <= 1, told


def test_graceful_restarts_leak_nothing(server: PrivateRabbitMQ, experiment_on: ExperimentOn) -> None:
    """However often clients and consumers come and go, no thread and no descriptor is left (CON-2)."""
    experiment = experiment_on(server)

    def use() -> None:
        with server.client(retry_timeout_s=LIMIT_S) as client, client.open_consumer(QUEUE) as consumer:
            client.publish(QUEUE, [Message("a", b"{}", delay_s=0.0)])
            (delivery,) = consumer.receive(1, LIMIT_S)
            assert consumer.settle([Ack(delivery.receipt)]).outcomes == [SettleOutcome.OK]

    def open_files() -> int:
        return len(list(Path("/proc/self/fd").iterdir()))

    use()
    threads, files = threading.active_count(), open_files()
    for _ in range(20):
        use()
    eventually(lambda: threading.active_count() <= threads, f"no more than {threads} threads")
    eventually(lambda: open_files() <= files, f"no more than {files} descriptors")
    assert experiment.backend.counts(QUEUE).ready == 0


# -- a broker that is full ------------------------------------------------------------------------


@pytest.mark.long
def test_a_full_broker_refuses_publishers_within_their_patience_and_still_serves_workers(
    private_rabbitmq: StartRabbitMQ, experiment_on: ExperimentOn
) -> None:
    """Under a memory alarm a publish fails, typed, in time; a consumer goes on; then all is as before."""
    server = private_rabbitmq()
    experiment = experiment_on(server)
    experiment.publish(50)
    server.control("set_vm_memory_high_watermark", "absolute", "1MB")
    eventually(lambda: "memory" in server.control("eval", "rabbit_alarm:get_alarms()."), "an alarm")

    for _ in range(2):  # the broker tells a connection once that has published; the second knows
        began = time.monotonic()
        with retry_timeout(experiment.backend, 3.0):
            outcomes = experiment.backend.publish(QUEUE, [Message("late", b"{}")])
        took_s = time.monotonic() - began
        assert outcomes[0].status in (PublishStatus.UNKNOWN, PublishStatus.REJECTED)
        assert isinstance(outcomes[0].error, BackendUnavailable)
        assert "takes no messages" in str(outcomes[0].error)
        assert took_s < LIMIT_S / 2
    with consuming(experiment, prefetch=5):
        experiment.expect_finished()

    server.control("set_vm_memory_high_watermark", "0.6")
    eventually(
        lambda: (
            experiment.backend.publish(QUEUE, [Message("after", b"{}")])[0].status is PublishStatus.ACCEPTED
        ),
        "publishing works again",
    )


# -- a network that lies --------------------------------------------------------------------------


def test_a_confirm_that_never_comes_is_unknown_within_patience(server: PrivateRabbitMQ) -> None:
    """A publish whose confirm is swallowed answers UNKNOWN, and what is published next arrives (PUB-4)."""
    with (
        Proxy(server.address.host, server.address.port) as proxy,
        RabbitMQClient("127.0.0.1", proxy.port, retry_timeout_s=LIMIT_S) as client,
    ):
        client.declare(Queue(QUEUE))
        client.publish(QUEUE, [Message("before", b"{}")])
        for how in (Disruption.SILENCE, Disruption.CUT):
            proxy.disrupt_next(b"swallowed", how)
            began = time.monotonic()
            with retry_timeout(client, 2.0):
                (outcome,) = client.publish(QUEUE, [Message(f"swallowed-{how.name}", b"{}")])
            assert outcome.status is PublishStatus.UNKNOWN
            assert isinstance(outcome.error, BackendUnavailable)
            assert time.monotonic() - began < LIMIT_S / 2
        (outcome,) = client.publish(QUEUE, [Message("after", b"{}")])
        assert outcome.status is PublishStatus.ACCEPTED
        eventually(lambda: client.counts(QUEUE).ready == 4, "all four have arrived")


def test_a_server_that_takes_connections_and_answers_nothing_is_told_from_one_that_is_away(
    server: PrivateRabbitMQ,
) -> None:
    """So is a node whose cluster has lost its majority (CON-1)."""
    with (
        Proxy(server.address.host, server.address.port) as proxy,
        RabbitMQClient("127.0.0.1", proxy.port, retry_timeout_s=LIMIT_S) as client,
    ):
        client.declare(Queue(QUEUE))
        proxy.disrupt_next(b"unheard", Disruption.SILENCE)
        with retry_timeout(client, 1.0), pytest.raises(BackendUnavailable, match="it takes connections"):
            client.counts("unheard")


# -- mistakes -------------------------------------------------------------------------------------


@pytest.mark.parametrize("retry_timeout_s", [0.5, 2.0])
def test_a_server_that_is_not_there_is_told_within_patience(retry_timeout_s: float) -> None:
    """The message names the address and how to start one."""
    began = time.monotonic()
    with (
        RabbitMQClient("127.0.0.1", free_port(), retry_timeout_s=retry_timeout_s) as client,
        pytest.raises(BackendUnavailable, match=r"127\.0\.0\.1:.*rabbitmq-server"),
    ):
        client.declare(Queue(QUEUE))
    assert time.monotonic() - began < retry_timeout_s + LIMIT_S / 2


def test_a_wrong_password_is_denied_at_once_and_shown_nowhere(server: PrivateRabbitMQ) -> None:
    """So is a virtual host that doesn't exist (SEC-3)."""
    wrong = {"password": {"password": "not-the-word"}, "vhost": {"vhost": "nowhere"}}
    for what, settings in wrong.items():
        began = time.monotonic()
        with (
            RabbitMQClient(
                "127.0.0.1", server.address.port, retry_timeout_s=2 * LIMIT_S, **settings
            ) as client,
            pytest.raises(AccessDenied) as denied,
        ):
            client.declare(Queue(QUEUE))
        assert time.monotonic() - began < LIMIT_S, what
        assert "not-the-word" not in str(denied.value)
        assert "nowhere" in str(denied.value) or what == "password"


def test_a_queue_that_exists_otherwise_is_a_conflict_that_names_the_difference(
    server: PrivateRabbitMQ,
) -> None:
    """Made by somebody else, or by another release, with other arguments (ADM-1)."""
    names = Names("default", QUEUE)
    changed = work_arguments(names, QueueKind.FIFO) | {"x-delivery-limit": 3}
    earlier = {"x-queue-type": "quorum", "x-delivery-limit": 1_000_000, "x-consumer-timeout": 31_622_400_000}
    with server.address.driver() as driver, server.client() as client:
        for arguments, difference in ((changed, "x-delivery-limit"), (earlier, "x-dead-letter-exchange")):
            driver.channel().queue_declare(names.work, durable=True, arguments=arguments)
            for ask in (lambda: client.declare(Queue(QUEUE)), lambda: client.open_consumer(QUEUE)):
                with pytest.raises(QueueConflict, match=f"exists with other settings.*{difference}"):
                    ask()
            client.delete(QUEUE)


@pytest.mark.parametrize("kind", [QueueKind.FIFO, QueueKind.PRIORITY])
def test_a_queue_of_another_kind_is_a_conflict_that_names_the_kinds(
    server: PrivateRabbitMQ, kind: QueueKind
) -> None:
    """And a client that hasn't declared it finds out of which kind it is (ADM-1)."""
    other = QueueKind.FIFO if kind is QueueKind.PRIORITY else QueueKind.PRIORITY
    with server.client() as client, server.client() as another:
        client.declare(Queue(QUEUE, kind))
        with pytest.raises(QueueConflict, match=f"already has the type {kind}, not {other}"):
            another.declare(Queue(QUEUE, other))
        with another.open_consumer(QUEUE) as consumer:
            assert consumer._settlement_messages.kind is kind


# -- the dead -------------------------------------------------------------------------------------


@pytest.mark.long
def test_a_history_is_cut_to_what_a_small_frame_has_room_for(private_rabbitmq: StartRabbitMQ) -> None:
    """No long error costs the connection, which would count as a crash of its worker (RTY-3, SET-3)."""
    attempts = 8
    policy = RetryPolicy(max_attempts=attempts, base_delay_s=0.01, max_delay_s=0.02, max_crashes=3)
    with private_rabbitmq(frame_max=4096).client() as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(JobSchema(QUEUE, Numbered, retry=policy))
        job_id = orchestrator.publish(QUEUE, Numbered(number=1))

        class Failing(Consumer):
            def run(self, job: Job[Numbered]) -> None:
                raise ValueError("ü" * 10_000 + f"end of {job.attempt}")

        with Failing(QUEUE) as consumer:
            consumer.connect(orchestrator)
            assert consumer.consume(num_messages=attempts) == attempts
            assert (consumer.stats.dead, consumer.stats.lost) == (1, 0)
        (letter,) = client.dead_letters(QUEUE)

    assert (letter.id, letter.reason, letter.crashes) == (job_id, "attempts exhausted", 0)
    assert [one.attempt for one in letter.history] == list(range(1, attempts))
    assert [one.error[-8:] for one in letter.history] == [f"end of {n}" for n in range(1, attempts)]
    assert letter.error.endswith(f"end of {attempts}")


@pytest.mark.long
def test_dead_letters_survive_many_listings_and_a_reader_that_dies(private_rabbitmq: StartRabbitMQ) -> None:
    """Listing 25 times, also from several threads, changes neither their number nor their order (DLQ-1)."""
    server = private_rabbitmq()
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE))
        ids = [f"job-{number}" for number in range(30)]
        client.publish(QUEUE, [Message(id_, b"{}") for id_ in ids])
        with client.open_consumer(QUEUE) as consumer:
            held = receive(consumer, 30)
            consumer.settle([Dead(delivery.receipt, "rejected", "no good") for delivery in held])
        for turn in range(25):
            limit = 1 + turn % 7
            assert [letter.id for letter in client.dead_letters(QUEUE, limit=limit, offset=3)] == ids[
                3 : 3 + limit
            ]
        server.control("close_all_connections", "a test")
        with server.client(retry_timeout_s=LIMIT_S) as other, Background() as threads:
            listings = threads.map(lambda backend: backend.dead_letters(QUEUE), (client, other, client))
            assert [[letter.id for letter in listing] for listing in listings] == [ids] * 3
        server.restart()
        assert [letter.id for letter in client.dead_letters(QUEUE)] == ids
        assert client.redrive(QUEUE, ids[:10]) == 10
        assert client.discard(QUEUE) == 20


# -- priorities -----------------------------------------------------------------------------------


def test_a_job_for_priorities_counts_each_crash_and_keeps_its_rank(server: PrivateRabbitMQ) -> None:
    """Where the broker doesn't count deliveries, the adapter does (RTY-3, ORD-4)."""
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE, QueueKind.PRIORITY))
        client.publish(
            QUEUE, [Message("poison", b"{}", 5), Message("same", b"{}", 5), Message("high", b"{}", 6)]
        )
        for crashes in range(3):
            with server.client(retry_timeout_s=LIMIT_S) as other:
                consumer = other.open_consumer(QUEUE)
                first, second = receive(consumer, 2)
                assert (first.id, second.id, second.crashes) == ("high", "poison", crashes)
                assert consumer.settle([Release(first.receipt)]).outcomes == [SettleOutcome.OK]
                consumer._channel.drop()
                eventually(lambda: client.counts(QUEUE).ready == 3, "the broker noticed")
        with client.open_consumer(QUEUE) as consumer:
            came = receive(consumer, 2) + receive(consumer, 1)
            assert [delivery.id for delivery in came] == ["high", "poison", "same"]
            consumer.settle([Retry(delivery.receipt, 0.0, "no") for delivery in came])


# -- the seed's example ---------------------------------------------------------------------------


class MyJobInput(JobInput):
    data: str
    param: int


class MyConsumer(Consumer):
    ran = 0

    def run(self, job: Job[MyJobInput]) -> None:
        type(self).ran += 1


def test_the_third_example_works(server: PrivateRabbitMQ) -> None:
    """With a user of one's own, and the default prefetch of one."""
    server.control("add_user", "user", "password")
    server.control("set_permissions", "user", ".*", ".*", ".*")
    schema = JobSchema(name="my_jobs", input=MyJobInput)
    rabbitmq_backend = RabbitMQClient(
        host="localhost",
        port=server.address.port,
        username="user",
        password="password",
        retry_timeout_s=LIMIT_S,
    )
    with rabbitmq_backend:
        orchestrator = Orchestrator(rabbitmq_backend)
        orchestrator.register(schema)
        for number in range(5):
            orchestrator.publish("my_jobs", MyJobInput(data="hello", param=number))

        consumer = MyConsumer("my_jobs")
        consumer.connect(orchestrator)
        assert type(consumer.consumer_backend).__name__ == "RabbitMQConsumerBackend"
        assert consumer.consumer_backend.prefetch == 1
        consumer.consume(num_messages=5)
        assert MyConsumer.ran == 5
        assert orchestrator.count_queue_messages("my_jobs") == 0


def test_a_client_that_was_forked_is_another_client(server: PrivateRabbitMQ) -> None:
    """A child publishes over connections of its own, and leaves its parent's alone."""
    with server.client(retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE))
        client.publish(QUEUE, [Message("parent", b"{}")])
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                client.publish(QUEUE, [Message("child", b"{}")])
                client.close()
                status = 0
            finally:
                os._exit(status)
        assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
        client.publish(QUEUE, [Message("parent again", b"{}")])
        assert client.counts(QUEUE).ready == 3
