"""The queues that a client declared. If the server loses its data, the client declares them again."""

from dataclasses import dataclass
from itertools import chain

from ..shared.chunks import in_chunks
from .keys import QueueKeys
from .requests import CHUNK_JOBS
from .scripts import DECLARE, REDECLARE
from .transport import RetryingConnection


@dataclass(frozen=True, slots=True)
class _Declared:
    """The keys of a declared queue, and the arguments of the script that declares it."""

    keys: list[str]
    arguments: tuple[str, str, str, str]


class DeclaredQueues:
    """Tells a queue that was deleted from a server that lost it: by a flush, a restart or a failover.

    The server remembers when a queue was deleted. A queue is missing from its data for another reason if no
    deletion is remembered, or only one before the client declared it. Then the client's queues are declared
    again, empty. A deleted queue stays deleted.

    Args:
        redis: The connection to the server.
        namespace: The client's namespace.
    """

    def __init__(self, redis: RetryingConnection, namespace: str) -> None:
        self._redis = redis
        self._namespace = namespace
        self._queues: dict[str, _Declared] = {}

    def add(self, queue: str, kind: str, layout: str, declared_us: str) -> None:
        """Remember a queue that was declared, and when that was by the server's clock."""
        keys = QueueKeys(self._namespace, queue).of(DECLARE)
        self._queues[queue] = _Declared(keys, (queue, kind, layout, declared_us))

    def remove(self, queue: str) -> None:
        """Forget a queue that this client is about to delete."""
        self._queues.pop(queue, None)

    def redeclare(self) -> None:
        """Declare the queues again that are missing and weren't deleted."""
        deleted = QueueKeys(self._namespace, "").deleted
        for chunk in in_chunks(list(self._queues.values()), CHUNK_JOBS):
            keys = chain.from_iterable(queue.keys for queue in chunk)
            arguments = chain.from_iterable(queue.arguments for queue in chunk)
            self._redis.run(REDECLARE, [deleted, *keys], list(arguments))
