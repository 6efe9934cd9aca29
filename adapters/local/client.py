"""The backend that needs nothing: queues in the memory of this process."""

import re
import threading
import weakref
from collections.abc import Collection, Sequence
from functools import partial
from os import PathLike

from ...domain.bounds import MAX_LISTED, check_name
from ...domain.defaults import DEFAULT_LEASE_S, DEFAULT_RESULT_TTL_S
from ...domain.errors import InvalidName, UnsupportedCapability
from ...domain.job_progress import Progress
from ...domain.queue import Queue
from ...ports import (
    CancelOutcome,
    Capabilities,
    CoordinationStore,
    DeadLetter,
    Durability,
    EndedJobs,
    Finding,
    Guard,
    JobResult,
    JobStatus,
    Lease,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    QueueCounts,
    Redelivery,
)
from ...ports.findings import doubtful
from ..shared.error_messages import client_closed
from .clock import Clock
from .consumer import LocalConsumerBackend
from .coordination import LocalCoordinationStore
from .namespace import Namespace, open_namespace
from .queue import LocalQueue

_CAPABILITIES = Capabilities(
    stack=True,
    priority=True,
    dedupe=True,
    results=True,
    lease=Lease.TIMED,
    redelivery=Redelivery.IN_ORDER,
    durability=Durability.PROCESS,
    delay_resolution_s=0.01,
    counts_in_flight=True,
    coordination=True,
    freed_places=True,
    first_ready=True,
    guarded_publish=True,
    then=True,
    atomic_then=True,
    cancel=True,
    dead_ttl=True,
    exact_dead_ttl=True,
)


_PATH = re.compile(r"[/\\]|\.(db|sqlite3?)$")


class LocalEndedJobs(EndedJobs):
    """Told by the queue of each job that ends."""

    def __init__(self, queue: LocalQueue) -> None:
        super().__init__()
        self._queue = queue
        self._ended: set[str] = set()
        queue.tell_ends(self._ended)

    def wait(self, timeout_s: float) -> Collection[str]:
        return self._queue.wait_for_ends(self._ended, timeout_s)

    def close(self) -> None:
        self._queue.tell_no_ends(self._ended)


class LocalClient(OrchestratorBackend):
    """Queues in the memory of this process, with every guarantee of the contract but durability.

    Args:
        namespace: Clients of the same name within this process share their queues, which last until the
            last of them is closed or dropped. Without a name the queues are this client's own.
        clock: What time it is; the machine's clock by default. Tests give a ``ManualClock``.

    Raises:
        InvalidName: the namespace breaks the rule for names, or is a path, in which nothing would last.
        InvalidInput: the namespace is open already, and runs on another clock.
    """

    def __init__(self, namespace: str | None = None, *, clock: Clock | None = None) -> None:
        super().__init__()
        if namespace is not None:
            _refuse_path(namespace)
            check_name("namespace", namespace)
        self._namespace: Namespace | None = open_namespace(namespace, clock)
        self._coordination = LocalCoordinationStore(self._namespace)
        self._consumers: weakref.WeakSet[LocalConsumerBackend] = weakref.WeakSet()
        self._lock = threading.Lock()

    @classmethod
    def from_url(cls, url: str) -> "LocalClient":
        """Make a client from ``memory://`` (private queues) or ``memory://namespace`` (shared ones).

        Raises:
            InvalidName: what follows breaks the rule for names.
        """
        try:
            return cls(url.removeprefix("memory://").rstrip("/") or None)
        except InvalidName:  # whose message shows the value: in a URL that may be a password (SEC-3)
            raise InvalidName("memory:// namespace: use 1 to 128 characters of A-Z a-z 0-9 . _ -") from None

    @property
    def capabilities(self) -> Capabilities:
        return _CAPABILITIES

    def declare(self, queue: Queue) -> None:
        self._open_namespace().declare(queue)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        return self._queue(queue).publish(messages)

    def open_consumer(
        self, queue: str, *, lease_s: float = DEFAULT_LEASE_S, prefetch: int | None = None
    ) -> LocalConsumerBackend:
        with self._lock:  # so that `close` can't miss it
            consumer = self._make_consumer(self._open_namespace(), queue, lease_s)
            self._consumers.add(consumer)
        return consumer

    def _make_consumer(self, namespace: Namespace, queue: str, lease_s: float) -> LocalConsumerBackend:
        return LocalConsumerBackend(namespace, queue, lease_s)

    @property
    def coordination(self) -> CoordinationStore:
        return self._coordination

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        found = self._queue(queue)
        return self._open_namespace().coordination.put_with(guard, partial(found.publish_with, message))

    def cancel(
        self, queue: str, ids: Sequence[str], *, result_ttl_s: float = DEFAULT_RESULT_TTL_S
    ) -> list[CancelOutcome]:
        return self._queue(queue).cancel(ids, result_ttl_s)

    def counts(self, queue: str) -> QueueCounts:
        return self._queue(queue).counts()

    def first_ready(self, queue: str) -> bytes | None:
        return self._queue(queue).first_ready()

    def waits_for_clock(self, queue: str) -> str | None:
        return self._queue(queue).waits_for_clock()

    def next_event(self, queue: str) -> float:
        """Return when the next delay or lease of a queue ends, by its clock; infinity if there is none."""
        return self._queue(queue).next_event()

    def end_lease(self, queue: str, job_id: str) -> bool:
        """End the lease of a job as if its time were over; return whether it has one."""
        return self._queue(queue).end_lease(job_id)

    def purge(self, queue: str) -> int:
        return self._queue(queue).purge()

    def delete(self, queue: str) -> None:
        self._open_namespace().delete(queue)

    def dead_letters(self, queue: str, *, limit: int = MAX_LISTED, offset: int = 0) -> list[DeadLetter]:
        return self._queue(queue).dead_letters(limit, offset)

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._queue(queue).redrive(ids)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._queue(queue).discard(ids)

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        return self._queue(queue).result(job_id, timeout_s)

    def status(self, queue: str, job_id: str) -> JobStatus:
        return self._queue(queue).status(job_id)

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        return self._queue(queue).results(ids)

    def ended_jobs(self, queue: str) -> LocalEndedJobs:
        return LocalEndedJobs(self._queue(queue))

    def queues(self) -> list[Queue]:
        return self._open_namespace().queues()

    def progress(self, queue: str, ids: Sequence[str] | None = None) -> dict[str, Progress]:
        return self._queue(queue).progress(ids)

    def diagnose(self) -> list[Finding]:
        return [
            *super().diagnose(),
            doubtful(
                "durability",
                "jobs live in the memory of this process: no other sees them, and they end with it",
                "use sqlite:///jobs.db, redis:// or amqp:// where that isn't meant",
            ),
        ]

    def make_url(self, *, with_passwords: bool = False) -> str:
        raise UnsupportedCapability(
            "queues in memory have no URL, as no other process can reach them: use SQLiteClient or a broker"
        )

    def close(self) -> None:
        with self._lock:
            self._namespace = None
            self._coordination.close()
            consumers = list(self._consumers)
            self._consumers.clear()
        for consumer in consumers:
            consumer.close()

    def _open_namespace(self) -> Namespace:
        namespace = self._namespace
        if namespace is None:
            raise client_closed("LocalClient")
        return namespace

    def _queue(self, queue: str) -> LocalQueue:
        return self._open_namespace().queue(queue)


def _refuse_path(namespace: object) -> None:
    """Refuse what is meant as a file: its jobs would be gone with the process, and nobody told."""
    if isinstance(namespace, str | PathLike) and _PATH.search(name := str(namespace)):
        raise InvalidName(
            f"LocalClient keeps its queues in memory, and {name!r} is a path: for queues that last in a file "
            f"use SQLiteClient({name!r}), or the URL sqlite:///{name}"
        )
