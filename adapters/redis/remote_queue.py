"""One queue on the server."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

from ...domain.errors import QueueNotFound
from .errors import QueueDamaged, RefusedByServer
from .keys import QueueKeys
from .retrying_connection import RetryingConnection
from .scripts import Script
from .transport import Argument


class RemoteQueue:
    """Runs scripts on the keys of one queue, and names the queue in errors.

    Args:
        redis: The connection to the server.
        keys: The queue's keys.
    """

    def __init__(self, redis: RetryingConnection, keys: QueueKeys) -> None:
        self.redis = redis
        self.keys = keys

    @property
    def name(self) -> str:
        """The queue's name."""
        return self.keys.queue

    def run(self, script: Script, arguments: Sequence[Argument] = ()) -> Any:
        """Run a script, and return its answer.

        Raises:
            BackendUnavailable: the server couldn't be reached in time.
            QueueNotFound: the queue isn't declared.
            QueueDamaged: somebody else wrote one of its keys.
            BackendError: the server refused otherwise.
        """
        with self.errors():
            return self.redis.run(script, self.keys.of(script), arguments)

    @contextmanager
    def errors(self) -> Iterator[None]:
        """Raise what :meth:`run` does for errors of the connection."""
        with self.redis.outages():
            try:
                yield
            except RefusedByServer as refusal:
                self.check(refusal)
                raise

    def check(self, refusal: RefusedByServer) -> None:
        """Raise QueueNotFound if the script's error is NOQUEUE, and QueueDamaged if it is WRONGTYPE."""
        if str(refusal).startswith("NOQUEUE"):
            raise QueueNotFound(f"queue {self.name!r}: not declared; register its schema first") from None
        if "WRONGTYPE" in str(refusal):
            raise QueueDamaged(
                f"queue {self.name!r}: one of its keys in Redis has the wrong type; "
                "mindtrace-jobs doctor names it"
            ) from refusal
