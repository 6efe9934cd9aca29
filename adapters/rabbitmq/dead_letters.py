"""Going through the dead letters: a look that disturbs nothing, or a way out for some."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from typing import NamedTuple

from pika.channel import Channel
from pika.spec import Basic

from .message import id_of
from .topology import Names
from .transport.broker import Broker
from .transport.connection import Connection
from .transport.errors import ConnectionBroken
from .transport.frames import Properties
from .transport.queue_requests import QueueState, declare_exclusive
from .transport.request import Action, Reply

_CHUNK = 200
"""How many dead letters are removed at a time."""
_MAX_PREFETCH = 65535
"""The largest that AMQP has room for."""


class DeadMessage(NamedTuple):
    """A dead letter in hand."""

    tag: int
    properties: Properties
    body: bytes

    @property
    def id(self) -> str:
        """The job's id."""
        return id_of(self.properties)


class _ReaderConnection(Connection):
    """Reads dead letters; whatever isn't settled when it closes is back in its place."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self.messages: deque[DeadMessage] = deque()
        self.broken: BaseException | None = None

    def read(self, queue: str, at_once: int, channel: Channel, reply: Reply) -> None:
        def on_message(_: Channel, method: Basic.Deliver, properties: Properties, body: bytes) -> None:
            self.messages.append(DeadMessage(method.delivery_tag, properties, body))

        # One subscription has no more than so many in hand, and "without limit" is 2000 to a quorum queue.
        channel.basic_qos(prefetch_count=min(at_once, _MAX_PREFETCH), callback=lambda _: None)
        for _ in range(0, at_once - _MAX_PREFETCH, _MAX_PREFETCH):
            channel.basic_consume(queue, on_message, callback=lambda _: None)
        channel.basic_consume(queue, on_message, callback=reply)

    def drop_messages(self, tags: list[int], channel: Channel, reply: Reply) -> None:
        for tag in tags:
            channel.basic_ack(tag)
        channel.basic_qos(prefetch_count=1, callback=reply)

    def has_news(self) -> bool:
        """Return whether a message is here, or none will come any more."""
        return bool(self.messages) or self.broken is not None

    def on_channel_lost(self, error: BaseException) -> None:
        self.broken = error


class DeadLetters:
    """The dead letters of one client's queues.

    Reading takes every one out of the queue for a moment, as there is no other way to see one, and puts all
    of them back in their order. So that two readers don't take letters from each other's sight, a reader
    holds a queue of its own, which no other can declare meanwhile. The broker may let go of that one before
    it puts back what a reader had whose connection broke; so the next waits for both.

    Args:
        broker: What connections share.
        look: Looks at the queue of the dead letters.
    """

    def __init__(self, broker: Broker, look: Callable[[Names], QueueState]) -> None:
        self._broker = broker
        self._look = look
        self._one_at_a_time = threading.Lock()

    def page(self, names: Names, limit: int, offset: int) -> list[DeadMessage]:
        """Return some of the dead letters, oldest first."""
        if not any(self._look(names)):
            return []

        def read(_timeout_s: float) -> list[DeadMessage]:
            with self._reading(names, at_once=0) as reading:
                return list(islice(reading, offset, offset + limit))

        return self._broker.retry(read)

    def remove(
        self,
        names: Names,
        ids: Sequence[str] | None,
        handle: Callable[[Sequence[DeadMessage]], Sequence[DeadMessage]],
    ) -> int:
        """Remove dead letters in bounded chunks, and return how many.

        Args:
            names: The queue's.
            ids: Which; None is all.
            handle: Deals with a chunk, and returns those that may go; if they aren't all, it is the last.
        """
        wanted = None if ids is None else set(ids)
        if not any(self._look(names)) or wanted == set():
            return 0
        removed = 0
        try:
            # To remove some, it has to see all of them; to remove all, it can take them bit by bit.
            with self._reading(names, at_once=_CHUNK if wanted is None else 0) as reading:
                chosen = (message for message in reading if wanted is None or message.id in wanted)
                while chunk := list(islice(chosen, _CHUNK)):
                    handled = handle(chunk)
                    reading.drop(handled)
                    removed += len(handled)
                    if len(handled) < len(chunk):  # the next would fare no better
                        break
        except ConnectionBroken as broken:
            self._broker.raise_refusal(broken)
            raise self._broker.unavailable(broken) from broken.cause
        return removed

    @contextmanager
    def _reading(self, names: Names, *, at_once: int) -> Iterator["_Reading"]:
        """Go through what is there now, oldest first, with ``at_once`` in hand unsettled; 0 is all."""
        with self._one_at_a_time:
            connection = _ReaderConnection(self._broker)
            try:
                count = self._broker.wait_for_lock(
                    partial(self._lock, connection, names),
                    f"queue {names.queue!r}: somebody else is going through its dead letters",
                )
                yield _Reading(self._broker, connection, names.dead, count, at_once)
            finally:
                connection.close()

    def _lock(self, connection: _ReaderConnection, names: Names) -> int | None:
        """Keep others out, and return how many there are; None while another reader has some."""

        def lock(timeout_s: float) -> None:
            connection.broken = None  # what broke before had nothing in hand
            connection.request(partial(declare_exclusive, names.reading), timeout_s)

        self._broker.retry(lock)
        state = self._look(names)
        return None if state.consumers else state.ready


class _Reading:
    """One way through a queue of dead letters; where the connection breaks, ConnectionBroken ends it."""

    def __init__(
        self, broker: Broker, connection: _ReaderConnection, queue: str, count: int, at_once: int
    ) -> None:
        self._timeout_s = broker.retry_timeout_s
        self._connection = connection
        self._queue = queue
        self._count = count
        self._at_once = at_once

    def __iter__(self) -> Iterator[DeadMessage]:
        if not self._count:
            return
        connection = self._connection
        self._request(partial(connection.read, self._queue, self._at_once or self._count))
        for _ in range(self._count):
            connection.loop.wait(connection.has_news, self._timeout_s)
            if not connection.messages:
                raise ConnectionBroken(connection.broken or TimeoutError("no dead letter came"))
            yield connection.messages.popleft()

    def drop(self, messages: Sequence[DeadMessage]) -> None:
        """Remove messages for good."""
        self._request(partial(self._connection.drop_messages, [message.tag for message in messages]))

    def _request(self, action: Action) -> None:
        if self._connection.broken is not None:  # another connection would know nothing of these messages
            raise ConnectionBroken(self._connection.broken)
        self._connection.request(action, self._timeout_s)
