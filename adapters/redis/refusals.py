"""What a refusal by the server, or its silence, means for a queue."""

from collections.abc import Iterator
from contextlib import contextmanager

from ...domain.errors import QueueNotFound
from .link import Link, OutOfReach, RefusedByServer


@contextmanager
def refusing_queue(queue: str) -> Iterator[None]:
    """Turn the scripts' error NOQUEUE into QueueNotFound."""
    try:
        yield
    except RefusedByServer as error:
        if str(error).startswith("NOQUEUE"):
            raise QueueNotFound(f"queue {queue!r}: not declared; register its schema first") from None
        raise


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
    with telling_outage(link), refusing_queue(queue):
        yield
