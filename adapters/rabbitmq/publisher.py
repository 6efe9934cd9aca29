"""Publishing with confirms: many messages under way at once, and the fate of each."""

from collections import Counter, OrderedDict
from collections.abc import Sequence
from contextlib import suppress
from enum import Enum, auto
from typing import Any, NamedTuple

from pika import ConnectionParameters
from pika.channel import Channel
from pika.spec import Basic

from .frames import Properties
from .wire import Answer, Heart, Line, LineClosed, Pending, no_answer

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
    UNWRITABLE = auto()
    """It isn't what a message can be: its id is too long, say."""
    UNKNOWN = auto()
    """It was sent, and the line broke before the confirm."""


class _Batch:
    """Messages that one call wants sent."""

    def __init__(self, posts: Sequence[Post]) -> None:
        self.posts = posts
        self.fates = [Fate.UNSENT] * len(posts)
        self.sent = 0
        self.open = len(posts)
        self.is_begun = False
        self.decided = Pending()
        self.tell: Answer = self.decided.set

    def decide(self, place: int, fate: Fate) -> None:
        self.fates[place] = fate
        self.open -= 1
        if not self.open:
            self.end()

    def end(self) -> None:
        """Nothing more will be heard."""
        self.tell(None)


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

        def start(_channel: Channel, done: Answer) -> None:
            batch.is_begun, batch.tell = True, done
            self._queued.append(batch)
            self._pump()

        if self._is_answered(start, batch.decided, timeout_s):
            batch.decided.result()
            return batch.fates
        if self.io.closed and not batch.is_begun:
            raise LineClosed
        if not self._give_up(batch):
            return [Fate.UNKNOWN if fate is Fate.UNSENT else fate for fate in batch.fates]
        if not batch.is_begun:
            raise no_answer(timeout_s)
        return batch.fates

    # -- in the loop ----------------------------------------------------------------------------------

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
            batch.end()

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
            place, batch.sent = batch.sent, batch.sent + 1
            if batch.sent == len(batch.posts):
                del self._queued[0]
            batch.fates[place] = Fate.UNKNOWN
            try:
                channel.connection.publish(channel, *batch.posts[place])
            except Exception:  # nothing was written, so that this one has no tag
                batch.decide(place, Fate.UNWRITABLE)
                continue
            self._last_tag += 1
            self._under_way[self._last_tag] = (batch, place)
        return True

    def _on_return(
        self, _channel: Channel, method: Basic.Return, properties: Properties, _body: bytes
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

    def _give_up(self, batch: _Batch) -> bool:
        """Send no more of a batch, and say whether it is known what became of it."""

        def give_up() -> None:
            if batch in self._queued:
                self._queued.remove(batch)
            if not batch.is_begun or (batch.sent and batch.open):
                self._drop()
            if not batch.sent or not batch.open:
                batch.end()  # else the connection's end decides, once it is noticed

        with suppress(LineClosed):
            self.io.run(give_up)
            self.io.wait(lambda: batch.decided.is_over, _DROP_S)
        return batch.decided.is_over
