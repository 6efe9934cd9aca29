"""Listings of dead letters in RabbitMQ: complete and in order, whatever other readers do."""

import threading
import time
from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from brokers.rabbitmq_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq import dead_letters
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport.publishing import Outgoing, SendState
from mindtrace.jobs.adapters.rabbitmq.transport.queue_requests import QueueState
from mindtrace.jobs.adapters.rabbitmq.transport.request import Action
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.domain.errors import BackendError, BackendUnavailable
from mindtrace.jobs.ports import Dead, Message

from .rabbitmq_jobs import QUEUE, cut, giving_up_locks, receive


@pytest.fixture
def client(rabbitmq_address: Address) -> Iterator[RabbitMQClient]:
    with rabbitmq_address.client(f"t{time.monotonic_ns()}", retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made
        made.delete(QUEUE)


def test_a_listing_waits_for_what_a_reader_that_died_still_has_in_hand(
    rabbitmq_address: Address, client: RabbitMQClient
) -> None:
    """The broker may let go of a reader's lock before it puts back its letters (DLQ-1)."""
    ids = [f"job-{number}" for number in range(5)]
    client.publish(QUEUE, [Message(id_, b"{}") for id_ in ids])
    with client.open_consumer(QUEUE) as consumer:
        consumer.settle([Dead(one.receipt, "rejected", "no") for one in receive(consumer, 5)])
    died = rabbitmq_address.driver()
    in_hand: list[int] = []
    died.channel().basic_consume(
        Names(client._namespace, QUEUE).dead, lambda _, method, *__: in_hand.append(method.delivery_tag)
    )
    # All came out of pika's buffer: what is left there when it closes, pika gives back before the others.
    eventually(lambda: died.process_data_events(0) or len(in_hand) == 5, "it has all of them")

    with (
        giving_up_locks(),
        pytest.raises(BackendUnavailable, match="somebody else is going through its dead letters"),
    ):
        client.discard(QUEUE)
    end = threading.Timer(0.5, died.close)
    end.start()
    listed = [letter.id for letter in client.dead_letters(QUEUE)]
    end.join()
    assert listed == ids


def test_a_reader_does_without_letters_that_expired_since_they_were_counted(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A listing ends with those that are left, and so does a redrive (DLQ-5)."""
    client.publish(QUEUE, [Message(f"job-{number}", b"{}") for number in range(3)])
    with client.open_consumer(QUEUE) as consumer:
        consumer.settle([Dead(one.receipt, "rejected", "no") for one in receive(consumer, 3)])
    letters = client._open().dead_letters
    look = letters._look

    def look_earlier(names: Names) -> QueueState:
        """Look before two of the letters expired."""
        state = look(names)
        return state._replace(ready=state.ready + 2)

    monkeypatch.setattr(letters, "_look", look_earlier)
    assert [letter.id for letter in client.dead_letters(QUEUE)] == ["job-0", "job-1", "job-2"]
    assert client.redrive(QUEUE) == 3
    assert client.counts(QUEUE).ready == 3


def test_dead_letters_are_read_over_the_connection_that_keeps_others_out(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It may break between: over another, two readers would take letters from each other (DLQ-1)."""
    client.publish(QUEUE, [Message("job", b"{}")])
    with client.open_consumer(QUEUE) as consumer:
        consumer.settle([Dead(one.receipt, "rejected", "no") for one in receive(consumer, 1)])
    request = dead_letters._ReaderConnection.request
    connections: list[object] = []

    def cutting(reader: dead_letters._ReaderConnection, action: Action, timeout_s: float) -> Any:
        answer = request(reader, action, timeout_s)
        connections.append(reader._driver)
        if len(connections) == 1:
            cut(reader)
        return answer

    monkeypatch.setattr(dead_letters._ReaderConnection, "request", cutting)
    assert [letter.id for letter in client.dead_letters(QUEUE)] == ["job"]
    keeps_out, reads = connections[-2:]
    assert keeps_out is reads


def test_many_dead_letters_are_listed_quickly_and_in_order(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """More than RabbitMQ sends at once by itself, and more than one subscription may have in hand (DLQ-1)."""
    count = 3000
    client.publish(QUEUE, [Message(f"job-{n}", b"x" * 2000) for n in range(count)])
    with client.open_consumer(QUEUE) as consumer:
        for _ in range(6):
            came = receive(consumer, 500)
            consumer.settle([Dead(one.receipt, "rejected", "no") for one in came])
    asked = 0
    ask = dead_letters._ReaderConnection.request

    def counted(*args: Any) -> Any:
        nonlocal asked
        asked += 1
        return ask(*args)

    monkeypatch.setattr(dead_letters._ReaderConnection, "request", counted)
    began = time.process_time()
    listed = [letter.id for letter in client.dead_letters(QUEUE, limit=10**6)]
    took_s = time.process_time() - began
    print(f"{count} dead letters listed in {asked} requests and {took_s:.2f} s of CPU")
    assert asked < count / 10
    assert took_s < 3.0
    assert listed == [f"job-{n}" for n in range(count)]
    monkeypatch.setattr(dead_letters, "_MAX_PREFETCH", 1000)
    assert {letter.id for letter in client.dead_letters(QUEUE, limit=count)} == {
        f"job-{n}" for n in range(count)
    }
    assert client.discard(QUEUE, ["job-2999", "job-0", "job-1500"]) == 3


@pytest.mark.parametrize("state", [SendState.UNKNOWN, SendState.REFUSED], ids=lambda state: state.name)
def test_a_redrive_that_is_not_confirmed_says_so_at_once_and_keeps_the_letters(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch, state: SendState
) -> None:
    """It doesn't wait for letters that can't come while it holds those that stay (DLQ-2, CON-1)."""
    count = 250  # more than a chunk
    client.publish(QUEUE, [Message(f"job-{number}", b"{}") for number in range(count)])
    with client.open_consumer(QUEUE) as consumer:
        consumer.settle([Dead(one.receipt, "rejected", "no") for one in receive(consumer, count)])
    eventually(lambda: client.counts(QUEUE).dead == count, "all are dead")
    asked = 0

    def unconfirmed(_names: Names, messages: Sequence[Outgoing]) -> None:
        nonlocal asked
        asked += len(messages)
        for message in messages:
            message.state, message.error = state, BackendError("a queue is full")

    monkeypatch.setattr(client._open().publisher, "send", unconfirmed)
    expected = BackendUnavailable if state is SendState.UNKNOWN else BackendError
    with pytest.raises(expected, match="a queue is full"):
        client.redrive(QUEUE)

    assert 0 < asked < count
    eventually(lambda: client.counts(QUEUE).dead == count, "all are dead still")


@pytest.mark.parametrize("act", ["redrive", "discard"])
def test_a_connection_that_breaks_as_dead_letters_are_removed_is_told_with_what_was_done(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch, act: str
) -> None:
    """Whoever calls again knows which jobs are ready and may be dead as well (DLQ-2, DLQ-3, CON-1)."""
    count, chunk = 125, 50
    monkeypatch.setattr(dead_letters, "_CHUNK", chunk)
    client.publish(QUEUE, [Message(f"job-{number}", b"{}") for number in range(count)])
    with client.open_consumer(QUEUE) as consumer:
        consumer.settle([Dead(one.receipt, "rejected", "no") for one in receive(consumer, count)])
    eventually(lambda: client.counts(QUEUE).dead == count, "all are dead")
    drop, dropped = dead_letters._Reading.drop, list[int]()

    def breaking(reading: dead_letters._Reading, messages: Sequence[Any]) -> None:
        dropped.append(len(messages))
        if len(dropped) == 2:
            cut(reading._connection)
        drop(reading, messages)

    monkeypatch.setattr(dead_letters._Reading, "drop", breaking)
    told = f"{chunk} dead jobs were dealt with; {chunk} more, up to job job-{2 * chunk - 1}, "
    with pytest.raises(BackendUnavailable, match=told):
        getattr(client, act)(QUEUE)

    eventually(lambda: client.counts(QUEUE).dead == count - chunk, "the rest are dead still")
    assert client.counts(QUEUE).ready == (2 * chunk if act == "redrive" else 0)
