"""The queues that a client declared, to declare them again in a server that lost its memory."""

import secrets
from collections.abc import Sequence

from .scripts import DECLARE, MARK
from .transport import Argument, RetryingConnection


class DeclaredQueues:
    """Tells a queue that was deleted from a server that lost its memory, by a FLUSHALL or a restart.

    A deleted queue stays deleted. In a server that lost its memory, all queues that this client declared are
    declared again, empty. The namespace's mark tells the two apart: it is lost with the rest of the memory.

    Args:
        redis: The connection to the server.
        mark: The key of the mark.
    """

    def __init__(self, redis: RetryingConnection, mark: str) -> None:
        self._redis = redis
        self._key = mark
        self._mark: bytes | None = None
        self._queues: dict[tuple[str, ...], Sequence[Argument]] = {}

    def add(self, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Remember a queue that was declared, by the keys and arguments of the script."""
        if self._mark is None:
            self._mark = self._read_mark()
        self._queues[tuple(keys)] = arguments

    def remove(self, keys: Sequence[str]) -> None:
        """Forget a queue that this client is about to delete."""
        self._queues.pop(tuple(keys), None)

    def redeclare(self) -> None:
        """Declare all queues again, if the server has lost its memory."""
        if self._mark is None:
            return
        mark = self._read_mark()
        if mark != self._mark:
            for keys, arguments in list(self._queues.items()):
                self._redis.run(DECLARE, keys, arguments)
            self._mark = mark  # last: other threads find their queues by then

    def _read_mark(self) -> bytes:
        mark: bytes = self._redis.run(MARK, [self._key], [secrets.token_hex(8)])
        return mark
