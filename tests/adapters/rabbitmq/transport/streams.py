"""A connection that is fed with bytes, and tells what its consumers were told."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import NamedTuple

from pika import BasicProperties, ConnectionParameters
from pika.channel import Channel
from pika.frame import Body, Header, Method
from pika.spec import Basic

from mindtrace.jobs.adapters.rabbitmq.transport.frames import Properties
from mindtrace.jobs.adapters.rabbitmq.transport.pika_io_loop import PikaIOLoop
from mindtrace.jobs.adapters.rabbitmq.transport.pika_private import PrivateConnection

OURS, PIKAS = "jobs-1", "letters-1"


class Told(NamedTuple):
    tag: int
    redelivered: bool
    job_id: str
    headers: dict[str, object] | None
    body: bytes


class Stream:
    """A connection with one open channel and two consumers, one of them by pika's way only."""

    def __init__(self, loop: PikaIOLoop) -> None:
        self.told: list[Told] = []
        self.by_pika = 0
        self.connection = PrivateConnection(
            ConnectionParameters(), custom_ioloop=loop, internal_connection_workflow=False
        )
        channel = Channel(self.connection, 1, lambda _: None)
        channel._set_state(Channel.OPEN)
        channel._consumers[OURS] = channel._consumers[PIKAS] = self._on_message
        self.connection._channels[1] = channel
        self.connection._callbacks[OURS.encode()] = self._on_delivery

    def _on_message(
        self, _channel: Channel, method: Basic.Deliver, properties: Properties, body: bytes
    ) -> None:
        self.by_pika += 1
        self._on_delivery(method.delivery_tag, method.redelivered, properties, body)

    def _on_delivery(self, tag: int, redelivered: bool, properties: Properties, body: bytes) -> None:
        self.told.append(Told(tag, redelivered, properties.message_id, properties.headers, body))


@contextmanager
def streaming() -> Iterator[Stream]:
    loop = PikaIOLoop()
    try:
        yield Stream(loop)
    finally:
        loop.close()


def delivery(told: Told, consumer: str = OURS, body_frame: int = 1000) -> bytes:
    """As a server writes it, its body in frames of at most so many bytes."""
    method = Basic.Deliver(consumer, told.tag, told.redelivered, "", "queue")
    properties = BasicProperties(message_id=told.job_id, delivery_mode=2, headers=told.headers)
    frames = [Method(1, method), Header(1, len(told.body), properties)]
    frames += [Body(1, told.body[at : at + body_frame]) for at in range(0, len(told.body), body_frame)]
    return b"".join(frame.marshal() for frame in frames)
