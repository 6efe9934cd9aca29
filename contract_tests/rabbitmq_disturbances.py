"""What the harness of RabbitMQ does to a client: it loses requests and replies, cuts off, and refuses."""

import secrets
from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from copy import copy
from typing import Any

from pika import ConnectionParameters
from pika.channel import Channel

from brokers.private_server import free_port
from brokers.rabbitmq_server import Address, retry_timeout
from mindtrace.jobs import RabbitMQClient
from mindtrace.jobs.adapters.rabbitmq.consumer.channel import Arrival, ConsumerChannel
from mindtrace.jobs.adapters.rabbitmq.transport.connection import Connection
from mindtrace.jobs.adapters.rabbitmq.transport.errors import ConnectionBroken
from mindtrace.jobs.adapters.rabbitmq.transport.publishing import Outgoing, PublishConnection, SendState
from mindtrace.jobs.adapters.rabbitmq.transport.request import Reply

LIMIT_S = 30.0
"""How long a broker may take to answer: on a busy machine longer than a client waits by default."""
_GIVE_UP_S = 0.3
"""For how long a client tries that is cut off."""


class LostReply:
    """Lets the broker do, and confirm, the next change that a client asks for, and then cuts the connection.

    The confirm is forgotten: what was published is unknown, and a request fails as over a broken network.
    """

    def __init__(self, backend: RabbitMQClient) -> None:
        parts = backend._open()
        self._hooks: list[tuple[object, str]] = []
        """What has to be taken off; once that is done, a call that is under way isn't disturbed either."""
        self._hook(parts.publisher._connection, "send", self._losing_confirms)
        self._hook(parts.admin._connection, "request", self._losing_the_reply)
        self._hook(parts.dead_letters, "_reading", self._losing_drops)
        for consumer in list(backend._consumers):
            self._hook(consumer._channel, "settle", self._losing_settlements)

    def _hook(self, owner: Any, name: str, losing: Callable[[Any, Callable[..., Any]], object]) -> None:
        setattr(owner, name, losing(owner, getattr(owner, name)))
        self._hooks.append((owner, name))

    def _cut(self, connection: Connection) -> bool:
        """Cut the connection, the first time."""
        is_first = bool(self._hooks)
        while self._hooks:
            delattr(*self._hooks.pop())
        if is_first:
            cut(connection)
        return is_first

    def _losing_confirms(self, connection: Connection, send: Callable[..., None]) -> Callable[..., None]:
        def send_and_lose(messages: Sequence[Outgoing], timeout_s: float) -> None:
            send(messages, timeout_s)
            if self._cut(connection):
                for message in messages:
                    if message.state is SendState.CONFIRMED:
                        message.state = SendState.UNKNOWN

        return send_and_lose

    def _losing_the_reply(self, connection: Connection, request: Callable[..., Any]) -> Callable[..., Any]:
        def request_and_lose(action: Any, timeout_s: float) -> Any:
            answer = request(action, timeout_s)
            if getattr(action, "func", action).__qualname__ in CHANGES and self._cut(connection):
                raise reply_lost()
            return answer

        return request_and_lose

    def _losing_settlements(self, channel: ConsumerChannel, settle: Callable[..., bool]) -> object:
        def settle_and_lose(
            acks: Sequence[Arrival], returns: Sequence[Arrival], *rest: Any, **more: Any
        ) -> bool:
            answer = settle(acks, returns, *rest, **more)
            if acks or returns:
                channel.request(channel.count, LIMIT_S)  # the broker has done all that it was told before
                if self._cut(channel):
                    raise reply_lost()
            return answer

        return settle_and_lose

    def _losing_drops(self, _: object, reading: Callable[..., AbstractContextManager[Any]]) -> object:
        @contextmanager
        def reading_and_losing(*words: Any, **more: Any) -> Iterator[Any]:
            with reading(*words, **more) as found:
                drop = found.drop

                def drop_and_lose(messages: Sequence[object]) -> None:
                    drop(messages)
                    if self._cut(found._connection):
                        raise reply_lost()

                found.drop = drop_and_lose
                yield found

        return reading_and_losing


def reply_lost() -> ConnectionBroken:
    """What a request raises whose connection broke before the answer."""
    return ConnectionBroken(ConnectionResetError("the reply was lost"))


CHANGES = {
    "_purge",
    "_delete_level",
    "_make_levels",
    "Admin.declare.<locals>.act",
    "Admin.delete.<locals>.act",
}
"""What the administration of a queue asks for that changes it."""


def cut(connection: Connection) -> None:
    """Break a connection as a network does: neither end is told more than that."""
    if (driver := connection._driver) is not None:
        driver.drop()


class LostRequest:
    """Cuts the connection in place of the next change that a client asks for: the broker never hears of it.

    The adapter learns of it as over a broken network: it has sent something, and its connection ends.
    """

    def __init__(self, backend: RabbitMQClient) -> None:
        parts = backend._open()
        self._hooks: list[tuple[object, str]] = []
        publisher, admin = parts.publisher._connection, parts.admin._connection
        self._hook(publisher, "_flush", self._flush_or_cut(publisher))
        self._hook(admin, "request", self._request_or_cut(admin))
        self._hook(parts.dead_letters, "_reading", self._cut_before_a_drop(parts.dead_letters._reading))
        for consumer in list(backend._consumers):
            channel = consumer._channel
            self._hook(channel, "_say", self._cut_before_settling(channel))

    def _hook(self, owner: Any, name: str, replacement: Callable[..., object]) -> None:
        setattr(owner, name, replacement)
        self._hooks.append((owner, name))

    def _cut(self, connection: Connection) -> bool:
        """Cut the connection, the first time."""
        is_first = bool(self._hooks)
        while self._hooks:
            delattr(*self._hooks.pop())
        if is_first:
            cut(connection)
        return is_first

    def _flush_or_cut(self, connection: PublishConnection) -> Callable[[], None]:
        flush = connection._flush

        def flush_or_cut() -> None:
            if not (connection._under_way and self._cut(connection)):
                flush()

        return flush_or_cut

    def _request_or_cut(self, connection: Connection) -> Callable[..., Any]:
        request = connection.request

        def request_or_cut(action: Any, timeout_s: float) -> Any:
            def act_or_cut(channel: Channel, reply: Reply) -> None:
                if not self._cut(connection):
                    action(channel, reply)

            is_change = getattr(action, "func", action).__qualname__ in CHANGES
            return request(act_or_cut if is_change else action, timeout_s)

        return request_or_cut

    def _cut_before_settling(self, channel: ConsumerChannel) -> Callable[..., None]:
        say = channel._say

        def say_or_cut(acks: Sequence[Arrival], returns: Sequence[Arrival], more: int | None) -> None:
            if acks or returns:
                self._cut(channel)
            say(acks, returns, more)  # into a connection that is gone, which it doesn't know yet

        return say_or_cut

    def _cut_before_a_drop(
        self, reading: Callable[..., AbstractContextManager[Any]]
    ) -> Callable[..., AbstractContextManager[Any]]:
        @contextmanager
        def reading_and_cutting(*words: Any, **more: Any) -> Iterator[Any]:
            with reading(*words, **more) as found:
                drop = found.drop

                def cut_and_drop(messages: Sequence[object]) -> None:
                    self._cut(found._connection)
                    drop(messages)

                found.drop = cut_and_drop
                yield found

        return reading_and_cutting


@contextmanager
def cut_off(backend: RabbitMQClient) -> Iterator[None]:
    """Break a client's connections, and have all that it makes meanwhile end where nobody listens."""
    broker = backend._open().broker
    servers, nobody = broker.servers, [copy(each) for each in broker.servers]
    for each in nobody:
        each.port = free_port()
    with retry_timeout(backend, _GIVE_UP_S):
        _point_to(backend, nobody)
        try:
            yield
        finally:
            _point_to(backend, servers)


def _point_to(backend: RabbitMQClient, servers: Sequence[ConnectionParameters]) -> None:
    """Have a client connect to other servers from now on."""
    parts = backend._open()
    parts.broker.servers = servers
    consumers = [consumer._channel for consumer in list(backend._consumers)]
    for connection in (parts.admin._connection, parts.publisher._connection, *consumers):
        connection._servers = servers
        cut(connection)


@contextmanager
def full_queue(address: Address, backend: RabbitMQClient) -> Iterator[None]:
    """Send whatever a client publishes to a queue that is full: the broker itself refuses each message."""
    connection = backend._open().publisher._connection
    name = f"mtj:full-{secrets.token_hex(6)}"  # such names a user with the documented permissions may use
    arguments = {"x-max-length": 0, "x-overflow": "reject-publish", "x-expires": 600_000}

    def to_the_full_queue(publish: Callable[..., None]) -> Callable[..., None]:
        def publish_there(messages: Sequence[Outgoing], timeout_s: float) -> None:
            addresses = [(message.queue, message.exchange) for message in messages]
            for message in messages:
                message.queue, message.exchange = name, ""
            try:
                publish(messages, timeout_s)
            finally:
                for message, (queue, exchange) in zip(messages, addresses, strict=True):
                    message.queue, message.exchange = queue, exchange

        return publish_there

    with address.driver() as driver:
        driver.channel().queue_declare(name, arguments=arguments)
    connection.send, connection.offer = map(to_the_full_queue, (connection.send, connection.offer))
    try:
        yield
    finally:
        del connection.send, connection.offer
        with address.driver() as driver:
            driver.channel().queue_delete(name)
