"""The connection that jobs come in by, and are acknowledged on."""

import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pika.channel import Channel
from pika.exceptions import ConnectionWrongStateError

from ..message import DeliveryHistory, history_of, id_of
from ..topology import Names
from ..transport.broker import Broker
from ..transport.connection import Connection
from ..transport.errors import ConnectionBroken
from ..transport.frames import Properties
from ..transport.queue_requests import QueueState, request_queue_state
from ..transport.request import Reply

_MOMENT_S = 0.005
"""How long to let jobs come before asking how many are ready."""


@dataclass(slots=True)
class Subscription:
    """A standing order for as many unsettled jobs as its prefetch says."""

    tag: str
    prefetch: int
    unsettled: int = 0

    @property
    def credit(self) -> int:
        """How many more the broker may send."""
        return self.prefetch - self.unsettled


class Arrival(NamedTuple):
    """A job as it came."""

    subscription: Subscription
    generation: int
    tag: int
    redelivered: bool
    rank: int | None
    """The priority that the broker has for it."""
    body: bytes
    id: str
    history: DeliveryHistory
    """What happened to the job before this delivery."""
    fault: str
    """Why its properties can't be read: then nobody runs it. Empty where they can."""


def _ignore(_frame: object) -> None:
    pass


class ConsumerChannel(Connection):
    """The connection that jobs come in by, and are acknowledged on.

    The broker pushes, and a consumer asks. So the broker gets credit for what was asked for and no more: a
    subscription's prefetch is how many unsettled jobs the consumer wants of it, and where the consumer wants
    less than the credit that is left, the subscription is cancelled. Hence no job waits, uncounted and out of
    others' reach, with a consumer that is busy; but for the second half of a large hand, where credit stands.
    """

    def __init__(self, broker: Broker, names: Names) -> None:
        super().__init__(broker)
        self._names = names
        self._unsettled: OrderedDict[int, Subscription] = OrderedDict()
        """By delivery tag, in the order of delivery."""
        self._subscription: Subscription | None = None
        self.standing = 0
        """At how many unsettled jobs the broker keeps the consumer, by sending one for each that is settled;
        0 where each is asked for."""
        self.arrivals: deque[Arrival] = deque()
        self.depth = 0
        """How many jobs were ready when they were last counted, less those that came since."""
        self.generation = 0
        """Which channel this is: what came on an earlier one is lost."""
        self.queue_deleted = False
        """Whether the broker told of the queue's deletion since somebody looked."""

    @property
    def prefetch(self) -> int:
        """How many unsettled jobs of the present subscription the broker allows."""
        return self._subscription.prefetch if self._subscription is not None else 0

    @property
    def credit(self) -> int:
        """How many jobs may still come."""
        return self._subscription.credit if self._subscription is not None else 0

    # -- what a consumer asks, in the loop ------------------------------------------------------------

    def count(self, channel: Channel, reply: Reply) -> None:
        """Reply with how many jobs arrived or are ready: proof as well that channel and queue live."""

        def counted(state: QueueState) -> None:
            self.depth = state.ready
            reply(len(self.arrivals) + self.depth)

        request_queue_state(self._names.work, channel, counted)

    def set_credit(self, more: int, channel: Channel, reply: Reply) -> None:
        """Let ``more`` jobs come, each for having been asked for, and reply once the broker knows."""
        self.standing = 0
        if not self._align(channel, more, freed=0, reply=reply):
            reply(None)

    def settle(
        self, acks: Sequence[Arrival], returns: Sequence[Arrival], more: int | None, *, enough: int
    ) -> bool:
        """Acknowledge ``acks``, have ``returns`` delivered again, and let ``more`` further jobs come.

        Args:
            acks: Jobs that are done.
            returns: Jobs that aren't.
            more: None leaves that as it is: no more than were to come, or as many as are settled.
            enough: Wait a moment for so many jobs to be here, some of them new; 0 waits for nothing.

        Returns:
            Whether they are: then the broker has heard all this, and needn't be asked.

        Raises:
            ConnectionBroken: the channel that the jobs came by is gone.
            ClosedByClient: the connection is closed.
        """
        faults: list[Exception] = []
        generation = self.generation

        def say() -> None:
            try:
                self._say(acks, returns, more)
            except Exception as error:  # a channel that is closing, mostly
                faults.append(error)

        def over() -> bool:
            return len(self.arrivals) >= enough or self.generation != generation or bool(faults)

        self.loop.wait(over, _MOMENT_S, first=say)
        if faults:
            raise ConnectionBroken(faults[0])
        return 0 < enough <= len(self.arrivals)

    def _say(self, acks: Sequence[Arrival], returns: Sequence[Arrival], more: int | None) -> None:
        channel, present = self._channel, self._subscription
        freed = 0
        for settled in (acks, returns):
            for arrival in settled:
                if arrival.generation != self.generation:
                    raise ConnectionWrongStateError("the channel that they came by is gone")
                freed += arrival.subscription is present
        if more is None:
            more = present.credit + (freed if self.standing else 0) if present else 0
        if channel is None:
            raise ConnectionWrongStateError("there is no channel")
        self._align(channel, more, freed)
        self._acknowledge(channel, acks)
        for arrival in returns:
            channel.connection.give_back(channel, arrival.tag)
            del self._unsettled[arrival.tag]
        self._flush()
        for settled in (acks, returns):
            for arrival in settled:
                arrival.subscription.unsettled -= 1

    def _align(self, channel: Channel, more: int, freed: int, reply: Reply = _ignore) -> bool:
        """Make the broker's credit ``more``; return whether that took a word, the last of which replies."""
        present = self._subscription
        if (present.credit + freed if present else 0) == more:
            return False
        if present is not None:
            channel.connection.cancel(channel, present.tag, _ignore if more else reply)
            self._subscription = None
            self.standing = 0
        if more:
            self._subscription = subscription = Subscription(f"jobs-{secrets.token_hex(4)}", more)
            on_delivery = partial(self._on_arrival, subscription)
            channel.connection.consume(channel, self._names.work, subscription.tag, more, on_delivery, reply)
        return True

    def _acknowledge(self, channel: Channel, acks: Sequence[Arrival]) -> None:
        """One word for all up to the first that isn't acknowledged; one for each of the rest."""
        acknowledge = channel.connection.acknowledge
        tags = {arrival.tag for arrival in acks}
        last = 0
        while tags and (first := next(iter(self._unsettled))) in tags:
            del self._unsettled[first]
            tags.discard(first)
            last = first
        if last:
            acknowledge(channel, last, multiple=True)
        for tag in sorted(tags):
            del self._unsettled[tag]
            acknowledge(channel, tag)

    # -- what the broker says -------------------------------------------------------------------------

    def on_channel(self, channel: Channel, ready: Reply) -> None:
        channel.add_on_cancel_callback(lambda _frame: self._on_deleted(channel))
        channel.basic_consume(self._names.life, lambda *_: None, callback=ready)

    def on_channel_lost(self, error: BaseException) -> None:
        self._lose_all()

    def _lose_all(self) -> None:
        self.generation += 1
        self._subscription = None
        self.standing = self.depth = 0
        self._unsettled.clear()
        self.arrivals.clear()

    def _on_deleted(self, channel: Channel) -> None:
        self.queue_deleted = True
        self._lose_all()  # at once, or a successor could be taken for the queue until the channel is closed
        channel.connection.forget_consumers()  # what is under way belongs to nobody
        with suppress(Exception):  # it is closing already
            channel.close()

    def _on_arrival(
        self,
        subscription: Subscription,
        tag: int,
        redelivered: bool,
        properties: Properties,
        body: bytes,
    ) -> None:
        self._unsettled[tag] = subscription
        subscription.unsettled += 1
        self.depth -= 1
        # All that takes time is done here, while more is on its way.
        id_, history = id_of(properties), history_of(properties)
        self.arrivals.append(
            Arrival(
                subscription,
                self.generation,
                tag,
                redelivered,
                properties.priority,
                body,
                id_,
                history,
                properties.fault,
            )
        )
