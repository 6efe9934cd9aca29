"""Foreign clients of RabbitMQ write into our queues: no message of theirs stops a consumer or a listing."""

import time
from collections.abc import Iterator
from contextlib import suppress
from random import Random
from typing import Any

import pytest
from pika.exceptions import AMQPError

from brokers.rabbitmq_server import Address
from brokers.strangers import ODD, RawProperties, any_value, mutated, with_header
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport import tables

from .workers import eventually

QUEUE = "squares"
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


class Trial:
    """One queue, a client of ours, and a foreign one."""

    def __init__(self, address: Address, kind: str) -> None:
        self.address = address
        self.client = address.client(f"t{time.monotonic_ns()}")
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
def trial(rabbitmq_address: Address, request: pytest.FixtureRequest) -> Iterator[Trial]:
    trial = Trial(rabbitmq_address, request.param)
    try:
        yield trial
    finally:
        trial.client.delete(QUEUE)
        trial.client.close()


def body(number: int, id_: str) -> bytes:
    """A job as any client may write it."""
    return b'{"v":1,"id":"%b","schema":"squares","created_at":1.5,"payload":{"number":%d}}' % (
        id_.encode(),
        number,
    )


def test_headers_that_are_none_of_our_business_change_nothing(trial: Trial) -> None:
    """A job with them runs, whatever is behind it as well; what isn't a job is malformed (RCV-4)."""
    ids = [f"odd-{number}" for number in range(len(ODD))]
    for number, (id_, value) in enumerate(zip(ids, ODD.values(), strict=True)):
        assert trial.put(trial.names.work, with_header(value, message_id=id_), body(number, id_))
        assert trial.put(trial.names.work, with_header(value, message_id=f"no-{id_}"))
    good = trial.orchestrator.publish(QUEUE, Numbered())

    assert set(trial.run().ran) == {*ids, good}
    letters = trial.letters()
    assert set(letters) == {f"no-{id_}" for id_ in ids}
    assert {(reason, crashes) for reason, _, crashes in letters.values()} == {("malformed", 0)}


def test_a_foreign_message_among_the_dead_letters_is_malformed_and_can_be_removed(trial: Trial) -> None:
    """To redrive it makes it a job like any other, which is run if it can be."""
    ids = [f"odd-{number}" for number in range(len(ODD))]
    for number, (id_, value) in enumerate(zip(ids, ODD.values(), strict=True)):
        assert trial.put(trial.names.dead, with_header(value, message_id=id_), body(number, id_))
    eventually(lambda: trial.client.counts(QUEUE).dead == len(ids), 10, "all are there")

    assert set(trial.letters()) == set(ids)
    assert {reason for reason, *_ in trial.letters().values()} == {"malformed"}
    assert trial.client.discard(QUEUE, ids[:3]) == 3
    assert trial.client.redrive(QUEUE) == len(ids) - 3
    assert set(trial.run().ran) == set(ids[3:])


def test_what_cannot_be_read_is_dead_without_a_run(trial: Trial, monkeypatch: pytest.MonkeyPatch) -> None:
    """A type of a header that we don't know, say: the dead letter tells so, and its body is whole."""
    monkeypatch.delitem(tables._FIXED, b"D")
    written = with_header(ODD["a decimal"], message_id="odd")
    assert trial.put(trial.names.work, written, body(1, "odd"))
    good = trial.orchestrator.publish(QUEUE, Numbered())
    assert trial.run().ran == [good]

    assert trial.put(trial.names.dead, with_header(ODD["a decimal"], message_id="put"), b"whole")
    eventually(lambda: trial.client.counts(QUEUE).dead == 2, 10, "both are there")
    why = "its AMQP properties can't be read: header 'h' has the unknown type b'D'"
    assert trial.letters() == {"odd": ("malformed", why, 0), "put": ("malformed", why, 0)}
    assert [letter.body for letter in trial.client.dead_letters(QUEUE)] == [body(1, "odd"), b"whole"]
    assert trial.client.redrive(QUEUE, ["odd"]) == 1
    assert trial.client.discard(QUEUE) == 1
    assert trial.run().ran == ["odd"], "its body is a job, and the new message has properties of ours"


def test_what_cannot_be_read_is_dead_even_if_it_is_given_back(
    trial: Trial, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A consumer that closes gives back what it was sent, but not what nobody can run."""
    monkeypatch.delitem(tables._FIXED, b"D")
    with trial.client.open_consumer(QUEUE) as consumer:
        jobs: Any = consumer._channel
        jobs.request(lambda channel, reply: jobs.set_credit(1, channel, reply), 5.0)
        assert trial.put(trial.names.work, with_header(ODD["a decimal"], message_id="odd"))
        assert jobs.loop.wait(lambda: jobs.arrivals, 10)
    assert trial.letters()["odd"][0] == "malformed"
    assert trial.client.counts(QUEUE).ready == 0


def test_strange_properties_stop_neither_a_consumer_nor_a_listing(trial: Trial) -> None:
    """Whatever of them the broker accepts is run, or is dead, and the jobs between them are run once."""
    random = Random(16)
    good, taken = [], 0
    for number in range(STRANGE):
        written = with_header(any_value(random), message_id="id", priority=3)
        if number % 3 == 0:
            written = mutated(random, written)
        part = trial.names.dead if number % 5 == 0 else trial.names.work
        taken += trial.put(part, written, body(number, "strange"))
        if number % 10 == 0:
            good.append(trial.orchestrator.publish(QUEUE, Numbered()))
    assert STRANGE // 2 < taken < STRANGE

    runner = trial.run()
    assert [id_ for id_ in runner.ran if id_ != "strange"] == good
    counts = trial.client.counts(QUEUE)
    assert counts.ready == 0
    listed = trial.client.dead_letters(QUEUE, limit=1000)
    assert len(listed) == counts.dead == taken + len(good) - len(runner.ran)
    assert {letter.reason for letter in listed} == {"malformed"}
    assert trial.client.discard(QUEUE) == len(listed)
