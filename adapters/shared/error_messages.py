"""Errors whose messages are the same on every backend."""

from ...domain.errors import Closed, QueueConflict, QueueNotFound
from ...domain.queue import Queue
from ...domain.wording import REGISTER_FIRST


def not_declared(queue: str) -> QueueNotFound:
    """Return the error for a queue that isn't declared."""
    return QueueNotFound(f"queue {queue!r}: not declared; {REGISTER_FIRST}")


def kind_conflict(queue: Queue, found: str) -> QueueConflict:
    """Return the error for a queue that exists with another kind than ``queue`` has."""
    return QueueConflict(
        f"queue {queue.name!r} already has the type {found}, not {queue.kind}: say the type once, in the "
        f'schema that all use, as in JobSchema(…, queue_type="{found}"); or, to have it as {queue.kind}, '
        "delete the queue first",
        found,
    )


def client_closed(owner: str) -> Closed:
    """Return the error for a call of a client, or of something else, that was closed."""
    return Closed(f"this {owner} is closed: create a new one, or make the call before close()")


def consumer_closed(queue: str) -> Closed:
    """Return the error for a call of a consumer that was closed."""
    return Closed(f"this consumer of queue {queue!r} is closed")
