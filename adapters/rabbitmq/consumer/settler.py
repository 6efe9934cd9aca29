"""Settling: publish what takes the place of jobs, then have the broker forget these."""

import logging
from collections.abc import Sequence
from typing import NamedTuple, Protocol

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
_NOBODYS = -1
"""The place of a job that nobody was given, in a call that settles others."""
_MOVED_AT_ONCE = 30
"""How many jobs are put back in one step. When a channel ends, a quorum queue carries out 32 acknowledgements
that are under way and drops the rest: those jobs would be there twice."""


class MessagePublisher(Protocol):
    """What a settler needs of the client's publisher."""

    def offer(self, names: Names, messages: Sequence[Outgoing]) -> None:
        """Publish messages that can be offered again; return at once where the broker takes none."""
        ...

    @property
    def is_blocked(self) -> bool:
        """Whether the broker is known to take no messages at present."""
        ...


class Answer(NamedTuple):
    """What became of settlements, each given by its place."""

    lost: list[int]
    deferred: list[int]
    """Of jobs that can't be put elsewhere at present: they are held still."""
    ready: int | None
    """How many jobs arrived or are ready; None where the broker wasn't heard."""


class Settler:
    """Settles the jobs of one consumer.

    Args:
        broker: What connections share.
        names: The names of the queue's parts.
        channel: The channel that the jobs came by.
        credit: What the broker may send meanwhile.
        publisher: Publishes what takes the places of jobs, over a connection of its own: the broker reads
            nothing from a connection that has published while it takes no messages.
        logger: Gets a warning where jobs couldn't be put elsewhere.
    """

    def __init__(
        self,
        broker: Broker,
        names: Names,
        channel: ConsumerChannel,
        credit: Credit,
        publisher: MessagePublisher,
        logger: logging.Logger,
    ) -> None:
        self._timeout_s = broker.retry_timeout_s
        self._names = names
        self._channel = channel
        self._credit = credit
        self._publisher = publisher
        self._logger = logger
        self._is_told = False
        self._returning: list[tuple[Arrival, Outgoing]] = []
        """Jobs that are nobody's, with the messages that will take their places."""

    @property
    def returning(self) -> int:
        """How many jobs that are nobody's wait to be put back; any call of :meth:`settle` tries again."""
        return len(self._returning)

    @property
    def can_publish(self) -> bool:
        """Whether the broker takes messages, as far as is known."""
        return not self._publisher.is_blocked

    def settle(
        self,
        acks: list[Placed],
        republished: list[Placed],
        messages: list[Outgoing],
        take: int,
        returned: Sequence[Placed] = (),
    ) -> Answer:
        """Put jobs elsewhere, and acknowledge them once the broker has confirmed that.

        In that order a death in between leaves a job twice, and never loses it. While the broker takes no
        messages, the jobs stay here, unacknowledged: to have one delivered again would count as a crash.

        Args:
            acks: Jobs that are done.
            republished: Jobs to put elsewhere.
            messages: What takes their places. One that was given before, and whose job was deferred, isn't
                published again while the broker may still confirm it.
            take: How many further jobs the broker may send.
            returned: Jobs to be delivered again, as how they were to end can't be done.
        """
        done = list(acks)
        returns = [arrival for _, arrival in returned]
        lost = [place for place, _ in returned]
        deferred: list[int] = []
        moves = list(zip(republished, messages, strict=True))
        if self._returning:
            returning, self._returning = self._returning, []
            moves += [
                ((_NOBODYS, arrival), message) for arrival, message in returning if self._holds(arrival)
            ]
        if moves:
            if not self.is_alive(moves[0][0][1].generation):
                return Answer([*lost, *(place for place, _ in (*acks, *republished))], [], None)
            self._publish([message for _, message in moves])
            for (place, arrival), message in moves:
                if message.state is SendState.CONFIRMED:
                    done.append((place, arrival))
                elif message.state is not SendState.UNDER_WAY and not _is_to_publish(message):
                    returns.append(arrival)
                    lost.append(place)
                elif place == _NOBODYS:
                    self._returning.append((arrival, message))
                else:
                    deferred.append(place)
        ready = None
        if done or returns or take:
            ready = self._acknowledge([arrival for _, arrival in done], returns, take)
            if ready is None:
                lost += [place for place, _ in done]
        return Answer([place for place in lost if place != _NOBODYS], deferred, ready)

    def put_back(self, jobs: Sequence[Arrival], messages: Sequence[Outgoing]) -> None:
        """Put messages in the places of jobs that nobody will settle; at once, or with later calls.

        The queue has one log. So when the messages of a step are confirmed, the acknowledgements of the step
        before are carried out.
        """
        for start in range(0, len(jobs), _MOVED_AT_ONCE):
            end = start + _MOVED_AT_ONCE
            step, written = jobs[start:end], list(messages[start:end])
            lost, deferred, _ = self.settle([], list(enumerate(step)), written, 0)
            self._returning += [(step[place], written[place]) for place in deferred]
            if lost or deferred:  # the next step would fare no better, and take as long
                self._returning += zip(jobs[end:], messages[end:], strict=True)
                return

    def put_back_later(self, job: Arrival, message: Outgoing) -> None:
        """Put a message that was offered before in the place of a job, with later calls."""
        self._returning.append((job, message))

    def give_up(self) -> None:
        """Have the jobs delivered again that couldn't be put back: the broker counts that as a crash."""
        returning, self._returning = self._returning, []
        here = [(arrival, message) for arrival, message in returning if self._holds(arrival)]
        there = [(_NOBODYS, arrival) for arrival, message in here if message.state is SendState.CONFIRMED]
        rest = [(_NOBODYS, arrival) for arrival, message in here if message.state is not SendState.CONFIRMED]
        self.settle(there, [], [], 0, rest)

    def _holds(self, arrival: Arrival) -> bool:
        return arrival.generation == self._channel.generation

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
        """Publish what takes the place of jobs, unless it is under way; warn where some of it can't be.

        The first time in a row: a job may be tried twice a second.
        """
        unsent = [message for message in messages if _is_to_publish(message)]
        if not unsent:
            return
        for message in unsent:
            message.state = SendState.UNSENT
        try:
            self._publisher.offer(self._names, unsent)
        except JobsError as error:
            for message in unsent:
                message.state, message.error = SendState.UNSENT, error
        failures = [message for message in unsent if message.state is not SendState.CONFIRMED]
        if failures:
            self._logger.log(
                logging.DEBUG if self._is_told else logging.WARNING,
                "couldn't move %s, which may be tried again: %s",
                quantity(len(failures), "job"),
                failures[0].error,
            )
        self._is_told = bool(failures)

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


def _is_to_publish(message: Outgoing) -> bool:
    """Return whether a message may not be in its queue, nor on its way there, and can be published."""
    if message.state is SendState.UNROUTABLE:
        return message.delay_s > 0  # its delay level doesn't exist, and is made
    return message.state in (SendState.UNSENT, SendState.REFUSED, SendState.UNKNOWN)
