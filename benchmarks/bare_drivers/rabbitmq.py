"""The limit on RabbitMQ: pika's SelectConnection and nothing else; a quorum queue, publishes confirmed."""

import time
from collections.abc import Callable, Sequence
from typing import Any

from pika import BasicProperties, BlockingConnection, SelectConnection, URLParameters

PERSISTENT = BasicProperties(delivery_mode=2)


def declare(url: str, queue: str) -> None:
    with BlockingConnection(URLParameters(url)) as connection:
        connection.channel().queue_declare(queue, durable=True, arguments={"x-queue-type": "quorum"})


def on_a_channel(url: str, use: Callable[[SelectConnection, Any], None]) -> None:
    """Run ``use`` on a new SelectConnection's channel, until it closes the connection."""

    def opened(connection: SelectConnection) -> None:
        connection.channel(on_open_callback=lambda channel: use(connection, channel))

    connection = SelectConnection(
        URLParameters(url), on_open_callback=opened, on_close_callback=lambda one, _: one.ioloop.stop()
    )
    connection.ioloop.start()


def publish(url: str, queue: str, bodies: Sequence[bytes], batch: int) -> float:
    """Seconds to publish with confirms, a batch after the other."""
    took: list[float] = []

    def use(connection: SelectConnection, channel: Any) -> None:
        sent, began = 0, 0.0

        def send(_frame: object = None) -> None:
            nonlocal sent, began
            began = began or time.perf_counter()
            for body in bodies[sent : sent + batch]:
                channel.basic_publish("", queue, body, PERSISTENT, mandatory=True)
            sent = min(sent + batch, len(bodies))

        def confirmed(frame: Any) -> None:
            tag = frame.method.delivery_tag
            if tag >= len(bodies):
                took.append(time.perf_counter() - began)
                connection.close()
            elif tag >= sent:
                send()

        channel.confirm_delivery(confirmed, callback=send)

    on_a_channel(url, use)
    return took[0]


def consume(
    url: str, queue: str, prefetch: int, seen: Callable[[], object], stop_at: int | None = None
) -> None:
    """Take message after message; one acknowledgement for half of what is prefetched, or for the last."""

    def use(connection: SelectConnection, channel: Any) -> None:
        every, count, acked = max(1, prefetch // 2), 0, 0

        def ack() -> None:
            nonlocal acked
            if count > acked:
                channel.basic_ack(count, multiple=True)
                acked = count
            connection.ioloop.call_later(0.05, ack)

        def on_message(_channel: object, method: Any, _properties: object, _body: bytes) -> None:
            nonlocal count, acked
            seen()
            count = method.delivery_tag
            if count - acked >= every or count == stop_at:
                channel.basic_ack(count, multiple=True)
                acked = count
            if count == stop_at:
                connection.close()

        channel.basic_qos(prefetch_count=prefetch)
        channel.basic_consume(queue, on_message)
        if stop_at is None:
            ack()

    on_a_channel(url, use)


def drain(url: str, queue: str, count: int, prefetch: int) -> float:
    """Seconds from the first message to the last."""
    moments: list[float] = []
    consume(url, queue, prefetch, lambda: moments.append(time.perf_counter()), count)
    return moments[-1] - moments[0]


def blocking_drain(url: str, queue: str, count: int) -> float:
    """Seconds from first to last on a BlockingConnection with a prefetch of 1, as in its tutorial."""
    with BlockingConnection(URLParameters(url)) as connection:
        channel = connection.channel()
        channel.basic_qos(prefetch_count=1)
        moments: list[float] = []

        def on_message(one: Any, method: Any, _properties: object, _body: bytes) -> None:
            moments.append(time.perf_counter())
            one.basic_ack(method.delivery_tag)
            if len(moments) == count:
                one.stop_consuming()

        channel.basic_consume(queue, on_message)
        channel.start_consuming()
        return moments[-1] - moments[0]


def purge(url: str, queue: str) -> None:
    with BlockingConnection(URLParameters(url)) as connection:
        connection.channel().queue_purge(queue)
