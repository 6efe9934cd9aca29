"""The connection that jobs come in by, and are acknowledged on."""

import secrets
from collections import OrderedDict, deque
from collections.abc import Sequence
from dataclasses import dataclass
from functools import partial
from typing import NamedTuple

from pika.channel import Channel
from pika.exceptions import ConnectionWrongStateError

from ....ports.signal_errors import raised_by_handler
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
_SEVERAL = 2
"""So many subscriptions are cancelled one after the other, and settlements may overtake that."""
_NEGLIGIBLE = 16
"""A consumer may lack one in so many of the jobs that its limit allows, for a while."""


@dataclass(slots=True)
class Subscription:
    """A standing order for as many unsettled jobs as its prefetch says."""

    tag: str
    prefetch: int
    unsettled: int = 0
    is_active: bool = True
    """Whether the broker sends anything by it; False once it is cancelled."""

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
    others' reach, with a consumer that is busy; but where credit stands: for the second half of a large hand,
    and for a consumer of many jobs at once.
    """

    def __init__(self, broker: Broker, names: Names) -> None:
        super().__init__(broker)
        self._names = names
        self._unsettled: OrderedDict[int, Subscription] = OrderedDict()
        """By delivery tag, in the order of delivery."""
        self._subscriptions: list[Subscription] = []
        """Those that are active: one, or several that add up where credit stands."""
        self.standing = 0
        """At how many unsettled jobs the broker keeps the consumer, by sending one for each that is settled;
        0 where each is asked for."""
        self.arrivals: deque[Arrival] = deque()
        self.depth = 0
        """How many jobs were ready when they were last counted, less those that came since."""
        self.generation = 0
        """Which channel this is: what came on an earlier one is lost."""

    @property
    def prefetch(self) -> int:
        """How many unsettled jobs of the active subscriptions the broker allows."""
        return sum(active.prefetch for active in self._subscriptions)

    @property
    def credit(self) -> int:
        """How many jobs may still come."""
        return sum(active.credit for active in self._subscriptions)

    @property
    def missing(self) -> int:
        """How many more must be let come, so that the broker keeps the consumer at ``standing`` jobs."""
        prefetch = self.prefetch
        of_cancelled = len(self._unsettled) - (prefetch - self.credit)
        missing = self.standing - prefetch - of_cancelled
        # Jobs of a cancelled subscription make no room when they are settled. So that there won't be as many
        # subscriptions as such jobs, a few may be missing until all of those are settled.
        return missing if missing > (prefetch // _NEGLIGIBLE if of_cancelled else 0) else 0

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

    def stand(self, jobs: int, channel: Channel, reply: Reply) -> None:
        """Have the broker keep the consumer at so many unsettled jobs, and reply once it knows."""
        self.standing = jobs
        if missing := self.missing:
            self._subscribe(channel, missing, reply)
        else:
            reply(None)

    def cancel(self, channel: Channel, reply: Reply) -> None:
        """Let nothing more come, and reply once the broker knows."""
        self.standing = 0
        self._cancel_all(channel, reply)

    def settle(
        self, acks: Sequence[Arrival], returns: Sequence[Arrival], more: int | None, *, enough: int
    ) -> bool:
        """Acknowledge ``acks``, have ``returns`` delivered again, and let ``more`` further jobs come.

        Args:
            acks: Jobs that are done.
            returns: Jobs that aren't.
            more: None leaves that as it is: no more than were to come, or as many as keep ``standing``.
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
                if raised_by_handler(error):
                    raise
                faults.append(error)

        def over() -> bool:
            return len(self.arrivals) >= enough or self.generation != generation or bool(faults)

        self.loop.wait(over, _MOMENT_S, first=say)
        if faults:
            raise ConnectionBroken(faults[0])
        return 0 < enough <= len(self.arrivals)

    def _say(self, acks: Sequence[Arrival], returns: Sequence[Arrival], more: int | None) -> None:
        channel = self._channel
        freed = 0
        for settled in (acks, returns):
            for arrival in settled:
                if arrival.generation != self.generation:
                    raise ConnectionWrongStateError("the channel that they came by is gone")
                freed += arrival.subscription.is_active
        if channel is None:
            raise ConnectionWrongStateError("there is no channel")
        if more is not None or not self.standing:
            self._align(channel, self.credit if more is None else more, freed)
        self._acknowledge(channel, acks)
        for arrival in returns:
            channel.connection.give_back(channel, arrival.tag)
            del self._unsettled[arrival.tag]
        self._flush()
        for settled in (acks, returns):
            for arrival in settled:
                arrival.subscription.unsettled -= 1
        if self.standing and (missing := self.missing):
            self._subscribe(channel, missing)
            self._flush()

    def _align(self, channel: Channel, more: int, freed: int, reply: Reply = _ignore) -> bool:
        """Make the broker's credit ``more``; return whether that took a word, the last of which replies."""
        if self.credit + freed == more and len(self._subscriptions) < _SEVERAL:
            return False
        self._cancel_all(channel, _ignore if more else reply)
        self.standing = 0
        if more:
            self._subscribe(channel, more, reply)
        return True

    def _subscribe(self, channel: Channel, prefetch: int, reply: Reply = _ignore) -> None:
        subscription = Subscription(f"jobs-{secrets.token_hex(4)}", prefetch)
        self._subscriptions.append(subscription)
        on_delivery = partial(self._on_arrival, subscription)
        channel.connection.consume(channel, self._names.work, subscription.tag, prefetch, on_delivery, reply)

    def _cancel_all(self, channel: Channel, reply: Reply = _ignore) -> None:
        """Cancel all subscriptions, and reply once the broker knows of each.

        One after the other: pika takes an answer for that to all.
        """
        cancelled, self._subscriptions = self._subscriptions, []
        for subscription in cancelled:
            subscription.is_active = False

        def cancel_next(_frame: object = None) -> None:
            if cancelled:
                channel.connection.cancel(channel, cancelled.pop().tag, cancel_next)
            else:
                reply(None)

        cancel_next()

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
        channel.basic_consume(self._names.alive, lambda *_: None, callback=ready)

    def on_channel_lost(self, error: BaseException) -> None:
        self._lose_all()

    def _lose_all(self) -> None:
        self.generation += 1
        self._subscriptions.clear()
        self.standing = self.depth = 0
        self._unsettled.clear()
        self.arrivals.clear()

    def _on_deleted(self, channel: Channel) -> None:
        """Lose the jobs of the deleted queue. The next request for its state tells whether it exists now."""
        self._lose_all()  # at once, or a successor could be taken for the queue until the channel is closed
        channel.connection.forget_channel()  # what is under way belongs to nobody
        # To close the channel waits for its answers, and so for the next turn of a loop that may be idle.
        # Until then a subscription that was on its way by now would get jobs of the successor.
        channel.connection.drop()

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
