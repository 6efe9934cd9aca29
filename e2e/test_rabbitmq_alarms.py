"""RabbitMQ takes no messages, by an alarm or a full queue: who must write one waits, and nobody else."""

from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest

from background import Background
from brokers.fixtures import StartRabbitMQ
from brokers.rabbitmq_server import PrivateRabbitMQ, retry_timeout
from conditions import LIMIT_S, eventually
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator, RetryPolicy
from mindtrace.jobs.adapters.rabbitmq import RabbitMQClient
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import (
    Ack,
    ConsumerBackend,
    Dead,
    Delivery,
    Message,
    Next,
    Release,
    Retry,
    Settlement,
    SettleOutcome,
)

pytestmark = pytest.mark.begins_first  # each starts a RabbitMQ of its own, and waits for alarms

OK, DEFERRED = SettleOutcome.OK, SettleOutcome.DEFERRED
ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "absolute", "1MB"), ("set_vm_memory_high_watermark", "0.6")),
    "disk": (("set_disk_free_limit", "1000000GB"), ("set_disk_free_limit", "1MB")),
}


@contextmanager
def alarm(server: PrivateRabbitMQ, of: str = "memory") -> Iterator[None]:
    raise_it, end_it = ALARMS[of]
    server.control(*raise_it)
    eventually(lambda: of in server.control("eval", "rabbit_alarm:get_alarms()."), "an alarm")
    yield
    server.control(*end_it)
    eventually(lambda: of not in server.control("eval", "rabbit_alarm:get_alarms()."), "no alarm")


class Numbered(JobInput):
    number: int


POLICY = RetryPolicy(max_attempts=2, base_delay_s=0.3, max_delay_s=0.3, max_crashes=2)
SCHEMA = JobSchema("numbers", Numbered, retry=POLICY)


class Fails(Consumer):
    """Fails with each tenth job."""

    schema = SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[int] = []

    def run(self, job: Job[Numbered]) -> None:
        self.ran.append(job.payload.number)
        if job.payload.number % 10 == 0:
            raise ValueError("no")


@pytest.mark.long
@pytest.mark.parametrize(
    ("of", "prefetch", "concurrency"), [("memory", 1, 1), ("memory", 20, 1), ("disk", 8, 8)]
)
def test_jobs_that_fail_under_an_alarm_wait_and_the_others_run(
    private_rabbitmq: StartRabbitMQ, of: str, prefetch: int, concurrency: int
) -> None:
    """The failed ones are held, so no crash is counted; each is a dead letter once (SET-3, RTY-1, RTY-3)."""
    server = private_rabbitmq()
    with Orchestrator(server.client()) as orchestrator, Background() as thread:
        orchestrator.register(SCHEMA)
        orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(60)])
        worker = Fails()
        worker.connect(orchestrator, prefetch=prefetch, concurrency=concurrency)
        with alarm(server, of):
            consumed = thread.submit(worker.consume)
            eventually(lambda: worker.stats.done == 54, "the others run")
            assert (worker.stats.retried, worker.stats.dead, worker.stats.lost) == (0, 0, 0)
            assert Counter(worker.ran).most_common(1)[0][1] == 1
        eventually(lambda: worker.stats.dead == 6, "the failed ones are dead")
        worker.stop()
        consumed.result(LIMIT_S)

        letters = orchestrator.dead_letters(SCHEMA)
        assert [(len(letter.attempts), letter.crashes) for letter in letters] == [(2, 0)] * 6
        assert (worker.stats.retried, worker.stats.dead, worker.stats.lost) == (6, 6, 0)
        assert orchestrator.counts(SCHEMA).waiting == 0
        worker.close()


# -- what the backend answers -----------------------------------------------------------------------


@pytest.fixture
def server(private_rabbitmq: StartRabbitMQ) -> PrivateRabbitMQ:
    return private_rabbitmq()


@pytest.fixture
def client(server: PrivateRabbitMQ) -> Iterator[RabbitMQClient]:
    with server.client() as client:
        client.declare(Queue("jobs"))
        client.declare(Queue("later"))
        yield client


def publish(client: RabbitMQClient, *ids: str) -> None:
    client.publish("jobs", [Message(id_, b"{}") for id_ in ids])


def take(consumer: ConsumerBackend, count: int = 1) -> list[Delivery]:
    came: list[Delivery] = []
    while len(came) < count:
        came += consumer.receive(count - len(came), LIMIT_S)
    return came


def settled(consumer: ConsumerBackend, settlement: Settlement) -> SettleOutcome:
    """Send a settlement again until it isn't deferred."""
    outcomes = [DEFERRED]

    def is_settled() -> bool:
        outcomes[:] = consumer.settle([settlement]).outcomes
        return outcomes != [DEFERRED]

    eventually(is_settled, "it is settled")
    return outcomes[0]


@pytest.mark.long
@pytest.mark.parametrize(
    "settle",
    [
        lambda receipt: Retry(receipt, 0.0, "no"),
        lambda receipt: Retry(receipt, 0.3, "no"),
        lambda receipt: Release(receipt),
        lambda receipt: Ack(receipt, then=(Next("later", Message("next", b"{}")),)),
        lambda receipt: Dead(receipt, "rejected", "no", (Next("later", Message("next", b"{}")),)),
    ],
    ids=["retry", "retry later", "release", "next job", "next job of a death"],
)
def test_a_settlement_that_writes_a_message_is_deferred_under_an_alarm_and_counts_once(
    server: PrivateRabbitMQ, client: RabbitMQClient, settle: Callable[[str], Settlement]
) -> None:
    """Whether the broker told of the alarm before or not; acks count meanwhile (SET-1, LSE-1)."""
    publish(client, "a", "b", "c")
    consumer = client.open_consumer("jobs")
    first, second, third = take(consumer, 3)
    chained = isinstance(settle(""), Ack | Dead)
    with alarm(server), retry_timeout(client, 2.0):  # for so long a next job is waited for
        for delivery in (first, second):  # what the first writes is under way when the broker tells
            assert consumer.settle([settle(delivery.receipt)]).outcomes == [DEFERRED]
        assert consumer.settle([Ack(third.receipt), settle(first.receipt)]).outcomes == [OK, DEFERRED]
        assert consumer.extend([first.receipt, second.receipt]) == [OK, OK]
    assert [settled(consumer, settle(each.receipt)) for each in (first, second)] == [OK, OK]

    if chained:
        assert client.counts("jobs").waiting == 0
        with client.open_consumer("later") as later:
            assert {delivery.id for delivery in take(later)} == {"next"}
        return
    again = take(consumer, 2)
    assert {(delivery.id, delivery.crashes) for delivery in again} == {("a", 0), ("b", 0)}
    assert consumer.settle([Ack(delivery.receipt) for delivery in again]).outcomes == [OK, OK]
    assert consumer.receive(1, 1.0) == []


@pytest.mark.long
def test_a_job_is_taken_again_only_if_its_release_never_arrives(
    server: PrivateRabbitMQ, client: RabbitMQClient
) -> None:
    """Else it ran here, and once more after the alarm (SET-1)."""
    publish(client, "a", "b")
    consumer = client.open_consumer("jobs")
    first, second = take(consumer, 2)
    with alarm(server):
        for delivery in (first, second):  # as above: the first release is under way
            assert consumer.settle([Release(delivery.receipt)]).outcomes == [DEFERRED]
        assert consumer.take_again([first, second]) == [second]
        assert consumer.held_back == 1
        assert consumer.settle([Ack(second.receipt)]).outcomes == [OK]
        assert consumer.receive(1, 0.0) == []
    (again,) = take(consumer)
    assert (again.id, again.attempt, again.crashes) == ("a", 1, 0)
    assert consumer.settle([Ack(again.receipt)]).outcomes == [OK]
    assert consumer.receive(1, 1.0) == []
    assert consumer.held_back == 0


class Stops(Consumer):
    """Stops itself with each job."""

    schema = SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[int] = []

    def run(self, job: Job[Numbered]) -> None:
        self.ran.append(job.payload.number)
        self.stop()


@pytest.mark.long
def test_jobs_that_a_stop_gives_back_as_an_alarm_begins_run_once(private_rabbitmq: StartRabbitMQ) -> None:
    server = private_rabbitmq()
    with Orchestrator(server.client()) as orchestrator, Background() as thread, Stops() as worker:
        orchestrator.register(SCHEMA)
        orchestrator.publish_batch(SCHEMA, [Numbered(number=number) for number in range(10)])
        worker.connect(orchestrator, prefetch=10)
        with alarm(server):
            thread.submit(worker.consume).result(LIMIT_S)
            consumed = thread.submit(worker.consume)  # the others are under way to the queue
        consumed.result(LIMIT_S)
        while worker.stats.done < 10:
            thread.submit(worker.consume).result(LIMIT_S)

        assert sorted(worker.ran) == list(range(10))
        assert worker.stats.lost == 0
        assert orchestrator.counts(SCHEMA).waiting == 0


@pytest.mark.long
def test_a_dead_letter_waits_until_there_is_room_for_it(
    server: PrivateRabbitMQ, client: RabbitMQClient
) -> None:
    """A policy has the queue of dead letters refuse it (SET-3). Its next job is published once (THEN-4)."""
    publish(client, "a", "b", "c", "d")
    consumer = client.open_consumer("jobs")
    server.control(
        "set_policy", "--apply-to", "queues", "full", "^mtj:default/jobs:dead$", '{"max-length": 1}'
    )
    deferred: list[Settlement] = []
    for delivery in take(consumer, 4):
        then = (Next("later", Message(f"after-{delivery.id}", b"{}")),)
        dead = Dead(delivery.receipt, "rejected", "no", then)
        deferred += [dead] if consumer.settle([dead]).outcomes == [DEFERRED] else []
    assert deferred, "the queue is full"

    server.control("clear_policy", "full")
    assert [settled(consumer, each) for each in deferred] == [OK] * len(deferred)
    letters = client.dead_letters("jobs")
    assert sorted((letter.id, letter.crashes) for letter in letters) == [(id_, 0) for id_ in "abcd"]
    assert client.counts("later").ready == 4
    with client.open_consumer("later") as later:
        assert sorted(delivery.id for delivery in take(later, 4)) == [f"after-{id_}" for id_ in "abcd"]
    assert consumer.receive(1, 1.0) == []


@pytest.mark.long
def test_a_malformed_job_that_is_received_by_itself_under_an_alarm_is_dead_once(
    server: PrivateRabbitMQ,
) -> None:
    """``receive_message`` goes on to the others, and sends its death again with a later call (RCV-4)."""
    with Orchestrator(server.client()) as orchestrator:
        orchestrator.register(SCHEMA)
        orchestrator.backend.publish("numbers", [Message("bad-1", b"{"), Message("bad-2", b"{")])
        orchestrator.publish(SCHEMA, Numbered(number=1))
        with alarm(server):
            job = orchestrator.receive_message(SCHEMA)
            assert job is not None
            assert job.payload.number == 1
            assert orchestrator.receive_message(SCHEMA) is None

        def bury() -> bool:
            assert orchestrator.receive_message(SCHEMA) is None
            return orchestrator.counts(SCHEMA).dead == 2

        eventually(bury, "both are dead")
    with Orchestrator(server.client()) as orchestrator:
        orchestrator.register(SCHEMA)
        assert orchestrator.receive_message(SCHEMA) is None
        letters = orchestrator.dead_letters(SCHEMA)
        assert sorted((each.id, each.reason, each.crashes) for each in letters) == [
            ("bad-1", "malformed", 0),
            ("bad-2", "malformed", 0),
        ]
