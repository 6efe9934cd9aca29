"""What a queue of ours is made of in RabbitMQ: every name and every argument, in one place.

``mtj:{namespace}/{queue}`` holds the jobs that are ready and, unacknowledged, those in flight; beside it are

====================  =======================================================================================
``…:dead``            the dead letters
``…:life``            nothing, ever: consumers subscribe to it, so that the broker tells them of its deletion
``…:delay.0``, …      jobs that wait 1, 2, 4, … units of time, as queues, and as exchanges that lead into them
``…:due``             the exchange through which they leave
``…:reading``         exclusively held by whoever goes through the dead letters
====================  =======================================================================================

A delay is written in binary, as the routing key. The exchange of a level reads the digit that stands for it,
and leads into the level's queue or past it, to the exchange below; a queue that lets a message go passes it
to the exchange below as well. In each queue all messages wait equally long, so that none is held up by the
one before it, as messages with times to live of their own would be.
"""

from collections.abc import Iterator
from functools import lru_cache
from math import ceil
from typing import Any, NamedTuple

from ...domain import Queue, QueueKind
from ...domain.limits import MAX_DELAY_S, MAX_PRIORITY

DELAY_UNIT_S = 0.25
LEVELS = ceil(MAX_DELAY_S / DELAY_UNIT_S).bit_length()
"""How many levels the longest delay needs; each is made once a delay needs it, with all those below."""
_ENDLESS = 1_000_000
"""The broker's own delivery limit. The crash budget is ours; but without any limit the broker would put what
comes back at the end of the queue."""
_CONSUMER_TIMEOUT_MS = 366 * 86_400_000
"""How long a job may run before the broker takes it back; its own default is half an hour."""
_RETURNED = 9
"""In a quorum queue of RabbitMQ 4.0, messages of priority 5 and more are served two to one."""

Arguments = dict[str, Any]


class Names:
    """The names of one queue's parts."""

    def __init__(self, namespace: str, queue: str) -> None:
        self.queue = queue
        self.work = f"mtj:{namespace}/{queue}"
        self.dead = f"{self.work}:dead"
        self.life = f"{self.work}:life"
        self.due = f"{self.work}:due"
        self.reading = f"{self.work}:reading"
        self.results = f"{namespace}/{queue}"
        """What a store of results calls the queue, so that namespaces don't meet there either (CON-2)."""

    def delay(self, level: int) -> str:
        """The name of a level's queue, and of its exchange."""
        return f"{self.work}:delay.{level}"


@lru_cache(maxsize=1024)
def names_of(namespace: str, queue: str) -> Names:
    """The names of a queue's parts, which are needed with every job."""
    return Names(namespace, queue)


def work_arguments(kind: QueueKind) -> Arguments:
    """The arguments of the queue itself."""
    if kind is QueueKind.PRIORITY:
        # Two ranks a priority: jobs that came back are served before those that wait for the first time.
        own: Arguments = {"x-queue-type": "classic", "x-max-priority": 2 * MAX_PRIORITY + 1}
    else:
        own = {"x-queue-type": "quorum", "x-delivery-limit": _ENDLESS}
    return own | {"x-consumer-timeout": _CONSUMER_TIMEOUT_MS}


def fresh_rank(kind: QueueKind, priority: int) -> int | None:
    """The broker's priority for a job that takes its place at the end."""
    return 2 * priority if kind is QueueKind.PRIORITY else None


def returned_rank(kind: QueueKind, priority: int) -> int:
    """The broker's priority for a job that goes before the others of its priority (ORD-4)."""
    return 2 * priority + 1 if kind is QueueKind.PRIORITY else _RETURNED


def priority_of(kind: QueueKind, rank: int | None) -> int:
    """The job's priority, from the broker's."""
    return min((rank or 0) // 2, MAX_PRIORITY) if kind is QueueKind.PRIORITY else 0


DEAD_ARGUMENTS: Arguments = {"x-queue-type": "quorum", "x-delivery-limit": _ENDLESS}
LIFE_ARGUMENTS: Arguments = {"x-queue-type": "classic"}


class Level(NamedTuple):
    """One level of the delays, as it is to be declared."""

    name: str
    arguments: Arguments
    below: str
    """The exchange that comes next."""
    wait_key: str
    """What is routed into the queue."""
    pass_key: str
    """What is routed past it."""


def ladder(names: Names, top: int) -> Iterator[Level]:
    """The levels up to ``top``, lowest first."""
    for level in range(top + 1):
        below = names.delay(level - 1) if level else names.due
        arguments = {
            "x-queue-type": "quorum",
            "x-message-ttl": round(DELAY_UNIT_S * 1000) << level,
            "x-dead-letter-exchange": below,
            # Moved with a confirm, which the broker does only where a full queue refuses instead of dropping.
            "x-dead-letter-strategy": "at-least-once",
            "x-overflow": "reject-publish",
        }
        higher = "*." * (LEVELS - 1 - level)
        yield Level(names.delay(level), arguments, below, f"{higher}1.#", f"{higher}0.#")


class Delay(NamedTuple):
    """Where a message enters the levels."""

    level: int
    key: str


def delay_of(seconds: float) -> Delay:
    """How to wait ``seconds``, more than 0, and up to one unit more (DLY-2)."""
    units = ceil(seconds / DELAY_UNIT_S)
    return Delay(units.bit_length() - 1, ".".join(f"{units:0{LEVELS}b}"))


def conflict(queue: Queue, said: str) -> str:
    """What to tell of a queue that can't be declared because it exists otherwise."""
    other = QueueKind.FIFO if queue.kind is QueueKind.PRIORITY else QueueKind.PRIORITY
    theirs = work_arguments(other)["x-queue-type"]
    has_their_type = "'x-queue-type'" in said and f"current is '{theirs}'" in said
    has_ranks = "'x-max-priority'" in said and "received none" in said  # what some releases name first
    if has_their_type or has_ranks:
        return (
            f"queue {queue.name!r} exists as {other}, not {queue.kind}: "
            "declare it as it is, or delete it first"
        )
    return (
        f"queue {queue.name!r} exists with other settings, perhaps of another release: {said}; "
        "once it is empty, delete it, and declare it again"
    )
