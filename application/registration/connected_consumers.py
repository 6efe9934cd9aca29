"""Which consumers are connected in this process, by their queues."""

import threading
from logging import Logger
from weakref import ReferenceType, ref


class ConnectedConsumers:
    """The connected consumers of an orchestrator. It warns of two classes that take the jobs of one queue."""

    def __init__(self) -> None:
        self._queues: dict[int, tuple[ReferenceType[object], str]] = {}
        """By id, as a consumer of a class that defines ``==`` has no hash."""
        self._changing = threading.Lock()

    def join(self, consumer: object, queue: str, logger: Logger) -> None:
        """Remember that ``consumer`` is connected to ``queue``.

        Args:
            consumer: The consumer.
            queue: The name of its queue.
            logger: Where to warn, if a consumer of another class is connected to the same.
        """
        with self._changing:
            self._forget_collected()
            others = self._those_of(queue)
            self._queues[id(consumer)] = (ref(consumer), queue)
        names = {_name(other) for other in others if other is not None}
        for other in sorted(names - {_name(consumer)}):
            logger.warning(
                "%s and %s both take the jobs of queue %s: each job goes to only one of them; give each "
                "class a schema of its own, or connect one of them to another queue, as in %s(queue=…)",
                other[1],
                type(consumer).__qualname__,
                queue,
                type(consumer).__name__,
            )

    def _forget_collected(self) -> None:
        self._queues = {id_: each for id_, each in self._queues.items() if each[0]() is not None}

    def _those_of(self, queue: str) -> list[object]:
        return [each() for each, its_queue in self._queues.values() if its_queue == queue]

    def leave(self, consumer: object) -> None:
        """Forget ``consumer``, which is closed."""
        with self._changing:
            self._queues.pop(id(consumer), None)


def _name(consumer: object) -> tuple[str, str]:
    """What tells classes apart: one that a notebook cell defined again is the same."""
    return type(consumer).__module__, type(consumer).__qualname__
