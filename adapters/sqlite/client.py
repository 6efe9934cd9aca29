"""The backend for a file."""

import os
import threading
from collections.abc import Callable, Sequence
from os import PathLike
from pathlib import Path
from time import monotonic, sleep
from urllib.parse import parse_qs, quote, unquote, urlencode, urlsplit

from ...domain.bounds import MAX_LISTED, check_name
from ...domain.defaults import DEFAULT_LEASE_S, DEFAULT_RESULT_TTL_S
from ...domain.errors import BackendError, BackendUnavailable, Closed, InvalidInput
from ...domain.job_progress import Progress
from ...domain.queue import Queue
from ...domain.wording import EXPAND_HOME
from ...ports import (
    CancelOutcome,
    Capabilities,
    CoordinationStore,
    DeadLetter,
    Durability,
    Finding,
    Guard,
    JobResult,
    JobStatus,
    Lease,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    Redelivery,
)
from ..shared.chunks import in_chunks
from ..shared.error_messages import client_closed
from ..shared.server_settings import given_patience
from . import admin, dead_letters
from .cancel import cancel
from .consumer import SQLiteConsumerBackend
from .coordination import SQLiteCoordinationStore
from .diagnosis import diagnose
from .errors import CommitUnknown
from .introspection import list_queues, read_progress
from .publish import publish, publish_guarded
from .session import FileSettings, Session
from .transaction import CHUNK, QueueSession, Transaction
from .wakeups import ENDED, READY, SQLiteEndedJobs, Waiter, make_waiter, remove_wakeups, wake

_SYNCHRONOUS = {Durability.FSYNC: "FULL", Durability.SNAPSHOT: "NORMAL"}
_CHUNK_JOBS = 5000
"""The most messages of one transaction, so that nobody waits for long behind it."""
_CHUNK_BYTES = 8 * 1024 * 1024
_PAUSE_S = 0.002
"""The pause between two transactions of a call that drops many jobs: others get their turn."""

RedriveOrDiscard = Callable[[Transaction, list[dead_letters.Death]], int]
"""Redrives or discards dead jobs, and returns how many they were."""


class SQLiteClient(OrchestratorBackend):
    """Queues in a file, shared by all processes of one machine that name it; they last.

    It opens the file when it is first used, and makes it where there is none.

    Args:
        path: The file; its folder must exist, and be on a disk of this machine.
        namespace: Clients of the same file and namespace share their queues.
        durability: ``FSYNC``, so that what was confirmed survives a power cut; or ``SNAPSHOT``, which is
            faster: a power cut may then take what was confirmed since SQLite's last checkpoint. What kills
            processes takes nothing, either way.
        retry_timeout_s: How many seconds a call waits for its turn before it fails.

    Raises:
        InvalidName: the namespace breaks the rule for names.
        InvalidInput: the path names no file, or the durability is none of the two.
    """

    def __init__(
        self,
        path: str | PathLike[str],
        *,
        namespace: str = "default",
        durability: Durability | str = Durability.FSYNC,
        retry_timeout_s: float = 5.0,
    ) -> None:
        super().__init__()
        check_name("namespace", namespace)
        if not isinstance(path, str | PathLike):
            raise InvalidInput(f"path {path!r:.80}: name a file, by a text or a Path")
        name = os.fspath(path)
        if name.startswith("~"):
            raise InvalidInput(f"path {name!r}: {EXPAND_HOME}")
        if not name or name.startswith(":memory:") or "\0" in name:
            raise InvalidInput(f"path {name!r}: name a file, or use LocalClient for queues in memory")
        if durability not in _SYNCHRONOUS:
            choice = " or ".join(repr(str(each)) for each in _SYNCHRONOUS)
            raise InvalidInput(f"durability {durability!r}: a file has {choice}")
        self._durability = Durability(durability)
        self._settings = FileSettings(Path(name).resolve(), _SYNCHRONOUS[self._durability], retry_timeout_s)
        self._namespace = namespace
        self._session = Session(self._settings, "SQLiteClient")
        self._coordination = SQLiteCoordinationStore(self._settings, namespace)
        self._consumers: list[SQLiteConsumerBackend] = []
        self._waiters: set[Waiter] = set()
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def from_url(cls, url: str) -> "SQLiteClient":
        """Make a client from ``sqlite:///relative/path`` or ``sqlite:////absolute/path``.

        A query may name ``namespace``, ``durability`` and ``retry_timeout_s``:
        ``sqlite:///jobs.db?durability=snapshot``.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        parts = urlsplit(url)
        path = unquote(parts.path.removeprefix("/"))
        if parts.netloc or not path:
            raise InvalidInput(
                "a SQLite URL has three slashes before a relative path and four before an absolute one: "
                "sqlite:///jobs.db, sqlite:////var/lib/jobs.db"
            )
        query = {name: values[-1] for name, values in parse_qs(parts.query).items()}
        namespace, durability = query.pop("namespace", "default"), query.pop("durability", Durability.FSYNC)
        patience = given_patience(query)
        if query:
            raise InvalidInput(
                f"a SQLite URL takes no {', '.join(sorted(query))}; it takes namespace, durability, "
                "retry_timeout_s"
            )
        return cls(path, namespace=namespace, durability=durability, **patience)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            stack=True,
            priority=True,
            dedupe=True,
            results=True,
            lease=Lease.TIMED,
            redelivery=Redelivery.IN_ORDER,
            durability=self._durability,
            delay_resolution_s=0.05,
            counts_in_flight=True,
            coordination=True,
            freed_places=hasattr(os, "mkfifo"),
            first_ready=True,
            guarded_publish=True,
            then=True,
            atomic_then=True,
            dead_ttl=True,
            exact_dead_ttl=True,
            cancel=True,
        )

    def declare(self, queue: Queue) -> None:
        session = self._own_session()
        session.write(lambda db, _clock: admin.declare(db, self._namespace, queue))
        session.write(lambda db, _clock: admin.drop_deleted(db))

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        session = self._queue(queue)
        outcomes: list[PublishOutcome] = []
        if not messages:
            session.read(admin.counts)  # raises QueueNotFound
        for chunk in in_chunks(
            messages, _CHUNK_JOBS, max_bytes=_CHUNK_BYTES, size_of=lambda message: len(message.body)
        ):
            try:
                statuses = session.write(lambda tx, chunk=chunk: publish(tx, chunk))  # type: ignore[misc]
            except BackendError as error:
                if not (outcomes or isinstance(error, BackendUnavailable)):
                    raise  # the queue or the file is at fault, and nothing was sent yet
                outcomes += [_failed(message, error) for message in chunk]
            else:
                outcomes += [
                    PublishOutcome(message.id, status)
                    for message, status in zip(chunk, statuses, strict=True)
                ]
        return outcomes

    @property
    def coordination(self) -> CoordinationStore:
        return self._coordination

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        try:
            status = self._queue(queue).write(lambda tx: publish_guarded(tx, message, guard))
        except BackendUnavailable as error:
            return _failed(message, error)
        return None if status is None else PublishOutcome(message.id, status)

    def open_consumer(
        self, queue: str, *, lease_s: float = DEFAULT_LEASE_S, prefetch: int | None = None
    ) -> SQLiteConsumerBackend:
        self.counts(queue)  # raises QueueNotFound
        consumer = SQLiteConsumerBackend(self._settings, self._namespace, queue, lease_s)
        with self._lock:  # so that `close` can't miss it
            if self._closed:
                raise self._is_closed()
            self._consumers = [*(each for each in self._consumers if not each.is_closed), consumer]
        return consumer

    def cancel(
        self, queue: str, ids: Sequence[str], *, result_ttl_s: float = DEFAULT_RESULT_TTL_S
    ) -> list[CancelOutcome]:
        session = self._queue(queue)
        outcomes: list[CancelOutcome] = []
        if not ids:
            session.read(admin.counts)  # raises QueueNotFound
        for chunk in in_chunks(ids, CHUNK):
            outcomes += session.write(lambda tx, chunk=chunk: cancel(tx, chunk, result_ttl_s))  # type: ignore[misc]
        return outcomes

    def counts(self, queue: str) -> QueueCounts:
        return self._queue(queue).read(admin.counts)

    def first_ready(self, queue: str) -> bytes | None:
        return self._queue(queue).read(admin.first_ready)

    def purge(self, queue: str) -> int:
        session, waiting, purged = self._queue(queue), self.counts(queue).waiting, 0
        # What is published meanwhile may be dropped as well; what was there when it began always is.
        while dropped := session.write(admin.purge):
            purged += dropped
            if purged >= waiting:
                break
            sleep(_PAUSE_S)
        return purged

    def delete(self, queue: str) -> None:
        key, folder = self._queue(queue).write(admin.mark_deleted), self._settings.wakeups
        for what in (READY, ENDED):
            wake(folder, key, what)
        while self._own_session().write(lambda db, _clock: admin.drop_deleted(db)):
            sleep(_PAUSE_S)
        remove_wakeups(folder, key)

    def dead_letters(self, queue: str, *, limit: int = MAX_LISTED, offset: int = 0) -> list[DeadLetter]:
        return self._queue(queue).read(lambda tx: dead_letters.dead_letters(tx, limit, offset))

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._redrive_or_discard(queue, ids, dead_letters.redrive)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._redrive_or_discard(queue, ids, dead_letters.discard)

    def _redrive_or_discard(self, queue: str, ids: Sequence[str] | None, act: RedriveOrDiscard) -> int:
        session, count = self._queue(queue), 0
        if ids is not None:
            if not ids:
                self.counts(queue)  # raises QueueNotFound
            wanted = list(dict.fromkeys(ids))
            for start in range(0, len(wanted), CHUNK):
                chunk = wanted[start : start + CHUNK]
                count += session.write(lambda tx, chunk=chunk: act(tx, dead_letters.named_dead(tx, chunk)))  # type: ignore[misc]
            return count
        upto = session.read(dead_letters.last_death)  # jobs that die meanwhile stay
        while done := session.write(lambda tx: act(tx, dead_letters.oldest_dead(tx, upto))):
            count += done
        return count

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        session, give_up = self._queue(queue), monotonic() + timeout_s
        key, found = session.read(lambda tx: admin.result(tx, job_id))
        if found is not None or timeout_s <= 0:
            return found
        waiter = self._make_waiter(key)
        try:
            while True:
                _, found = session.read(lambda tx: admin.result(tx, job_id))
                remaining_s = give_up - monotonic()
                if found is not None or remaining_s <= 0:
                    return found
                waiter.wait(min(remaining_s, self._settings.look_s))
        finally:
            self._close_waiter(waiter)

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        session, found = self._queue(queue), dict[str, JobResult]()
        if not ids:
            self.counts(queue)  # raises QueueNotFound
        for chunk in in_chunks(ids, CHUNK):
            found |= session.read(lambda tx, chunk=chunk: admin.results(tx, chunk))  # type: ignore[misc]
        return found

    def ended_jobs(self, queue: str) -> SQLiteEndedJobs:
        waiter = self._make_waiter(self._queue(queue).read(lambda tx: tx.key))
        return SQLiteEndedJobs(waiter, self._close_waiter, self._settings.look_s)

    def _make_waiter(self, key: int) -> Waiter:
        waiter = make_waiter(self._settings.wakeups, key, ENDED)
        with self._lock:  # so that `close` can wake it
            self._waiters.add(waiter)
        return waiter

    def _close_waiter(self, waiter: Waiter) -> None:
        with self._lock:
            self._waiters.discard(waiter)
        waiter.close()

    def status(self, queue: str, job_id: str) -> JobStatus:
        return self._queue(queue).read(lambda tx: admin.status(tx, job_id))

    def queues(self) -> list[Queue]:
        if self._closed:
            raise self._is_closed()
        return list_queues(self._settings, self._namespace)

    def progress(self, queue: str, ids: Sequence[str] | None = None) -> dict[str, Progress]:
        return self._queue(queue).read(lambda tx: read_progress(tx, ids))

    def diagnose(self) -> list[Finding]:
        if self._closed:
            return super().diagnose()
        return diagnose(self._settings, self._namespace, self._durability)

    def make_url(self, *, with_passwords: bool = False) -> str:
        settings = {"namespace": self._namespace, "durability": str(self._durability)}
        return f"sqlite:///{quote(str(self._settings.path))}?{urlencode(settings)}"

    def close(self) -> None:
        with self._lock:
            self._closed = True
            consumers, waiters = list(self._consumers), list(self._waiters)
            self._consumers.clear()
        give_up = monotonic() + self._settings.retry_timeout_s
        for consumer in consumers:
            consumer.close_by(give_up)
        self._session.close()
        self._coordination.close()
        for waiter in waiters:
            waiter.wake()

    def _is_closed(self) -> Closed:
        return client_closed("SQLiteClient")

    def _queue(self, queue: str) -> QueueSession:
        return QueueSession(self._own_session(), self._settings, self._namespace, queue)

    def _own_session(self) -> Session:
        if os.getpid() != self._pid:  # after a fork: the parent's consumers are the parent's
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._consumers = []
            self._waiters = set()
        return self._session


def _failed(message: Message, error: BackendError) -> PublishOutcome:
    """What became of a message whose transaction failed."""
    is_open = isinstance(error, CommitUnknown)
    return PublishOutcome(message.id, PublishStatus.UNKNOWN if is_open else PublishStatus.REJECTED, error)
