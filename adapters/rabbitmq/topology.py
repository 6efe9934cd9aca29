"""The names and arguments of the queues that make up one job queue in RabbitMQ.

``mtj:{namespace}/{queue}`` is the work queue: jobs that are ready and, unacknowledged, in flight. Beside it:

====================  =======================================================================================
``…:dead``            the dead letters
``…:alive``           nothing, ever: consumers subscribe to it, so that the broker tells them of its deletion
``…:delay.0``, …      jobs that wait, and exchanges of the same names by which they go on: see ``delays.py``
``…:stray``           the exchange that leads what left a delay queue without a way on to the dead letters
``…:changing``        exclusive: the lock of the client that makes or removes delay queues
``…:reading``         exclusive: the lock of the client that reads the dead letters
====================  =======================================================================================

``mtj:{namespace}/:delays`` is the exchange by which delayed jobs get to the delay queues of all job queues.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from functools import lru_cache
from typing import Any

from ...domain import Queue, QueueKind
from ...domain.bounds import MAX_PRIORITY
from ...domain.errors import QueueConflict
from ..shared.error_messages import kind_conflict, not_declared
from .transport.errors import Missing

Arguments = dict[str, Any]

ENDLESS = 1_000_000
"""The broker's own delivery limit. The crash budget is ours; but without any limit the broker would put what
comes back at the end of the queue."""
_CONSUMER_TIMEOUT_MS = 366 * 86_400_000
"""How long a job may run before the broker takes it back; its own default is half an hour."""
REFUSE_WHEN_FULL: Arguments = {"x-overflow": "reject-publish"}
"""Under a policy's max-length the broker would drop the oldest message, which was confirmed."""
SPREAD: Arguments = {"x-queue-leader-locator": "balanced"}
"""Not on the node that is asked: it is the first of ``hosts`` for all clients, and would lead all queues."""
QUEUE_TYPES = {QueueKind.FIFO: "quorum", QueueKind.PRIORITY: "classic"}
_RETURNED = 9
"""In a quorum queue of RabbitMQ 4.0, messages of priority 5 and more are served two to one."""


def namespace_prefix(namespace: str) -> str:
    """What the names of all queues of a namespace begin with."""
    return f"mtj:{namespace}/"


class Names:
    """The names of one queue's parts."""

    def __init__(self, namespace: str, queue: str) -> None:
        self.queue = queue
        self.work = f"{namespace_prefix(namespace)}{queue}"
        self.dead = f"{self.work}:dead"
        self.alive = f"{self.work}:alive"
        self.stray = f"{self.work}:stray"
        self.changing = f"{self.work}:changing"
        self.reading = f"{self.work}:reading"
        self.delays = f"{namespace_prefix(namespace)}:delays"
        self.results = f"{namespace}/{queue}"
        """What a store of results calls the queue, so that namespaces don't meet there either (CON-2)."""


@lru_cache(maxsize=1024)
def names_of(namespace: str, queue: str) -> Names:
    """The names of a queue's parts, which are needed with every job."""
    return Names(namespace, queue)


def work_arguments(names: Names, kind: QueueKind) -> Arguments:
    """The arguments of the queue itself."""
    arguments: Arguments = {
        **REFUSE_WHEN_FULL,
        **SPREAD,
        "x-queue-type": QUEUE_TYPES[kind],
        "x-consumer-timeout": _CONSUMER_TIMEOUT_MS,
        # No argument outranks the message-ttl of a policy. What it takes out becomes a dead letter, at least.
        "x-dead-letter-exchange": "",
        "x-dead-letter-routing-key": names.dead,
    }
    if kind is QueueKind.PRIORITY:
        # Two ranks a priority: jobs that came back are served before those that wait for the first time.
        return arguments | {"x-max-priority": 2 * MAX_PRIORITY + 1}
    return arguments | {"x-delivery-limit": ENDLESS, "x-dead-letter-strategy": "at-least-once"}


def fresh_rank(kind: QueueKind, priority: int) -> int | None:
    """The broker's priority for a job that takes its place at the end."""
    return 2 * priority if kind is QueueKind.PRIORITY else None


def returned_rank(kind: QueueKind, priority: int) -> int:
    """The broker's priority for a job that goes before the others of its priority (ORD-4)."""
    return 2 * priority + 1 if kind is QueueKind.PRIORITY else _RETURNED


def priority_of(kind: QueueKind, rank: int | None) -> int:
    """The job's priority, from the broker's."""
    return min((rank or 0) // 2, MAX_PRIORITY) if kind is QueueKind.PRIORITY else 0


_QUORUM: Arguments = {**SPREAD, "x-queue-type": "quorum"}
DEAD_ARGUMENTS: Arguments = {**_QUORUM, **REFUSE_WHEN_FULL, "x-delivery-limit": ENDLESS}
ALIVE_ARGUMENTS: Arguments = _QUORUM
"""As available as the work queue: no consumer receives a job without a subscription to it."""


def conflict(queue: Queue, said: str) -> QueueConflict:
    """Return the error for a queue that can't be declared because it exists otherwise."""
    other = QueueKind.FIFO if queue.kind is QueueKind.PRIORITY else QueueKind.PRIORITY
    has_their_type = "'x-queue-type'" in said and f"current is '{QUEUE_TYPES[other]}'" in said
    # Some releases first name an argument that only queues of one kind have.
    own = "x-max-priority" if other is QueueKind.PRIORITY else "x-dead-letter-strategy"
    has_their_argument = f"'{own}'" in said and "received none" in said
    if has_their_type or has_their_argument:
        return kind_conflict(queue, other)
    return QueueConflict(other_settings(queue.name, said))


def other_settings(queue: str, said: str) -> str:
    """What to tell of a queue that exists, but not as this release declares it."""
    return (
        f"queue {queue!r} exists with other settings, perhaps of another release: {said}; "
        "once it is empty, delete it, and declare it again"
    )


@contextmanager
def naming_queue(queue: str) -> Iterator[None]:
    """Turn what the broker says of a missing queue into QueueNotFound."""
    try:
        yield
    except Missing as error:
        raise not_declared(queue) from error
