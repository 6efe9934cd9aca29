"""What crosses the port on a publish: the message, and the broker's answer to it."""

from enum import StrEnum
from typing import NamedTuple

from ..domain.errors import JobsError


class Message(NamedTuple):
    """A job to publish: what the broker must know about it, and its body as opaque bytes."""

    id: str
    body: bytes
    priority: int = 0
    """0 to 9; more than 0 only on a priority queue."""
    delay_s: float = 0.0
    """Seconds to wait before it may be delivered, from its arrival, by the broker's clock (DLY-1)."""


class PublishStatus(StrEnum):
    """What happened to one message of a batch (PUB-4)."""

    ACCEPTED = "accepted"
    """Confirmed by the broker, and visible (PUB-1)."""
    DUPLICATE = "duplicate"
    """A job of this id is live: ready, delayed, in flight or dead; or, if the schema is unique, another job
    is in its place. Nothing was changed (PUB-5)."""
    REJECTED = "rejected"
    """Not in the queue; ``error`` says why."""
    UNKNOWN = "unknown"
    """The connection broke before the confirm: the message may or may not be in the queue."""


class PublishOutcome(NamedTuple):
    """The broker's answer to one message."""

    id: str
    status: PublishStatus
    error: JobsError | None = None
    """Why the message was rejected, or why its outcome is unknown."""
    standing: str | None = None
    """The id of the job that is in the queue in place of this one, of a schema that is ``unique``; None if
    none is. The status is then ``DUPLICATE``."""
    replaced: str | None = None
    """The id of the job whose place this one took, of a schema whose jobs replace one another; None if there
    was none. That one doesn't run, unless a worker had taken it."""
