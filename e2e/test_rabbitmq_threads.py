"""One RabbitMQ client shared by many threads, and one queue by many clients."""

import secrets

from brokers.rabbitmq_server import Address
from mindtrace.jobs import RabbitMQConsumerBackend
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import QueueNotFound
from mindtrace.jobs.ports import Ack, Delivery, Message, Release
from stress.load import SHARED, run

QUEUE = "shared"
STEPS = 15


def test_an_error_of_one_call_is_never_the_answer_to_another(rabbitmq_address: Address) -> None:
    """Threads do all that a client can do, also what RabbitMQ refuses by closing a channel."""
    with rabbitmq_address.client(f"t{secrets.token_hex(6)}", retry_timeout_s=60.0) as client:
        log, wrong = run(client, 16, lambda steps: steps >= STEPS)
        client.delete(SHARED)

    assert wrong == []
    assert log.calls.total() == 16 * STEPS


def test_a_consumer_notices_that_its_queue_was_made_anew_with_another_kind(
    rabbitmq_address: Address,
) -> None:
    """Priorities are kept, and crashes counted, as the new kind does it (ORD-3, RTY-3)."""
    namespace = f"t{secrets.token_hex(6)}"
    with rabbitmq_address.client(namespace) as one, rabbitmq_address.client(namespace) as other:
        one.declare(Queue(QUEUE))
        with one.open_consumer(QUEUE, prefetch=1) as consumer:
            assert consumer.receive(1, 0.0) == []
            other.delete(QUEUE)
            other.declare(Queue(QUEUE, QueueKind.PRIORITY))
            other.publish(QUEUE, [Message("a", b"{}", priority=7)])

            (delivery,) = receive_one(consumer)
            consumer._channel.drop()  # as a crash would
            (delivery,) = receive_one(consumer)
            assert delivery.crashes == 1
            consumer.settle([Release(delivery.receipt)])

        other.publish(QUEUE, [Message("b", b"{}", priority=6)])
        with one.open_consumer(QUEUE, prefetch=1) as consumer:
            for expected in ("a", "b"):
                (delivery,) = receive_one(consumer)
                assert delivery.id == expected
                consumer.settle([Ack(delivery.receipt)])
        other.delete(QUEUE)


def receive_one(consumer: RabbitMQConsumerBackend) -> list[Delivery]:
    """Receive one job, from a queue that may have been made anew."""
    for _ in range(20):
        try:
            if came := consumer.receive(1, 5.0):
                return came
        except QueueNotFound:  # the consumer tells of the deletion once
            pass
    raise AssertionError("no job came")
