"""What several parts of the adapter ask the server about a queue."""

from typing import Any, NamedTuple

from pika.channel import Channel

from .request import Reply


class QueueState(NamedTuple):
    """A queue of RabbitMQ at one moment, as its leader sees it."""

    ready: int
    """How many messages nobody has in hand."""
    consumers: int


def look_at(queue: str, channel: Channel, reply: Reply) -> None:
    """Reply with a queue's :class:`QueueState`; the server closes the channel if there is no such queue."""

    def looked(frame: Any) -> None:
        reply(QueueState(frame.method.message_count, frame.method.consumer_count))

    channel.queue_declare(queue, passive=True, callback=looked)


def declare_exclusive(queue: str, channel: Channel, reply: Reply) -> None:
    """Make a queue that lives and dies with the connection: a lock, as no other can declare it meanwhile."""
    channel.queue_declare(queue, exclusive=True, auto_delete=True, callback=reply)
