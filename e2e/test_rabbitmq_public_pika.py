"""By public names of pika alone the adapter keeps its promises, only slower.

``MINDTRACE_JOBS_PUBLIC_PIKA=1`` has the contract suite, and the other files here, run that way;
``test_rabbitmq_foreign_messages.py`` then shows that properties which pika can't decode end no connection.
"""

import secrets
import threading
from collections.abc import Iterator

import pytest
from pika import BasicProperties, spec

from brokers.rabbitmq_server import Address
from conditions import LIMIT_S
from mindtrace.jobs import RabbitMQClient, RabbitMQConsumerBackend
from mindtrace.jobs.adapters.rabbitmq.transport import connect
from mindtrace.jobs.adapters.rabbitmq.transport.pika_public import PublicConnection
from mindtrace.jobs.domain import Queue
from mindtrace.jobs.ports import Ack, Delivery, Message, SettleOutcome

QUEUE = "squares"
JOBS = 200


@pytest.fixture
def client(rabbitmq_address: Address, monkeypatch: pytest.MonkeyPatch) -> Iterator[RabbitMQClient]:
    """A client by public names; pika reads properties as before once the test is over."""
    monkeypatch.setitem(spec.props, BasicProperties.INDEX, spec.props[BasicProperties.INDEX])
    monkeypatch.setattr(connect, "driver", PublicConnection)
    with rabbitmq_address.client(f"t{secrets.token_hex(6)}", prefetch=None, retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made
        made.delete(QUEUE)


def run(client: RabbitMQClient, count: int, timeout_s: float) -> list[Delivery]:
    """Receive and settle so many jobs."""
    came: list[Delivery] = []
    with client.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        while len(came) < count:
            some = consumer.receive(10, timeout_s)
            came += some
            outcomes = consumer.settle([Ack(one.receipt) for one in some]).outcomes
            assert set(outcomes) <= {SettleOutcome.OK}
        assert isinstance(consumer._channel._driver, PublicConnection)
    return came


def test_no_job_that_comes_as_a_consumer_gives_up_counts_as_crashed(client: RabbitMQClient) -> None:
    """It waits for a millisecond again and again, so that jobs cross the end of its wait (RTY-3)."""
    ids = [f"job-{number}" for number in range(JOBS)]

    def publish() -> None:
        for id_ in ids:
            client.publish(QUEUE, [Message(id_, b"{}")])

    publisher = threading.Thread(target=publish)
    publisher.start()
    came = run(client, JOBS, 0.001)
    publisher.join()
    assert sorted(one.id for one in came) == sorted(ids)
    assert {(one.number, one.crashes) for one in came} == {(1, 0)}


def test_pika_decodes_for_a_programs_own_connections(
    client: RabbitMQClient, rabbitmq_address: Address
) -> None:
    client.publish(QUEUE, [Message("job", b"{}")])
    with rabbitmq_address.driver() as driver:
        channel = driver.channel()
        queue = channel.queue_declare("", exclusive=True).method.queue
        channel.basic_publish("", queue, b"x", BasicProperties(content_type="text/plain", app_id="own"))
        _, properties, _ = channel.basic_get(queue, auto_ack=True)
    assert (properties.content_type, properties.app_id) == ("text/plain", "own")
