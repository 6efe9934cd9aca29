"""Ctrl-C at any line of a publish: the next call is answered, and what is published again is run."""

import itertools

from interrupts import interrupt_at
from mindtrace.jobs import LocalClient, Queue
from mindtrace.jobs.ports import Ack, Message


def test_a_publish_that_was_interrupted_anywhere_can_be_made_again() -> None:
    """The queue isn't locked, and no id is taken by a job that nobody can receive (PUB-5)."""
    for point in itertools.count(1):
        with LocalClient() as client:
            client.declare(Queue("points"))
            was_interrupted = interrupt_at(
                point, "local/queue.py", lambda: client.publish("points", [Message("job", b"{}")])
            )
            client.publish("points", [Message("job", b"{}")])
            with client.open_consumer("points") as consumer:
                deliveries = consumer.receive(2, 0.0)
                consumer.settle([Ack(delivery.receipt) for delivery in deliveries])
                assert {delivery.id for delivery in deliveries} == {"job"}, point
                assert not consumer.receive(1, 0.0)
        if not was_interrupted:
            return
