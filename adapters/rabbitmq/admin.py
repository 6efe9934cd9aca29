"""Administration of queues: declare, count, purge and delete."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic, sleep
from typing import Any, NamedTuple

from pika.channel import Channel

from ...domain import Queue, QueueKind
from ...domain.errors import BackendUnavailable, JobsError, QueueConflict, QueueNotFound
from .delays import LEVELS, Lane, lanes
from .link import Differs, Link, Locked, Missing
from .topology import (
    DEAD_ARGUMENTS,
    LIFE_ARGUMENTS,
    Arguments,
    Names,
    conflict,
    other_settings,
    work_arguments,
)
from .wire import Act, Answer, RequestLine

_LOCK_STEP_S = 0.05
"""The pause between two tries to get the lock of a queue's delay levels."""


@contextmanager
def naming_queue(queue: str) -> Iterator[None]:
    """Turn what the broker says of a missing queue into QueueNotFound."""
    try:
        yield
    except Missing as error:
        raise not_declared(queue) from error


def not_declared(queue: str) -> QueueNotFound:
    """Return the error for a queue that doesn't exist."""
    return QueueNotFound(f"queue {queue!r}: not declared; register its schema first")


class DeadCount(NamedTuple):
    """The dead letters of a queue at one moment, as its leader sees them.

    The broker gives back what a reader had in hand in the same step in which it forgets the reader, be its
    connection closed or broken; so the number is of all there are once nobody has any.
    """

    ready: int
    some_in_hand: bool


class PartCounts(NamedTuple):
    """How many messages are ready in the parts of a queue."""

    ready: int
    delayed: int
    dead: int


class Admin:
    """Queues and all that belongs to them; any thread may use it."""

    def __init__(self, link: Link) -> None:
        self._link = link
        self._line = RequestLine(link.heart, link.servers)
        self._changing_levels = threading.Lock()

    def declare(self, names: Names, queue: Queue) -> None:
        """Make a queue with its parts, the work queue last."""

        def act(channel: Channel, answer: Answer) -> None:
            channel.queue_declare(names.dead, durable=True, arguments=DEAD_ARGUMENTS)
            channel.queue_declare(names.life, durable=True, arguments=LIFE_ARGUMENTS)
            channel.queue_declare(
                names.work, durable=True, arguments=work_arguments(names, queue.kind), callback=answer
            )

        try:
            self._ask(act)
        except Differs as error:
            raise QueueConflict(conflict(queue, str(error))) from error

    def require(self, names: Names) -> None:
        """Raise QueueNotFound if the queue doesn't exist."""
        with naming_queue(names.queue):
            self._ask(partial(_count, names.work))

    def kind_of(self, names: Names) -> QueueKind:
        """Return the kind that an existing queue has now: another client may have made it anew.

        Raises:
            QueueConflict: it is of no kind of ours, perhaps of another release.
        """
        self.require(names)
        differences: list[Differs] = []
        for kind in (QueueKind.FIFO, QueueKind.PRIORITY):
            try:
                self._ask(partial(_declare, names.work, work_arguments(names, kind)))
            except Differs as error:
                differences.append(error)
            else:
                return kind
        raise QueueConflict(other_settings(names.queue, " or ".join(map(str, differences))))

    def counts(self, names: Names) -> PartCounts:
        """Count the messages of each part of a queue."""
        with naming_queue(names.queue):
            ready, dead = self._ask(partial(_count_each, names.work, names.dead))
        return PartCounts(ready, sum(sum(self._levels(lane)) for lane in lanes(names)), dead)

    def dead(self, names: Names) -> DeadCount:
        """Count the dead letters in their place, and tell whether a reader holds others."""
        with naming_queue(names.queue):
            count: DeadCount = self._ask(partial(_count_dead, names.dead))
        return count

    def purge(self, names: Names) -> int:
        """Drop what is ready or delayed, and return how many were counted.

        The delay levels are deleted, not purged: with a queue goes what the broker is moving out of it, which
        no purge reaches. From the top, so that what was moved before is met further down.
        """
        with self._levels_locked(names), naming_queue(names.queue):
            delayed = self._delete_levels(names)
            return delayed + int(self._ask(partial(_purge, names.work)))

    def delete(self, names: Names) -> None:
        """Remove a queue with all its parts."""

        def act(channel: Channel, answer: Answer) -> None:
            channel.queue_delete(names.work)
            channel.exchange_delete(names.stray)
            channel.queue_delete(names.dead)
            channel.queue_delete(names.life, callback=answer)

        with self._levels_locked(names):
            self._delete_levels(names)
            self._ask(act)

    def make_levels(self, lane: Lane, top: int) -> None:
        """Make the delay levels up to ``top`` where they don't exist.

        Raises:
            QueueNotFound: the queue doesn't exist.
        """
        with self._levels_locked(lane.names), naming_queue(lane.names.queue):
            if len(self._levels(lane)) <= top:  # nobody was quicker
                self._ask(partial(_make_levels, lane, top))

    def close(self) -> None:
        """Close the connection."""
        self._line.close()

    def _levels(self, lane: Lane) -> list[int]:
        """Count the messages in each level that exists: there is no gap below the highest."""
        found: list[int] = []
        with suppress(Missing):
            self._ask(partial(_count_levels, lane, found))
        return found

    def _delete_levels(self, names: Names) -> int:
        deleted = 0
        for lane in lanes(names):
            for number in reversed(range(len(self._levels(lane)))):
                deleted += int(self._ask(partial(_delete_level, lane.level(number))))
        return deleted

    @contextmanager
    def _levels_locked(self, names: Names) -> Iterator[None]:
        """Let nobody else make or remove delay levels of a queue meanwhile, in this client or another.

        Levels exist without a gap only if those who make them from the bottom and those who delete them from
        the top take turns. A gap would strand the jobs that have to pass it.
        """
        self.require(names)
        give_up = monotonic() + self._link.retry_timeout_s
        if not self._changing_levels.acquire(timeout=self._link.retry_timeout_s):
            raise _busy(names)
        try:
            while not self._lock(names):
                if monotonic() >= give_up:
                    raise _busy(names)
                sleep(_LOCK_STEP_S)
            try:
                yield
            finally:
                with suppress(JobsError):  # the lock ends with the connection, too
                    self._ask(partial(_delete, names.changing))
        finally:
            self._changing_levels.release()

    def _lock(self, names: Names) -> bool:
        try:
            self._ask(partial(_declare_lock, names.changing))
        except Locked:
            return False
        return True

    def _ask(self, act: Act) -> Any:
        return self._link.persist(partial(self._line.ask, act))


def _busy(names: Names) -> BackendUnavailable:
    return BackendUnavailable(
        f"queue {names.queue!r}: another client is changing its delay queues and doesn't finish; try again"
    )


def _count(part: str, channel: Channel, answer: Answer) -> None:
    channel.queue_declare(part, passive=True, callback=lambda frame: answer(frame.method.message_count))


def _count_each(first: str, second: str, channel: Channel, answer: Answer) -> None:
    def counted(frame: Any) -> None:
        _count(second, channel, lambda count: answer((frame.method.message_count, count)))

    channel.queue_declare(first, passive=True, callback=counted)


def _count_levels(lane: Lane, found: list[int], channel: Channel, answer: Answer) -> None:
    """Count one level after the other into ``found``, until one doesn't exist, which closes the channel."""
    found.clear()

    def count_next() -> None:
        if len(found) == LEVELS:
            answer(None)
        else:
            channel.queue_declare(lane.level(len(found)), passive=True, callback=counted)

    def counted(frame: Any) -> None:
        found.append(frame.method.message_count)
        count_next()

    count_next()


def _count_dead(part: str, channel: Channel, answer: Answer) -> None:
    def counted(frame: Any) -> None:
        answer(DeadCount(frame.method.message_count, frame.method.consumer_count > 0))

    channel.queue_declare(part, passive=True, callback=counted)


def _purge(part: str, channel: Channel, answer: Answer) -> None:
    channel.queue_purge(part, callback=lambda frame: answer(frame.method.message_count))


def _delete(part: str, channel: Channel, answer: Answer) -> None:
    channel.queue_delete(part, callback=lambda frame: answer(frame.method.message_count))


def _delete_level(level: str, channel: Channel, answer: Answer) -> None:
    _delete(level, channel, answer)
    channel.exchange_delete(level)


def _declare(part: str, arguments: Arguments, channel: Channel, answer: Answer) -> None:
    channel.queue_declare(part, durable=True, arguments=arguments, callback=answer)


def _declare_lock(name: str, channel: Channel, answer: Answer) -> None:
    channel.queue_declare(name, exclusive=True, auto_delete=True, callback=answer)


def _make_levels(lane: Lane, top: int, channel: Channel, answer: Answer) -> None:
    """Declare all at once: the broker does one after the other, and answers the last."""
    lane.declare(top, channel)
    channel.queue_declare(lane.level(top), passive=True, callback=answer)
