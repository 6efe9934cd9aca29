"""Delays as queues whose messages all wait equally long, so that no message holds up the one behind it.

Level ``n`` is a queue in which every message waits 2ⁿ units of time. A delay is a sum of such powers, longest
first. A message is published to the queue of its first level, and a header names each hop: after level 5
comes level 3, after level 3 the work queue. The broker moves it, at least once, by the headers exchange of
each level. A message without such headers, which only a stranger can have put there, becomes a dead letter.
"""

from dataclasses import dataclass
from math import ceil
from typing import NamedTuple

from pika.channel import Channel

from ...domain.bounds import MAX_DELAY_S
from .topology import SPREAD, Arguments, Names
from .transport.publishing import declare_exchange

DELAY_UNIT_S = 0.25
LEVELS = ceil(MAX_DELAY_S / DELAY_UNIT_S).bit_length()
"""How many levels the longest delay needs. A level is made once a delay needs it, with all those below."""
_READY = "ready"
"""What a header says after the last level."""
_HIGHEST_NORMAL = 4
"""A quorum queue serves messages of a higher priority before the others."""


class Route(NamedTuple):
    """Where a delayed message enters the levels, and how it goes on."""

    level: int
    headers: dict[str, str]


def route(seconds: float) -> Route:
    """Return how to wait ``seconds``, more than 0, and up to one unit more (DLY-1, DLY-2)."""
    units = ceil(seconds / DELAY_UNIT_S)
    levels = [level for level in reversed(range(units.bit_length())) if units >> level & 1]
    then = [str(level) for level in levels[1:]] + [_READY]
    return Route(levels[0], {_after(level): hop for level, hop in zip(levels, then, strict=True)})


@dataclass(frozen=True, slots=True)
class DelayLevels:
    """The levels for messages that a quorum queue serves in one order.

    RabbitMQ moves a message that is due only once it would be served next. So messages of high priority have
    levels of their own, or they would hold up others that are due before them (DLY-3).
    """

    names: Names
    high: bool

    def level(self, number: int) -> str:
        """Return the name of a level's queue, and of its exchange."""
        return f"{self.names.work}:delay.{number}{'.high' if self.high else ''}"

    def arguments(self, number: int) -> Arguments:
        """Return the arguments of a level's queue."""
        return {
            "x-queue-type": "quorum",
            **SPREAD,
            "x-message-ttl": round(DELAY_UNIT_S * 1000) << number,
            "x-dead-letter-exchange": self.level(number),
            # The broker confirms each move only if a full queue refuses messages instead of dropping them.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }

    def hops(self, number: int) -> dict[str, Arguments]:
        """Return the queues that a level leads to, each with what a message's headers must say."""
        below = {self.level(lower): {_after(number): str(lower)} for lower in range(number)}
        return below | {self.names.work: {_after(number): _READY}}

    def declare(self, top: int, channel: Channel) -> None:
        """Declare the levels up to ``top``, lowest first, each with its hops before its queue."""
        stray = self.names.stray
        channel.exchange_declare(stray, "fanout", durable=True)
        channel.queue_bind(self.names.dead, stray, "")
        for number in range(top + 1):
            name = self.level(number)
            channel.exchange_declare(name, "headers", durable=True, arguments={"alternate-exchange": stray})
            for queue, headers in self.hops(number).items():
                channel.queue_bind(queue, name, "", arguments=headers)
            channel.queue_declare(name, durable=True, arguments=self.arguments(number))
        self.open(top, channel)

    def open(self, top: int, channel: Channel) -> None:
        """Let messages into the levels up to ``top``, which exist."""
        declare_exchange(channel, self.names.delays)
        for number in range(top + 1):
            channel.queue_bind(self.level(number), self.names.delays, self.level(number))

    def close(self, number: int, channel: Channel) -> None:
        """Let no message into a level from outside, before it is deleted.

        What is published to a quorum queue that is being deleted is refused, or closes the connection of its
        publisher (RabbitMQ 4.0.5). What isn't led there is returned.
        """
        name = self.level(number)
        declare_exchange(channel, self.names.delays)  # an older client made none
        channel.queue_unbind(name, self.names.delays, name)


def levels_of(names: Names, priority: int | None) -> DelayLevels:
    """Return the levels for messages that have this priority in RabbitMQ."""
    return DelayLevels(names, high=(priority or 0) > _HIGHEST_NORMAL)


def all_levels(names: Names) -> tuple[DelayLevels, DelayLevels]:
    """Return the levels of a queue for both kinds of priority."""
    return DelayLevels(names, high=False), DelayLevels(names, high=True)


def _after(level: int) -> str:
    return f"mindtrace-after-{level}"
