"""The line that queues are made, counted and removed by."""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from typing import Any, NamedTuple

from pika.channel import Channel

from ...domain import Queue, QueueKind
from ...domain.errors import QueueConflict, QueueNotFound
from .link import Differs, Link, Missing
from .topology import (
    DEAD_ARGUMENTS,
    LEVELS,
    LIFE_ARGUMENTS,
    Arguments,
    Names,
    conflict,
    ladder,
    work_arguments,
)
from .wire import Act, Answer, Line


@contextmanager
def naming_queue(queue: str) -> Iterator[None]:
    """Turn what the broker says of a missing queue into QueueNotFound."""
    try:
        yield
    except Missing as error:
        raise not_declared(queue) from error


def not_declared(queue: str) -> QueueNotFound:
    """The error for a queue that isn't there."""
    return QueueNotFound(f"queue {queue!r}: not declared; register its schema first")


class DeadCount(NamedTuple):
    """The dead letters of a queue at one moment, as its leader sees them.

    The broker gives back what a reader had in hand in the same step in which it forgets the reader, be its
    connection closed or broken; so the number is of all there are once nobody has any.
    """

    ready: int
    some_in_hand: bool


class Admin:
    """Queues and all that belongs to them; any thread may use it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._line = Line(link.heart, link.servers)
        self._heights: dict[str, int] = {}
        """How many levels a queue is known to have."""

    def declare(self, names: Names, queue: Queue) -> None:
        """Make a queue with its parts, the queue itself last."""

        def act(channel: Channel, answer: Answer) -> None:
            channel.queue_declare(names.dead, durable=True, arguments=DEAD_ARGUMENTS)
            channel.queue_declare(names.life, durable=True, arguments=LIFE_ARGUMENTS)
            channel.queue_declare(
                names.work, durable=True, arguments=work_arguments(queue.kind), callback=answer
            )

        try:
            self._ask(act)
        except Differs as error:
            raise QueueConflict(conflict(queue, str(error))) from error

    def kind_of(self, names: Names, known: QueueKind | None) -> QueueKind:
        """The kind of a queue that exists; ``known`` where this client has declared it."""
        self.count(names.work, names.queue)
        if known is not None:
            return known
        try:
            self._ask(partial(_declare, names.work, work_arguments(QueueKind.FIFO)))
        except Differs:
            return QueueKind.PRIORITY
        return QueueKind.FIFO

    def count(self, part: str, queue: str) -> int:
        """How many messages are ready in one part of ``queue``."""
        with naming_queue(queue):
            count: int = self._ask(partial(_count, part))
        return count

    def dead(self, names: Names) -> "DeadCount":
        """How many dead letters are in their place, and whether somebody has others in hand."""
        with naming_queue(names.queue):
            count: DeadCount = self._ask(partial(_count_dead, names.dead))
        return count

    def delayed(self, names: Names) -> int:
        """How many jobs wait for their time."""
        return sum(self._levels(names))

    def purge(self, names: Names) -> int:
        """Drop what is ready or delayed, and say how many."""
        self.count(names.work, names.queue)
        # From the top, so that what moves down meanwhile is met below.
        parts = [names.delay(level) for level in reversed(range(len(self._levels(names))))]
        with naming_queue(names.queue):
            return sum(self._ask(partial(_purge, part)) for part in (*parts, names.work))

    def delete(self, names: Names) -> None:
        """Remove a queue with all its parts."""
        self.count(names.work, names.queue)
        height = len(self._levels(names))

        def act(channel: Channel, answer: Answer) -> None:
            channel.queue_delete(names.work)
            for level in reversed(range(height)):
                channel.exchange_delete(names.delay(level))
                channel.queue_delete(names.delay(level))
            channel.exchange_delete(names.due)
            channel.queue_delete(names.dead)
            channel.queue_delete(names.life, callback=answer)

        self._ask(act)
        self._heights.pop(names.work, None)

    def make_ladder(self, names: Names, top: int) -> None:
        """Make the levels that a delay needs, where they aren't there yet.

        Raises:
            QueueNotFound: the queue doesn't exist.
        """
        if self._heights.get(names.work, 0) > top:
            try:
                self._ask(partial(_find_exchange, names.delay(top)))
                return
            except Missing:  # deleted by somebody else
                del self._heights[names.work]
        self.count(names.work, names.queue)
        self._ask(partial(_make_ladder, names, top))
        self._heights[names.work] = top + 1

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def _levels(self, names: Names) -> list[int]:
        """How many jobs wait in each level there is; without a gap, as each is made with those below."""
        counts: list[int] = []
        try:
            for level in range(LEVELS):
                counts.append(self._ask(partial(_count, names.delay(level))))
        except Missing:
            pass
        return counts

    def _ask(self, act: Act) -> Any:
        return self._link.persist(partial(self._line.ask, act))


def _count(part: str, channel: Channel, answer: Answer) -> None:
    channel.queue_declare(part, passive=True, callback=lambda frame: answer(frame.method.message_count))


def _count_dead(part: str, channel: Channel, answer: Answer) -> None:
    def counted(frame: Any) -> None:
        answer(DeadCount(frame.method.message_count, frame.method.consumer_count > 0))

    channel.queue_declare(part, passive=True, callback=counted)


def _purge(part: str, channel: Channel, answer: Answer) -> None:
    channel.queue_purge(part, callback=lambda frame: answer(frame.method.message_count))


def _declare(part: str, arguments: Arguments, channel: Channel, answer: Answer) -> None:
    channel.queue_declare(part, durable=True, arguments=arguments, callback=answer)


def _find_exchange(name: str, channel: Channel, answer: Answer) -> None:
    channel.exchange_declare(name, passive=True, callback=answer)


def _make_ladder(names: Names, top: int, channel: Channel, answer: Answer) -> None:
    """All at once: the broker does one after the other, and answers to the last."""
    channel.exchange_declare(names.due, "fanout", durable=True)
    channel.queue_bind(names.work, names.due, "")
    for level in ladder(names, top):
        channel.exchange_declare(level.name, "topic", durable=True)
        channel.queue_declare(level.name, durable=True, arguments=level.arguments)
        channel.queue_bind(level.name, level.name, level.wait_key)
        channel.exchange_bind(level.below, level.name, level.pass_key)
    channel.queue_declare(names.delay(top), passive=True, callback=answer)
