"""Requests about a queue, which several parts of the adapter make."""

from typing import Any, NamedTuple

from pika.channel import Channel

from .request import Reply


class QueueState(NamedTuple):
    """A queue of RabbitMQ at one moment, as its leader sees it."""

    ready: int
    """How many messages no consumer holds."""
    consumers: int


def request_queue_state(queue: str, channel: Channel, reply: Reply) -> None:
    """Reply with a queue's :class:`QueueState`; the server closes the channel if there is no such queue."""

    def replied(frame: Any) -> None:
        reply(QueueState(frame.method.message_count, frame.method.consumer_count))

    channel.queue_declare(queue, passive=True, callback=replied)


def declare_exclusive(queue: str, channel: Channel, reply: Reply) -> None:
    """Declare a queue that is deleted with the connection: a lock, as no other connection can declare it."""
    channel.queue_declare(queue, exclusive=True, auto_delete=True, callback=reply)
