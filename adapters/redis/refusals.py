"""What a refusal by the server, or its silence, means for a queue."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...domain.errors import QueueNotFound
from .link import Link, OutOfReach, RefusedByServer


def check_queue_exists(queue: str, refusal: RefusedByServer) -> None:
    """Raise QueueNotFound where the scripts' error is NOQUEUE."""
    if str(refusal).startswith("NOQUEUE"):
        raise QueueNotFound(f"queue {queue!r}: not declared; register its schema first") from None


@contextmanager
def telling_outage(link: Link) -> Iterator[None]:
    """Turn an outage into BackendUnavailable."""
    try:
        yield
    except OutOfReach as out:
        raise link.unavailable(out) from out.error


@contextmanager
def naming_queue(queue: str, link: Link) -> Iterator[None]:
    """Both: of a missing queue, and of an outage."""
    with telling_outage(link):
        try:
            yield
        except RefusedByServer as refusal:
            check_queue_exists(queue, refusal)
            raise
