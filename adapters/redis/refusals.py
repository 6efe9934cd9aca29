"""What a refusal by the server, or its silence, means for a queue."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...domain.errors import BackendError, QueueNotFound
from .link import Link, OutOfReach, RefusedByServer


class QueueDamaged(BackendError):
    """A key of the queue has another type than it should: somebody else wrote it."""


def check_queue(queue: str, refusal: RefusedByServer) -> None:
    """Raise QueueNotFound where the scripts' error is NOQUEUE, and QueueDamaged where it is WRONGTYPE."""
    if str(refusal).startswith("NOQUEUE"):
        raise QueueNotFound(f"queue {queue!r}: not declared; register its schema first") from None
    if "WRONGTYPE" in str(refusal):
        raise QueueDamaged(
            f"queue {queue!r}: one of its keys in Redis has the wrong type; mindtrace-jobs doctor names it"
        ) from refusal


@contextmanager
def telling_outage(link: Link) -> Iterator[None]:
    """Turn an outage into BackendUnavailable."""
    try:
        yield
    except OutOfReach as out:
        raise link.unavailable(out) from out.error


@contextmanager
def naming_queue(queue: str, link: Link) -> Iterator[None]:
    """Also turn a refusal that means a missing or damaged queue into its error."""
    with telling_outage(link):
        try:
            yield
        except RefusedByServer as refusal:
            check_queue(queue, refusal)
            raise
