"""Going through the dead letters: a look that disturbs nothing, or a way out for some."""

import threading
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from itertools import islice
from time import monotonic
from typing import Any, NamedTuple

from pika.channel import Channel
from pika.spec import Basic

from ...domain.errors import BackendUnavailable
from .message import id_of
from .topology import Names
from .transport.broker import Broker
from .transport.connection import Connection
from .transport.errors import ConnectionBroken
from .transport.frames import Properties
from .transport.queue_requests import QueueState, declare_exclusive, request_queue_state
from .transport.request import Action, Reply

_CHUNK = 200
"""How many dead letters are removed at a time."""
_LOOK_S = 0.2
"""After how many seconds without a letter to look whether there are any left."""
_LOOKS = 2
"""How many looks in a row must have found none."""
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
        in_doubt: str,
    ) -> int:
        """Remove dead letters in bounded chunks, and return how many.

        Args:
            names: The queue's.
            ids: Which; None is all.
            handle: Deals with a chunk, and returns those that may go; if they aren't all, it is the last.
            in_doubt: What to tell of those whose removal the broker didn't confirm.

        Raises:
            BackendUnavailable: the connection broke; if any may be gone, it says how many.
        """
        wanted = None if ids is None else set(ids)
        if not any(self._look(names)) or wanted == set():
            return 0
        removal = _Removal(handle)
        try:
            # To remove some, it has to see all of them; to remove all, it can take them bit by bit.
            with self._reading(names, at_once=_CHUNK if wanted is None else 0) as reading:
                chosen = (message for message in reading if wanted is None or message.id in wanted)
                removal.run(reading, chosen)
                return removal.done
        except ConnectionBroken as broken:
            if removal.done or removal.in_doubt:
                raise BackendUnavailable(
                    f"queue {names.queue!r}: the connection to RabbitMQ broke ({broken}). {removal.done} "
                    f"dead jobs were dealt with; {len(removal.in_doubt)} more{removal.up_to} {in_doubt}"
                ) from broken.cause
            self._broker.raise_refusal(broken)
            raise self._broker.unavailable(broken) from broken.cause

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
            if not self._has_next():
                return
            yield connection.messages.popleft()

    def _has_next(self) -> bool:
        """Wait for the next; return False if there is none, as the rest expired since they were counted."""
        connection, give_up, found_empty = self._connection, monotonic() + self._timeout_s, 0
        while not connection.loop.wait(connection.has_news, min(_LOOK_S, self._timeout_s)):
            # What the broker has sent may still be on its way when it says that there is no more: look twice.
            state: QueueState = self._request(partial(request_queue_state, self._queue))
            found_empty = 0 if state.ready else found_empty + 1
            if connection.has_news():
                break
            if found_empty == _LOOKS:
                return False
            if monotonic() >= give_up:
                raise ConnectionBroken(TimeoutError("no dead letter came"))
        if not connection.messages:
            raise ConnectionBroken(connection.broken or TimeoutError("no dead letter came"))
        return True

    def drop(self, messages: Sequence[DeadMessage]) -> None:
        """Remove messages for good."""
        self._request(partial(self._connection.drop_messages, [message.tag for message in messages]))

    def _request(self, action: Action) -> Any:
        if self._connection.broken is not None:  # another connection would know nothing of these messages
            raise ConnectionBroken(self._connection.broken)
        return self._connection.request(action, self._timeout_s)


class _Removal:
    """Deals with dead letters in chunks, and knows how far it came."""

    def __init__(self, handle: Callable[[Sequence[DeadMessage]], Sequence[DeadMessage]]) -> None:
        self._handle = handle
        self.done = 0
        """How many the broker has removed."""
        self.in_doubt: Sequence[DeadMessage] = ()
        """The next, which were dealt with and may be removed, oldest first."""

    @property
    def up_to(self) -> str:
        """Which those are: of the oldest that were chosen, as dead letters are listed."""
        return f", up to job {self.in_doubt[-1].id}," if self.in_doubt else ""

    def run(self, reading: _Reading, chosen: Iterator[DeadMessage]) -> None:
        """Deal with all that were chosen, up to the first chunk of which some must stay."""
        while chunk := list(islice(chosen, _CHUNK)):
            handled = self._handle(chunk)
            self.in_doubt = handled
            reading.drop(handled)
            self.done += len(handled)
            self.in_doubt = ()
            if len(handled) < len(chunk):  # the next would fare no better
                break
