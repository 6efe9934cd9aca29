"""Requests about a queue, which several parts of the adapter make."""

from time import monotonic
from typing import Any, NamedTuple

from pika.channel import Channel
from pika.spec import Basic

from .errors import NOT_FOUND
from .request import Reply

_LEADER_TIME_S = 0.2
"""A node waits a little longer for a queue's leader, and then says that the queue is empty."""


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


def request_known_state(queue: str, channel: Channel, reply: Reply) -> None:
    """Reply as :func:`request_queue_state`, but close the channel where the queue's leader doesn't answer.

    A node asks the leader of a quorum queue. Where that is silent, the node says that the queue is empty,
    after a quarter of a second. So one that is said to be empty so late is compared with an answer that the
    node gives by itself.
    """
    asked = monotonic()

    def replied(state: QueueState) -> None:
        took_s = monotonic() - asked
        if any(state) or took_s < _LEADER_TIME_S:
            reply(state)
            return
        asked_node = monotonic()

        def compare(_is_active: bool) -> None:
            if took_s - (monotonic() - asked_node) < _LEADER_TIME_S:
                reply(state)
            else:
                channel.close(NOT_FOUND, f"the leader of {queue} doesn't answer")

        channel.flow(active=True, callback=compare)

    request_queue_state(queue, channel, replied)


def request_majority(queue: str, channel: Channel, reply: Reply) -> None:
    """Reply once most of a quorum queue's nodes agree that it is empty, as the caller knows that it is.

    Without them, the leader is silent, or there is none.
    """
    channel.add_callback(reply, [Basic.GetEmpty])
    channel.basic_get(queue, lambda *_: reply(None), auto_ack=True)


def declare_exclusive(queue: str, channel: Channel, reply: Reply) -> None:
    """Declare a queue that is deleted with the connection: a lock, as no other connection can declare it."""
    channel.queue_declare(queue, exclusive=True, auto_delete=True, callback=reply)
