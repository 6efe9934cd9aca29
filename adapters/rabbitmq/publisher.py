"""Publishing with confirms: many messages under way at once, and the fate of each."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, NamedTuple

from pika import BasicProperties, ConnectionParameters
from pika.channel import Channel
from pika.spec import Basic

from .frames import Properties
from .wire import Answer, Heart, Line, LineClosed

_WINDOW = 2000
"""How many messages may be under way at once, so that a slow server isn't buried."""
_SLICE = 200
"""How many are sent before the loop looks at what else there is: confirms, heartbeats."""
_DROP_S = 1.0
"""How long it may take until a dropped connection is noticed."""


class Post(NamedTuple):
    """A message, and where to."""

    exchange: str
    routing_key: str
    properties: Properties
    body: bytes


class Fate(Enum):
    """What became of a message."""

    UNSENT = auto()
    """It never left."""
    CONFIRMED = auto()
    UNROUTABLE = auto()
    """There is no queue that it belongs into."""
    REFUSED = auto()
    """The server couldn't keep it."""
    UNKNOWN = auto()
    """It was sent, and the line broke before the confirm."""


class _Batch:
    """Messages that one call wants sent."""

    def __init__(self, posts: Sequence[Post]) -> None:
        self.posts = posts
        self.fates = [Fate.UNSENT] * len(posts)
        self.sent = 0
        self.open = len(posts)
        self.is_decided = False
        """Whether nothing more will be heard."""

    def decide(self, place: int, fate: Fate) -> None:
        self.fates[place] = fate
        self.open -= 1
        if not self.open:
            self.is_decided = True


class Publisher(Line):
    """The line that messages leave by: every one mandatory, every one confirmed (PUB-1)."""

    def __init__(self, heart: Heart, servers: Sequence[ConnectionParameters]) -> None:
        super().__init__(heart, servers)
        self._queued: list[_Batch] = []
        """What isn't sent yet, or not wholly."""
        self._under_way: OrderedDict[int, tuple[_Batch, int]] = OrderedDict()
        """What isn't confirmed yet, by delivery tag."""
        self._last_tag = 0
        self._returned: Counter[tuple[str, str, str | bytes | None]] = Counter()
        """What came back and isn't confirmed yet: the confirm of a message follows its return."""
        self.broken_by: BaseException | None = None
        """What ended the channel that was there last."""
        self.blocked_when_broken: str | None = None
        """Why the server took no messages then, where it didn't."""

    def send(self, posts: Sequence[Post], timeout_s: float) -> list[Fate]:
        """Publish, and wait until the fate of each is known, or the line broke, or time is up.

        Messages of one call arrive in their order. After a timeout the connection is dropped, so that
        nothing that was given up arrives later.

        Raises:
            Unreachable: no connection could be made, nothing was sent.
            LineClosed: the line is closed.
        """
        if not posts:
            return []
        batch = _Batch(posts)
        if self.has_unread:  # what is sent over a connection that broke since the last time would be UNKNOWN
            self.io.beat()
        if not self.is_open:
            self.ask(lambda _channel, done: done(None), timeout_s)
        if not self.io.wait(lambda: batch.is_decided, timeout_s, first=lambda: self._start(batch)):
            self._give_up(batch)
        return batch.fates

    # -- in the loop ----------------------------------------------------------------------------------

    def _start(self, batch: _Batch) -> None:
        if self._channel is None:  # it broke this moment
            batch.is_decided = True
            return
        self._queued.append(batch)
        self._pump()

    def on_channel(self, channel: Channel, ready: Answer) -> None:
        self._last_tag = 0
        channel.add_on_return_callback(self._on_return)
        channel.confirm_delivery(self._on_confirm, callback=ready)

    def on_broken(self, error: BaseException) -> None:
        self.broken_by = error
        self.blocked_when_broken = self.blocked
        under_way, self._under_way = self._under_way, OrderedDict()
        queued, self._queued = self._queued, []
        self._returned.clear()
        for batch, place in under_way.values():
            batch.decide(place, Fate.UNKNOWN)
        for batch in [batch for batch, _ in under_way.values()] + queued:
            batch.is_decided = True

    def on_blocked_changed(self) -> None:
        self._pump()

    def _pump(self) -> None:
        """Send what may be sent now."""
        channel = self._channel
        if channel is None or not channel.is_open or self.blocked is not None:
            return
        if self._send_slice(channel):
            self.io.loop.add_callback(self._pump)
        self._flush()

    def _send_slice(self, channel: Channel) -> bool:
        """Send some, and say whether there may be more that may be sent."""
        for _ in range(_SLICE):
            if not self._queued or len(self._under_way) >= _WINDOW:
                return False
            batch = self._queued[0]
            exchange, routing_key, properties, body = batch.posts[batch.sent]
            batch.fates[batch.sent] = Fate.UNKNOWN
            # Before it is counted: where it can't be written, the tags of all that follows would be wrong.
            channel.connection.publish(channel, exchange, routing_key, properties, body)
            self._last_tag += 1
            self._under_way[self._last_tag] = (batch, batch.sent)
            batch.sent += 1
            if batch.sent == len(batch.posts):
                del self._queued[0]
        return True

    def _on_return(
        self, _channel: Channel, method: Basic.Return, properties: BasicProperties, _body: bytes
    ) -> None:
        self._returned[method.exchange, method.routing_key, properties.message_id] += 1

    def _on_confirm(self, frame: Any) -> None:
        confirm = frame.method
        fate = Fate.CONFIRMED if isinstance(confirm, Basic.Ack) else Fate.REFUSED
        if confirm.multiple:
            while self._under_way and next(iter(self._under_way)) <= confirm.delivery_tag:
                self._decide(self._under_way.popitem(last=False)[1], fate)
        elif (one := self._under_way.pop(confirm.delivery_tag, None)) is not None:
            self._decide(one, fate)
        if self._queued:
            self._pump()

    def _decide(self, one: tuple[_Batch, int], fate: Fate) -> None:
        batch, place = one
        if self._returned:
            post = batch.posts[place]
            address = (post.exchange, post.routing_key, post.properties.message_id)
            if self._returned[address]:
                self._returned[address] -= 1
                fate = Fate.UNROUTABLE
            self._returned += Counter()  # drops what is down to 0
        batch.decide(place, fate)

    def _give_up(self, batch: _Batch) -> None:
        def give_up() -> None:
            if batch in self._queued:
                self._queued.remove(batch)
            if batch.sent and batch.open:
                self._drop()  # which decides, once it is noticed
            else:
                batch.is_decided = True

        with suppress(LineClosed):
            self.io.run(give_up)
            self.io.wait(lambda: batch.is_decided, _DROP_S)
