"""Administration of queues: declare, count, purge and delete."""

import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from functools import partial
from time import monotonic
from typing import Any

from pika.channel import Channel

from ...domain import Queue, QueueKind
from ...domain.errors import BackendUnavailable, JobsError, QueueConflict
from ...ports import QueueCounts
from .delays import LEVELS, DelayLevels, all_levels
from .topology import (
    ALIVE_ARGUMENTS,
    DEAD_ARGUMENTS,
    Arguments,
    Names,
    conflict,
    naming_queue,
    other_settings,
    work_arguments,
)
from .transport.broker import Broker
from .transport.errors import ConnectionBroken, Differs, Missing, Unreachable
from .transport.queue_requests import (
    QueueState,
    declare_exclusive,
    request_known_state,
    request_majority,
    request_queue_state,
)
from .transport.request import Action, Reply
from .transport.request_connection import RequestConnection


class Admin:
    """Queues and all that belongs to them; any thread may use it."""

    def __init__(self, broker: Broker) -> None:
        self._broker = broker
        self._connection = RequestConnection(broker)
        self._changing_levels = threading.Lock()

    def declare(self, names: Names, queue: Queue) -> None:
        """Make a queue with its parts, the work queue last."""

        def act(channel: Channel, reply: Reply) -> None:
            channel.queue_declare(names.dead, durable=True, arguments=DEAD_ARGUMENTS)
            channel.queue_declare(names.alive, durable=True, arguments=ALIVE_ARGUMENTS)
            _declare(names.work, work_arguments(names, queue.kind), channel, reply)

        try:
            self._request(act)
        except Differs as error:
            raise conflict(queue, str(error)) from error

    def require(self, names: Names) -> None:
        """Raise QueueNotFound if the queue doesn't exist."""
        with naming_queue(names.queue):
            self._request(partial(request_queue_state, names.work))

    def kind_of(self, names: Names) -> QueueKind:
        """Return the kind that an existing queue has now: another client may have made it anew.

        Raises:
            QueueConflict: it is of no kind of ours, perhaps of another release.
        """
        self.require(names)
        differences: list[Differs] = []
        for kind in (QueueKind.FIFO, QueueKind.PRIORITY):
            try:
                self._request(partial(_declare, names.work, work_arguments(names, kind)))
            except Differs as error:
                differences.append(error)
            else:
                return kind
        raise QueueConflict(other_settings(names.queue, " or ".join(map(str, differences))))

    def counts(self, names: Names) -> QueueCounts:
        """Count the messages of each part of a queue; RabbitMQ doesn't count what is in flight.

        Raises:
            BackendUnavailable: the leader of one of them doesn't answer, or most of the nodes are away.
        """

        def act(channel: Channel, reply: Reply) -> None:
            request_known_state(
                names.work,
                channel,
                lambda work: request_known_state(names.dead, channel, lambda dead: reply((work, dead))),
            )

        with naming_queue(names.queue):
            work, dead = self._request(act)
        delayed = sum(sum(self._count_levels(levels, self._request)) for levels in all_levels(names))
        self._require_majority(names)
        return QueueCounts(ready=work.ready, delayed=delayed, in_flight=None, dead=dead.ready)

    def dead(self, names: Names) -> QueueState:
        """Look at the dead letters that are in their place, and for readers that hold others.

        The broker gives back what a reader had in hand in the same step in which it forgets the reader, be
        its connection closed or broken; so the number is of all there are once there is no reader.
        """
        with naming_queue(names.queue):
            state: QueueState = self._request(partial(request_known_state, names.dead))
        self._require_majority(names)
        return state

    def purge(self, names: Names) -> int:
        """Drop what is ready or delayed, and return how many were counted.

        The delay levels are deleted, not purged: with a queue goes what the broker is moving out of it, which
        no purge reaches. From the top, so that what was moved before is met further down.
        """
        with self._levels_locked(names) as only, naming_queue(names.queue):
            delayed = self._delete_levels(
                names,
                lambda action: self._request(only(action)),
                lambda action: self._request_once(names, only(action)),
            )
            return delayed + int(self._request_once(names, partial(_purge, names.work)))

    def delete(self, names: Names) -> None:
        """Remove a queue with all its parts."""

        def act(channel: Channel, reply: Reply) -> None:
            channel.queue_delete(names.work)
            channel.exchange_delete(names.stray)
            channel.queue_delete(names.dead)
            channel.queue_delete(names.alive, callback=reply)

        def delete(request: Callable[[Action], Any]) -> None:
            self._delete_levels(names, request, request)
            request(act)

        self._change_levels(names, delete)

    def make_levels(self, levels: DelayLevels, top: int) -> None:
        """Make the delay levels up to ``top`` where they don't exist, and let messages into them.

        Raises:
            QueueNotFound: the queue doesn't exist.
        """

        def make(request: Callable[[Action], Any]) -> None:
            if len(self._count_levels(levels, request)) <= top:
                request(partial(_make_levels, levels, top))
            else:  # somebody was quicker, or closed them and died
                request(partial(_open_levels, levels, top))

        with naming_queue(levels.names.queue):
            self._change_levels(levels.names, make)

    def close(self) -> None:
        """Close the connection."""
        self._connection.close()

    def _require_majority(self, names: Names) -> None:
        """Raise BackendUnavailable if most nodes are away: those that are left say that all is empty."""
        with naming_queue(names.queue):
            self._request(partial(request_majority, names.alive))

    def _count_levels(self, levels: DelayLevels, request: Callable[[Action], Any]) -> list[int]:
        """Count the messages in each level that exists: there is no gap below the highest."""
        found: list[int] = []
        with suppress(Missing):
            request(partial(_count_levels, levels, found))
        return found

    def _delete_levels(
        self, names: Names, look: Callable[[Action], Any], request: Callable[[Action], Any]
    ) -> int:
        deleted = 0
        for levels in all_levels(names):
            for number in reversed(range(len(self._count_levels(levels, look)))):
                deleted += int(request(partial(_delete_level, levels, number)))
        return deleted

    def _change_levels(self, names: Names, change: Callable[[Callable[[Action], Any]], None]) -> None:
        """Change delay levels by requests that are made under the lock; where that is lost, begin anew."""
        give_up = monotonic() + self._broker.retry_timeout_s
        while True:
            try:
                with self._levels_locked(names) as only:
                    change(lambda action: self._request(only(action)))
                    return
            except _LockLost:
                if monotonic() >= give_up:
                    raise

    @contextmanager
    def _levels_locked(self, names: Names) -> Iterator[Callable[[Action], Action]]:
        """Let nobody else make or remove delay levels of a queue meanwhile, in this client or another.

        The lock ends with the connection. So what is returned makes an action refuse another one.

        Levels exist without a gap only if those who make them from the bottom and those who delete them from
        the top take turns. A gap would strand the jobs that have to pass it.
        """
        self.require(names)
        what = "another client is changing its delay queues and doesn't finish; try again"
        busy = f"queue {names.queue!r}: {what}"
        if not self._changing_levels.acquire(timeout=self._broker.retry_timeout_s):
            raise BackendUnavailable(busy)
        try:
            holder = self._broker.wait_for_lock(partial(self._request, partial(_lock, names.changing)), busy)
            try:
                yield partial(partial, _only_over, holder)
            finally:
                with suppress(JobsError):  # the lock ends with the connection, too
                    self._request(partial(_delete, names.changing))
        finally:
            self._changing_levels.release()

    def _request(self, action: Action) -> Any:
        return self._broker.retry(partial(self._connection.request, action))

    def _request_once(self, names: Names, action: Action) -> Any:
        """Make a request that drops jobs and says how many: made a second time, it would say none.

        Raises:
            BackendUnavailable: the connection broke before the answer.
        """

        def attempt(timeout_s: float) -> Any:
            try:
                return self._connection.request(action, timeout_s)
            except Unreachable:  # nothing was sent
                raise
            except ConnectionBroken as broken:
                self._broker.raise_refusal(broken)
                raise BackendUnavailable(
                    f"queue {names.queue!r}: the connection to RabbitMQ broke before it said how many jobs "
                    f"it dropped ({broken}); purge again to drop what may be left"
                ) from broken.cause

        return self._broker.retry(attempt)


class _LockLost(BackendUnavailable):
    """The connection that had the lock of the delay levels is gone."""


def _lock(queue: str, channel: Channel, reply: Reply) -> None:
    """Declare a lock, and reply with the connection that holds it."""
    declare_exclusive(queue, channel, lambda _frame: reply(channel.connection))


def _only_over(holder: object, action: Action, channel: Channel, reply: Reply) -> None:
    if channel.connection is not holder:
        raise _LockLost("the connection to RabbitMQ broke while delay queues were changed; try again")
    action(channel, reply)


def _declare(part: str, arguments: Arguments, channel: Channel, reply: Reply) -> None:
    channel.queue_declare(part, durable=True, arguments=arguments, callback=reply)


def _count_levels(levels: DelayLevels, found: list[int], channel: Channel, reply: Reply) -> None:
    """Count one level after the other into ``found``, until one doesn't exist, which closes the channel."""
    found.clear()

    def count_next() -> None:
        if len(found) == LEVELS:
            reply(None)
        else:
            request_known_state(levels.level(len(found)), channel, counted)

    def counted(state: QueueState) -> None:
        found.append(state.ready)
        count_next()

    count_next()


def _purge(part: str, channel: Channel, reply: Reply) -> None:
    channel.queue_purge(part, callback=lambda frame: reply(frame.method.message_count))


def _delete(part: str, channel: Channel, reply: Reply) -> None:
    channel.queue_delete(part, callback=lambda frame: reply(frame.method.message_count))


def _delete_level(levels: DelayLevels, number: int, channel: Channel, reply: Reply) -> None:
    """Delete a level's queue, then its exchange, by which its jobs go on; reply with how many it had."""
    level, deleted = levels.level(number), list[int]()
    levels.close(number, channel)
    _delete(level, channel, deleted.append)
    channel.exchange_delete(level, callback=lambda _frame: reply(deleted[0]))


def _make_levels(levels: DelayLevels, top: int, channel: Channel, reply: Reply) -> None:
    """Declare all at once: the broker does one after the other, and answers the last."""
    levels.declare(top, channel)
    channel.queue_declare(levels.level(top), passive=True, callback=reply)


def _open_levels(levels: DelayLevels, top: int, channel: Channel, reply: Reply) -> None:
    levels.open(top, channel)
    channel.queue_declare(levels.level(top), passive=True, callback=reply)
