"""Foreign clients of RabbitMQ write into our queues: no message of theirs stops a consumer or a listing."""

import time
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from pika import BasicProperties
from pika.exceptions import AMQPError

from brokers.foreign_messages import ODD_VALUES, RawProperties, any_value, mutated, with_header
from brokers.rabbitmq_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator
from mindtrace.jobs.adapters.rabbitmq.message import HEADER
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport import tables
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.ports import Dead, Release, Retry, SettleOutcome

from .rabbitmq_jobs import QUEUE, receive

STRANGE = 150


class Numbered(JobInput):
    number: int = 0


SCHEMA = JobSchema(QUEUE, Numbered)


class Runner(Consumer):
    """Notes which jobs it ran."""

    def __init__(self) -> None:
        super().__init__(QUEUE)
        self.ran: list[str] = []

    def run(self, job: Job[Numbered]) -> None:
        self.ran.append(job.id)


class SharedQueue:
    """One queue, a client of ours, and a foreign one."""

    def __init__(self, address: Address, kind: str) -> None:
        self.address = address
        self.client = address.client(f"t{time.monotonic_ns()}", retry_timeout_s=LIMIT_S)
        self.orchestrator = Orchestrator(self.client)
        self.orchestrator.register(SCHEMA, kind)
        self.names = Names(self.client._namespace, QUEUE)

    def put(self, part: str, written: bytes, body: bytes = b"?") -> bool:
        """Publish as a foreign client, and say whether the broker took it."""
        driver = self.address.driver()
        try:
            channel = driver.channel()
            channel.confirm_delivery()
            channel.basic_publish("", part, body, RawProperties(written))
        except AMQPError:  # it closed the connection instead
            return False
        finally:
            with suppress(AMQPError):
                driver.close()
        return True

    def run(self) -> Runner:
        """Run what is in the queue until it is empty, over one connection."""
        with Runner() as runner:
            runner.connect(self.orchestrator, poll_timeout_s=1.0)
            runner.consume_until_empty()
            assert runner.consumer_backend._channel.generation == 0, "its connection broke"
            assert runner.stats.lost == 0
        return runner

    def letters(self) -> dict[str, tuple[str, str, int]]:
        """The reason, the error and the crashes of each dead letter, by its id."""
        found = self.client.dead_letters(QUEUE, limit=1000)
        return {letter.id: (letter.reason, letter.error, letter.crashes) for letter in found}


@pytest.fixture(params=["fifo", "priority"])
def shared(rabbitmq_address: Address, request: pytest.FixtureRequest) -> Iterator[SharedQueue]:
    shared = SharedQueue(rabbitmq_address, request.param)
    try:
        yield shared
    finally:
        shared.client.delete(QUEUE)
        shared.client.close()


def body(number: int, id_: str) -> bytes:
    """A job as any client may write it."""
    return b'{"v":1,"id":"%b","schema":"squares","created_at":1.5,"payload":{"number":%d}}' % (
        id_.encode(),
        number,
    )


def test_headers_that_are_none_of_our_business_change_nothing(shared: SharedQueue) -> None:
    """A job with them runs, whatever is behind it as well; what isn't a job is malformed (RCV-4)."""
    ids = [f"odd-{number}" for number in range(len(ODD_VALUES))]
    for number, (id_, value) in enumerate(zip(ids, ODD_VALUES.values(), strict=True)):
        assert shared.put(shared.names.work, with_header(value, message_id=id_), body(number, id_))
        assert shared.put(shared.names.work, with_header(value, message_id=f"no-{id_}"))
    good = shared.orchestrator.publish(QUEUE, Numbered())

    assert set(shared.run().ran) == {*ids, good}
    letters = shared.letters()
    assert set(letters) == {f"no-{id_}" for id_ in ids}
    assert {(reason, crashes) for reason, _, crashes in letters.values()} == {("malformed", 0)}


def test_a_foreign_message_among_the_dead_letters_is_malformed_and_can_be_removed(
    shared: SharedQueue,
) -> None:
    """To redrive it makes it a job like any other, which is run if it can be."""
    ids = [f"odd-{number}" for number in range(len(ODD_VALUES))]
    for number, (id_, value) in enumerate(zip(ids, ODD_VALUES.values(), strict=True)):
        assert shared.put(shared.names.dead, with_header(value, message_id=id_), body(number, id_))
    eventually(lambda: shared.client.counts(QUEUE).dead == len(ids), "all are there")

    assert set(shared.letters()) == set(ids)
    assert {reason for reason, *_ in shared.letters().values()} == {"malformed"}
    assert shared.client.discard(QUEUE, ids[:3]) == 3
    assert shared.client.redrive(QUEUE) == len(ids) - 3
    assert set(shared.run().ran) == set(ids[3:])


def test_what_cannot_be_read_is_dead_without_a_run(
    shared: SharedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A type of a header that we don't know, say: the dead letter tells so, and its body is whole."""
    monkeypatch.delitem(tables._FIXED, b"D")
    written = with_header(ODD_VALUES["a decimal"], message_id="odd")
    assert shared.put(shared.names.work, written, body(1, "odd"))
    good = shared.orchestrator.publish(QUEUE, Numbered())
    assert shared.run().ran == [good]

    assert shared.put(shared.names.dead, with_header(ODD_VALUES["a decimal"], message_id="put"), b"whole")
    eventually(lambda: shared.client.counts(QUEUE).dead == 2, "both are there")
    why = "its AMQP properties can't be read: header 'h' has the unknown type b'D'"
    assert shared.letters() == {"odd": ("malformed", why, 0), "put": ("malformed", why, 0)}
    assert [letter.body for letter in shared.client.dead_letters(QUEUE)] == [body(1, "odd"), b"whole"]
    assert shared.client.redrive(QUEUE, ["odd"]) == 1
    assert shared.client.discard(QUEUE) == 1
    assert shared.run().ran == ["odd"], "its body is a job, and the new message has properties of ours"


def test_what_cannot_be_read_is_dead_even_if_it_is_given_back(
    shared: SharedQueue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that closes gives back what it was sent, but not what nobody can run."""
    monkeypatch.delitem(tables._FIXED, b"D")
    with shared.client.open_consumer(QUEUE) as consumer:
        jobs: Any = consumer._channel
        jobs.request(lambda channel, reply: jobs.set_credit(1, channel, reply), LIMIT_S)
        assert shared.put(shared.names.work, with_header(ODD_VALUES["a decimal"], message_id="odd"))
        assert jobs.loop.wait(lambda: jobs.arrivals, LIMIT_S)
    assert shared.letters()["odd"][0] == "malformed"
    assert shared.client.counts(QUEUE).ready == 0


def test_strange_properties_stop_neither_a_consumer_nor_a_listing(shared: SharedQueue) -> None:
    """Whatever of them the broker accepts is run, or is dead, and the jobs between them are run once."""
    random = Random(16)
    good, taken = [], 0
    for number in range(STRANGE):
        written = with_header(any_value(random), message_id="id", priority=3)
        if number % 3 == 0:
            written = mutated(random, written)
        part = shared.names.dead if number % 5 == 0 else shared.names.work
        taken += shared.put(part, written, body(number, "strange"))
        if number % 10 == 0:
            good.append(shared.orchestrator.publish(QUEUE, Numbered()))
    assert STRANGE // 2 < taken < STRANGE

    runner = shared.run()
    assert [id_ for id_ in runner.ran if id_ != "strange"] == good
    counts = shared.client.counts(QUEUE)
    assert counts.ready == 0
    listed = shared.client.dead_letters(QUEUE, limit=1000)
    assert len(listed) == counts.dead == taken + len(good) - len(runner.ran)
    assert {letter.reason for letter in listed} == {"malformed"}
    assert shared.client.discard(QUEUE) == len(listed)


@pytest.mark.parametrize("kind", [QueueKind.FIFO, QueueKind.PRIORITY])
def test_what_others_put_into_a_queue_is_delivered_and_can_be_settled(
    rabbitmq_address: Address, kind: QueueKind
) -> None:
    """Without an id, with any header and any priority; nothing of it stops a consumer (RCV-4)."""
    strange: list[BasicProperties] = [
        BasicProperties(),
        BasicProperties(message_id=b"\xff\xfe", priority=255),
        BasicProperties(message_id=b"\xff" * 255),
        BasicProperties(headers={HEADER: b"not JSON", "x-delivery-count": "many"}),
        BasicProperties(headers={HEADER: "[" * 50_000}),
        BasicProperties(headers={HEADER: b"[Infinity,1,1,[]]", "x-delivery-count": -3}),
        BasicProperties(headers={HEADER: {"a": [1, None, {"b": True}]}}),
        BasicProperties(headers={HEADER: b'[1,1,0,[],"r","e",1e300,77]'}),
        BasicProperties(headers={HEADER: b'[1,1,0,[],"r","e",999999999999999999,0]'}),
    ]
    namespace = f"t{time.monotonic_ns()}"
    names = Names(namespace, QUEUE)
    with (
        rabbitmq_address.driver() as driver,
        rabbitmq_address.client(namespace, retry_timeout_s=LIMIT_S) as client,
    ):
        client.declare(Queue(QUEUE, kind))
        channel = driver.channel()
        channel.confirm_delivery()
        for properties in strange:
            channel.basic_publish("", names.work, b"x", properties)
        with client.open_consumer(QUEUE) as consumer:
            came = receive(consumer, len(strange))
            assert all(type(one.id) is str and one.id and one.attempt == 1 for one in came)
            for settle in (lambda receipt: Retry(receipt, 0.0, "no" * 10**6), Release):
                assert set(consumer.settle([settle(one.receipt) for one in came]).outcomes) == {
                    SettleOutcome.OK
                }
                came = receive(consumer, len(strange))
            consumer.settle([Dead(one.receipt, "rejected", "e" * 10**6) for one in came])
        for properties in strange:
            channel.basic_publish("", names.dead, b"x", properties)
        assert len(client.dead_letters(QUEUE)) == 2 * len(strange)
        assert client.redrive(QUEUE) == 2 * len(strange)
        client.delete(QUEUE)
