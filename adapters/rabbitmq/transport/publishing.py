"""Publishing with confirms: many messages under way at once, and what became of each."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Sequence
from contextlib import suppress
from enum import Enum, auto
from functools import partial

from pika.channel import Channel
from pika.spec import Basic

from ....domain.errors import JobsError
from ....ports.signal_errors import raised_by_handler
from .broker import Broker
from .connection import Connection
from .errors import ClosedByClient, no_answer
from .frames import Properties
from .request import Reply, Request

_WINDOW = 2000
"""How many messages may be under way at once, so that a slow server isn't buried."""
_SLICE = 200
"""How many are sent before the loop looks at what else there is: confirms, heartbeats."""
_DROP_S = 1.0
"""How long it may take until a dropped connection is noticed."""


class SendState(Enum):
    """What became of a message."""

    UNSENT = auto()
    """It never left."""
    UNDER_WAY = auto()
    """It was sent, and the server hasn't said yet what became of it."""
    CONFIRMED = auto()
    UNROUTABLE = auto()
    """There is no queue of that name."""
    REFUSED = auto()
    """The server couldn't keep it."""
    UNWRITABLE = auto()
    """It isn't what a message can be: its id is too long, say."""
    UNKNOWN = auto()
    """It was sent, and the connection broke before the confirm."""


class Outgoing:
    """A message on its way to a queue: what it is, where it goes, and what became of it."""

    __slots__ = ("body", "delay_s", "error", "exchange", "properties", "queue", "state")

    def __init__(self, queue: str, properties: Properties, body: bytes, delay_s: float = 0.0) -> None:
        self.queue = queue
        """The queue of RabbitMQ: messages go by its name, and come back if there is none."""
        self.exchange = ""
        """The exchange that leads there: the default one, or a direct one, which is made if it is missing."""
        self.properties = properties
        self.body = body
        self.delay_s = delay_s
        self.state = SendState.UNSENT
        self.error: JobsError | None = None
        """Why it isn't confirmed."""

    @property
    def may_arrive(self) -> bool:
        """Whether it is in its queue, or may be, or may get there yet."""
        return self.state in (SendState.UNDER_WAY, SendState.CONFIRMED, SendState.UNKNOWN)


class _Batch(Request):
    """The messages that one call sends."""

    __slots__ = ("is_begun", "messages", "open", "reply", "sent")

    def __init__(self, messages: Sequence[Outgoing], connection: "PublishConnection") -> None:
        super().__init__(partial(connection.begin, self))
        self.messages = messages
        self.sent = 0
        self.open = len(messages)
        """How many aren't decided yet."""
        self.is_begun = False
        self.reply: Reply = self.answer

    def decide(self, message: Outgoing, state: SendState) -> None:
        message.state = state
        self.open -= 1
        if not self.open:
            self.end()

    def leave_unsent(self) -> None:
        """Decide nothing of what isn't sent: nobody waits for it any more."""
        self.open -= len(self.messages) - self.sent
        if not self.open:
            self.end()

    def end(self) -> None:
        """Nothing more will be heard."""
        self.reply(None)


def declare_exchange(channel: Channel, name: str) -> None:
    """Declare an exchange that leads to queues by their names, without waiting for the answer.

    What it can't route must be returned. So it is its own alternate, and a policy can't name another.
    """
    channel.exchange_declare(name, "direct", durable=True, arguments={"alternate-exchange": name})


class PublishConnection(Connection):
    """The connection that messages leave by: every one mandatory, every one confirmed (PUB-1)."""

    def __init__(self, broker: Broker) -> None:
        super().__init__(broker)
        self._queued: list[_Batch] = []
        """What isn't sent yet, or not wholly."""
        self._under_way: OrderedDict[int, tuple[_Batch, Outgoing]] = OrderedDict()
        """What isn't confirmed yet, by delivery tag."""
        self._last_tag = 0
        self._exchanges: set[str] = set()
        """What was declared on this channel: the broker closes it for a message to a missing exchange."""
        self._returned: Counter[tuple[str, str | bytes | None]] = Counter()
        """What came back and isn't confirmed yet: the confirm of a message follows its return."""
        self.broken_by: BaseException | None = None
        """What ended the channel that was there last."""
        self.blocked_when_broken: str | None = None
        """Why the server took no messages then, where it didn't."""

    def send(self, messages: Sequence[Outgoing], timeout_s: float) -> None:
        """Publish, and wait until the state of each is known, or the connection broke, or time is up.

        Messages of one call arrive in their order. After a timeout the connection is dropped, so that
        nothing that was given up arrives later. Under an alarm it isn't: what the server hasn't read yet
        would arrive all the same, once the alarm is over.

        Raises:
            Unreachable: no connection could be made, nothing was sent.
            ClosedByClient: the connection is closed.
        """
        if messages:
            batch = _Batch(messages, self)
            self._publish(batch, timeout_s, lambda: False)
            if not batch.is_over:
                self._give_up_all(batch, timeout_s)

    def offer(self, messages: Sequence[Outgoing], timeout_s: float) -> None:
        """Publish as :meth:`send`, but wait no longer once the server takes no messages.

        Then, and after the timeout, what is sent already stays ``UNDER_WAY`` until the server confirms it, or
        the connection breaks. A server that is silent may have it: a quorum queue without its majority, say.
        To publish it again each time would make as many copies.
        """
        if messages:
            batch = _Batch(messages, self)
            is_enough = self._publish(batch, timeout_s, lambda: self.blocked is not None)
            if batch.is_over:
                return
            if is_enough or (batch.is_begun and not self.loop.closed):
                self.loop.call(partial(self._withdraw, batch))
            else:
                self._give_up_all(batch, timeout_s)

    def _publish(self, batch: _Batch, timeout_s: float, is_enough: Callable[[], bool]) -> bool:
        """Publish, and return whether all was decided in time, or ``is_enough`` held."""
        # What is sent over a connection that broke since the last time would be UNKNOWN. Where messages are
        # under way, what is unread is most likely their confirms.
        if self.has_unread and not self._under_way:
            self.loop.catch_up()
        is_answered = self._is_answered(batch, timeout_s, is_enough)
        if batch.is_over:
            batch.result()
        return is_answered

    def _give_up_all(self, batch: _Batch, timeout_s: float) -> None:
        """Decide now what isn't decided in time."""
        if self.loop.closed and not batch.is_begun:
            raise ClosedByClient
        is_connected = self._driver is not None
        is_known = self._give_up(batch)
        if is_known and not batch.is_begun:
            raise no_answer(timeout_s, is_connected=is_connected)
        for message in batch.messages:
            if message.state is SendState.UNDER_WAY or (message.state is SendState.UNSENT and not is_known):
                message.state = SendState.UNKNOWN

    # -- in the loop ----------------------------------------------------------------------------------

    def begin(self, batch: _Batch, _channel: Channel, reply: Reply) -> None:
        """Send a batch after those that are queued."""
        batch.is_begun, batch.reply = True, reply
        self._queued.append(batch)
        self._pump()

    def on_channel(self, channel: Channel, ready: Reply) -> None:
        self._last_tag = 0
        self._exchanges.clear()
        channel.add_on_return_callback(self._on_return)
        channel.connection.confirm(channel, self._on_confirm, ready)

    def on_channel_lost(self, error: BaseException) -> None:
        self.broken_by = error
        self.blocked_when_broken = self.blocked
        under_way, self._under_way = self._under_way, OrderedDict()
        queued, self._queued = self._queued, []
        self._returned.clear()
        for batch, message in under_way.values():
            batch.decide(message, SendState.UNKNOWN)
        for batch in [batch for batch, _ in under_way.values()] + queued:
            batch.end()

    def on_blocked_changed(self) -> None:
        self._pump()

    def _pump(self) -> None:
        """Send what may be sent now."""
        channel = self._channel
        if channel is None or not channel.is_open or self.blocked is not None:
            return
        if self._send_slice(channel):
            self.loop.io.add_callback(self._pump)
        self._flush()

    def _send_slice(self, channel: Channel) -> bool:
        """Send some, and return whether there may be more that may be sent."""
        publish = channel.connection.publish
        for _ in range(_SLICE):
            if not self._queued or len(self._under_way) >= _WINDOW:
                return False
            batch = self._queued[0]
            if batch.is_abandoned:  # by a thread that was interrupted
                del self._queued[0]
                batch.leave_unsent()
                continue
            message = batch.messages[batch.sent]
            batch.sent += 1
            if batch.sent == len(batch.messages):
                del self._queued[0]
            message.state = SendState.UNDER_WAY
            try:
                if message.exchange and message.exchange not in self._exchanges:
                    declare_exchange(channel, message.exchange)
                    self._exchanges.add(message.exchange)
                publish(channel, message.queue, message.properties, message.body, message.exchange)
            except Exception as error:  # nothing was written, so that this one has no tag
                if raised_by_handler(error):  # of a signal, at any point: it may have been written
                    raise
                batch.decide(message, SendState.UNWRITABLE)
                continue
            self._last_tag += 1
            self._under_way[self._last_tag] = (batch, message)
        return True

    def _on_return(
        self, _channel: Channel, method: Basic.Return, properties: Properties, _body: bytes
    ) -> None:
        self._returned[method.routing_key, properties.message_id] += 1

    def _on_confirm(self, tag: int, multiple: bool, is_kept: bool) -> None:
        state = SendState.CONFIRMED if is_kept else SendState.REFUSED
        if multiple:
            while self._under_way and next(iter(self._under_way)) <= tag:
                self._decide(*self._under_way.popitem(last=False)[1], state)
        elif (one := self._under_way.pop(tag, None)) is not None:
            self._decide(*one, state)
        if self._queued:
            self._pump()

    def _decide(self, batch: _Batch, message: Outgoing, state: SendState) -> None:
        if self._returned:
            address = (message.queue, message.properties.message_id)
            if self._returned[address]:
                self._returned[address] -= 1
                state = SendState.UNROUTABLE
            self._returned += Counter()  # drops what is down to 0
        batch.decide(message, state)

    def _withdraw(self, batch: _Batch) -> None:
        """Send no more of a batch."""
        if batch in self._queued:
            self._queued.remove(batch)

    def _give_up(self, batch: _Batch) -> bool:
        """Send no more of a batch, and return whether it is known what became of the rest."""

        def give_up() -> None:
            self._withdraw(batch)
            if self.blocked is not None and batch.is_begun:
                batch.end()
                return
            if not batch.is_begun or (batch.sent and batch.open):
                self._drop()
            if not batch.sent or not batch.open:
                batch.end()  # else the connection's end decides, once it is noticed

        with suppress(ClosedByClient):
            self.loop.call(give_up)
            self.loop.wait(lambda: batch.is_over, _DROP_S)
        return batch.is_over
