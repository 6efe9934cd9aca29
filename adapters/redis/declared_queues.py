"""The queues that a client declared, to declare them again in a server that lost its memory."""

import secrets
from collections.abc import Sequence

from .scripts import DECLARE, MEMORY_ID
from .transport import Argument, RetryingConnection


class DeclaredQueues:
    """Tells a queue that was deleted from a server that lost its memory, by a FLUSHALL or a restart.

    A deleted queue stays deleted. In a server that lost its memory, all queues that this client declared are
    declared again, empty. An id that is kept in the server's memory, and lost with it, tells the two apart.

    Args:
        redis: The connection to the server.
        memory_id: The key of that id.
    """

    def __init__(self, redis: RetryingConnection, memory_id: str) -> None:
        self._redis = redis
        self._key = memory_id
        self._memory_id: bytes | None = None
        self._queues: dict[tuple[str, ...], Sequence[Argument]] = {}

    def add(self, keys: Sequence[str], arguments: Sequence[Argument]) -> None:
        """Remember a queue that was declared, by the keys and arguments of the script."""
        if self._memory_id is None:
            self._memory_id = self._read_memory_id()
        self._queues[tuple(keys)] = arguments

    def remove(self, keys: Sequence[str]) -> None:
        """Forget a queue that this client is about to delete."""
        self._queues.pop(tuple(keys), None)

    def redeclare(self) -> None:
        """Declare all queues again, if the server has lost its memory."""
        if self._memory_id is None:
            return
        memory_id = self._read_memory_id()
        if memory_id != self._memory_id:
            for keys, arguments in list(self._queues.items()):
                self._redis.run(DECLARE, keys, arguments)
            self._memory_id = memory_id  # last: other threads find their queues by then

    def _read_memory_id(self) -> bytes:
        memory_id: bytes = self._redis.run(MEMORY_ID, [self._key], [secrets.token_hex(8)])
        return memory_id
