"""Faults of what is left behind: descriptors, names of queues, and passwords."""

import os
from collections.abc import Callable

from ...domain import Queue
from ...ports import ConsumerBackend, Finding, Verdict
from .connections import _WithPassword
from .fault_registry import breaks
from .pass_through import BrokenBackend, BrokenConsumer, PassThrough


@breaks("CON-2")
class LeavesDescriptors(PassThrough):
    """A consumer's pipe is never closed, as in celery's and kombu's leaks of file descriptors."""

    def open_consumer(
        self, client: BrokenBackend, queue: str, lease_s: float, prefetch: int | None
    ) -> ConsumerBackend:
        os.pipe()
        return super().open_consumer(client, queue, lease_s, prefetch)


@breaks("CON-2")
class LeavesADescriptorForEachClient(PassThrough):
    """A client that closes leaves the descriptor of its event loop open."""

    def close(self, client: BrokenBackend) -> None:
        super().close(client)
        if client not in self._closed:
            os.open(os.devnull, os.O_RDONLY)
        self._closed.add(client)

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._closed: set[BrokenBackend] = set()


@breaks("ADM-3")
class ListsDeletedQueues(PassThrough):
    """The list of queues is a set of its own, from which a delete removes nothing."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._declared: dict[str, Queue] = {}

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        self._declared[queue.name] = queue

    def queues(self, client: BrokenBackend) -> list[Queue]:
        known = {queue.name: queue for queue in super().queues(client)}
        return sorted((self._declared | known).values(), key=lambda queue: queue.name)


@breaks("ADM-3")
class ListsOldKinds(PassThrough):
    """The list of queues is cached: one that was deleted and is another kind now is listed as it was."""

    def __init__(self, now: Callable[[], float]) -> None:
        super().__init__(now)
        self._listed: dict[str, Queue] = {}

    def queues(self, client: BrokenBackend) -> list[Queue]:
        return [self._listed.setdefault(queue.name, queue) for queue in super().queues(client)]


_all_queues: dict[str, Queue] = {}
"""The queues of every namespace."""


@breaks("CON-2")
class ListsQueuesOfAllNamespaces(PassThrough):
    """The queues of every namespace are listed."""

    def declare(self, client: BrokenBackend, queue: Queue) -> None:
        super().declare(client, queue)
        _all_queues[queue.name] = queue

    def queues(self, client: BrokenBackend) -> list[Queue]:
        super().queues(client)
        return sorted(_all_queues.values(), key=lambda queue: queue.name)


@breaks("SEC-3")
class NamesItsPasswordInADiagnosis(_WithPassword):
    """A finding of the diagnosis names the URL, with its password."""

    def diagnose(self, client: BrokenBackend) -> list[Finding]:
        return [*super().diagnose(client), Finding(Verdict.GOOD, "server", f"{self.url} answers")]


@breaks("SEC-3")
class NamesItsPasswordInItsUrl(_WithPassword):
    """The URL for another process has the password in it, though it was asked for without."""

    def make_url(self, client: BrokenBackend, with_passwords: bool) -> str:
        return self.url


@breaks("SEC-3")
class NamesItsPasswordOnClosing(_WithPassword):
    """Closing a consumer is logged with the URL, and so with the password."""

    def close_consumer(self, consumer: BrokenConsumer) -> None:
        consumer.logger.debug("disconnected from %s", self.url)
        super().close_consumer(consumer)
