"""Settling: publish what takes the place of jobs, then have the broker forget these."""

from collections.abc import Callable, Sequence
from logging import Logger

from ....domain.errors import JobsError
from ....domain.wording import quantity
from ..topology import Names
from ..transport.broker import Broker
from ..transport.errors import ClosedByClient, ConnectionBroken
from ..transport.publishing import Outgoing, SendState
from .channel import Arrival, ConsumerChannel
from .credit import Credit

Placed = tuple[int, Arrival]
"""An arrival, and the place of its settlement."""


class Settler:
    """Settles the jobs of one consumer.

    Args:
        broker: What connections share.
        names: The names of the queue's parts.
        channel: The channel that the jobs came by.
        credit: What the broker may send meanwhile.
        send: Publishes messages to parts of a queue, as :meth:`Publisher.send`.
        logger: Gets a warning where jobs couldn't be put elsewhere.
    """

    def __init__(
        self,
        broker: Broker,
        names: Names,
        channel: ConsumerChannel,
        credit: Credit,
        send: Callable[[Names, Sequence[Outgoing]], None],
        logger: Logger,
    ) -> None:
        self._timeout_s = broker.retry_timeout_s
        self._names = names
        self._channel = channel
        self._credit = credit
        self._send = send
        self._logger = logger

    def settle(
        self,
        acks: list[Placed],
        republished: list[Placed],
        messages: list[Outgoing],
        take: int,
        returned: Sequence[Placed] = (),
    ) -> tuple[list[int], int | None]:
        """Put jobs elsewhere, and acknowledge them once the broker has confirmed that.

        In that order a death in between leaves a job twice, and never loses it.

        Args:
            acks: Jobs that are done.
            republished: Jobs to put elsewhere.
            messages: What takes their places.
            take: How many further jobs the broker may send.
            returned: Jobs to be delivered again, as how they were to end can't be done.

        Returns:
            The places of what was lost, and how many jobs are ready; None where the broker wasn't heard.
        """
        done = list(acks)
        returns = [arrival for _, arrival in returned]
        lost = [place for place, _ in returned]
        if republished:
            if not self.is_alive(republished[0][1].generation):
                return [*lost, *(place for place, _ in (*acks, *republished))], None
            self._publish(messages)
            for (place, arrival), message in zip(republished, messages, strict=True):
                if message.state is SendState.CONFIRMED:
                    done.append((place, arrival))
                else:
                    returns.append(arrival)
                    lost.append(place)
        if not done and not returns and not take:
            return lost, None
        ready = self._acknowledge([arrival for _, arrival in done], returns, take)
        return lost if ready is not None else [*lost, *(place for place, _ in done)], ready

    def _acknowledge(self, done: list[Arrival], returns: list[Arrival], take: int) -> int | None:
        """Have the broker forget what is done, deliver ``returns`` again, and send up to ``take`` jobs.

        Returns:
            How many jobs arrived or are ready; None where the broker wasn't heard.
        """
        channel = self._channel
        settles = done or returns
        # Taken from the jobs: the connection that they came by may have broken, and be another by now.
        generation = settles[0].generation if settles else channel.generation
        more, enough = self._credit.after_settling(take)
        try:
            if (settles or channel.is_open) and channel.settle(done, returns, more, enough=enough):
                return take
            ready: int = channel.request(channel.count, self._timeout_s)
        except (ConnectionBroken, ClosedByClient) as broken:
            self._logger.debug("settlements lost: %s", broken)
            return None
        # On another channel the answer tells nothing of what was said on this one.
        return ready if channel.generation == generation else None

    def _publish(self, messages: list[Outgoing]) -> None:
        """Publish what takes the place of jobs; log why some of it couldn't be."""
        try:
            self._send(self._names, messages)
        except JobsError as error:
            for message in messages:
                message.state, message.error = SendState.UNSENT, error
        failures = [message for message in messages if message.state is not SendState.CONFIRMED]
        if failures:
            self._logger.warning(
                "couldn't move %s, to be delivered again: %s",
                quantity(len(failures), "job"),
                failures[0].error,
            )

    def is_alive(self, generation: int) -> bool:
        """Return whether what came in this generation is still held, and its queue exists."""
        channel = self._channel
        if not channel.is_open:
            return False
        try:
            channel.request(channel.count, self._timeout_s)
        except (ConnectionBroken, ClosedByClient):
            return False
        return channel.generation == generation
