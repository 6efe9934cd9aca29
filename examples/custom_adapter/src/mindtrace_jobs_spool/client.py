"""The backend that needs a folder and nothing else."""

import os
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path
from urllib.parse import unquote, urlsplit

from mindtrace.jobs.domain.bounds import check_name
from mindtrace.jobs.domain.errors import Closed, InvalidInput, InvalidName
from mindtrace.jobs.domain.queue import Queue
from mindtrace.jobs.ports import (
    Capabilities,
    DeadLetter,
    Durability,
    JobResult,
    Lease,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    QueueCounts,
    Redelivery,
)

from . import transitions
from .change_notifier import ChangeNotifier
from .consumer_backend import SpoolConsumerBackend
from .folder import QueueFolder, State
from .job_file import dead_letter

_CAPABILITIES = Capabilities(
    stack=False,
    priority=False,
    dedupe=False,
    results=False,
    lease=Lease.TIMED,
    redelivery=Redelivery.IN_ORDER,
    durability=Durability.FSYNC,
    delay_resolution_s=0.05,
    counts_in_flight=True,
)


class SpoolClient(OrchestratorBackend):
    """Queues in a folder, which any number of processes of one machine may share.

    Args:
        path: The spool folder; created with the first queue.
        namespace: Clients of one folder and one namespace share their queues.

    Raises:
        InvalidName: the namespace breaks the rule for names, or is made of dots.
    """

    def __init__(self, path: str | os.PathLike[str], *, namespace: str = "default") -> None:
        super().__init__()
        if not check_name("namespace", namespace).strip("."):
            raise InvalidName(f"namespace {namespace!r}: must be more than dots")
        self._home = Path(path).absolute() / namespace
        self._notifier = ChangeNotifier()
        self._lock = threading.Lock()
        self._consumers: weakref.WeakSet[SpoolConsumerBackend] = weakref.WeakSet()
        self._closed = False

    @classmethod
    def from_url(cls, url: str) -> "SpoolClient":
        """Make a client from a URL such as ``spool:///var/spool/jobs``.

        Raises:
            InvalidInput: it is no such URL.
        """
        parts = urlsplit(url)
        if parts.netloc or parts.query or parts.fragment or not parts.path:
            raise InvalidInput("the URL of a spool is spool:///, and then its folder's path")
        return cls(unquote(parts.path))

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    def declare(self, queue: Queue) -> None:
        folder = self._folder(queue.name)
        self.capabilities.require_kind(queue)
        folder.create()

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        outcomes = transitions.publish(self._folder(queue), messages)
        self._notifier.notify()
        return outcomes

    def open_consumer(
        self, queue: str, *, lease_s: float = 30.0, prefetch: int | None = None
    ) -> SpoolConsumerBackend:
        with self._lock:  # so that `close` can't miss it
            consumer = SpoolConsumerBackend(self._folder(queue), self._notifier, lease_s)
            self._consumers.add(consumer)
        return consumer

    def counts(self, queue: str) -> QueueCounts:
        folder = self._folder(queue)
        transitions.sweep(folder)
        ready, delayed, in_flight, dead = (sum(1 for _ in folder.names(state)) for state in State)
        return QueueCounts(ready, delayed, in_flight, dead)

    def purge(self, queue: str) -> int:
        return self._administer(queue, transitions.purge)

    def delete(self, queue: str) -> None:
        self._folder(queue).remove()
        self._notifier.notify()

    def dead_letters(self, queue: str, *, limit: int = 2**31 - 1, offset: int = 0) -> list[DeadLetter]:
        folder = self._folder(queue)
        listed = transitions.dead(folder)[offset : offset + limit]
        found = ((name, folder.read(name, State.DEAD)) for name in listed)
        return [dead_letter(name, content) for name, content in found if content is not None]

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._administer(queue, lambda folder: transitions.redrive(folder, ids))

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._administer(queue, lambda folder: transitions.discard(folder, ids))

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        self._folder(queue)
        self.capabilities.require_results()
        return None

    def close(self) -> None:
        with self._lock:
            self._closed = True
            consumers = list(self._consumers)
            self._consumers.clear()
        for consumer in consumers:
            consumer.close()

    def _administer(self, queue: str, change: Callable[[QueueFolder], int]) -> int:
        folder = self._folder(queue)
        changed = change(folder)
        folder.sync()
        self._notifier.notify()
        return changed

    def _folder(self, queue: str) -> QueueFolder:
        if self._closed:
            raise Closed("this SpoolClient is closed")
        return QueueFolder(self._home, check_name("queue name", queue))
