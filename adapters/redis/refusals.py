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
def naming_queue(queue: str, link: Link) -> Iterator[None]:
    """Likewise, and turn an outage into BackendUnavailable."""
    try:
        with refusing_queue(queue):
            yield
    except OutOfReach as out:
        raise link.unavailable(out) from out.error
