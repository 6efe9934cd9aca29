"""The backend for a Redis server."""

import os
import secrets
import threading
import weakref
from collections.abc import Callable, Sequence
from time import monotonic
from typing import Any

from ...domain.bounds import MAX_LISTED, check_name
from ...domain.defaults import DEFAULT_LEASE_S, DEFAULT_RESULT_TTL_S
from ...domain.errors import QueueConflict
from ...domain.job_progress import Progress
from ...domain.queue import Queue
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
    QueueCounts,
    Redelivery,
    ResultStatus,
    Verdict,
)
from ..shared.error_messages import client_closed, kind_conflict
from ..shared.server_settings import Password, parsed_durability
from .admin import cancel, list_dead_letters, list_queues, read_error, read_progress, redrive_or_discard
from .consumer import RedisConsumerBackend
from .coordination import SharedCoordinationStore
from .declared_queues import DeclaredQueues
from .diagnosis import diagnose
from .ended_jobs import RedisEndedJobs, look_up
from .keys import QueueKeys
from .publisher import Publisher, publish_guarded
from .requests import CHUNK_JOBS, RemoteQueue, operation
from .scripts import (
    COUNTS,
    DECLARE,
    DELETE,
    ENDED_JOBS,
    FIRST_READY,
    GET_RESULT,
    GET_RESULTS,
    PROTECT_LEASES,
    PURGE,
    STATUS,
)
from .settings import DURABILITIES, ServerSettings, parsed_url
from .transport import Argument, as_text

_LAYOUT = "2"


class RedisClient(OrchestratorBackend):
    """Queues in a Redis server, version 7 or newer.

    It connects when it is first used, and reconnects by itself.

    Args:
        host: The server's host name.
        port: Its port.
        db: The number of its database.
        username: Whom to connect as; needs a password.
        password: The password; shown nowhere.
        namespace: Clients of the same namespace share their queues.
        ssl: Encrypt the connection, and verify the server's certificate.
        ssl_ca_certs: A file of certificates to verify it against; the system's by default.
        sentinels: Host and port of each Sentinel that is to say where the server is; in place of ``host``.
        sentinel_service: What the Sentinels call the server.
        sentinel_password: The Sentinels' own password, where they have one; shown nowhere.
        durability: What the server is set up to survive; declared in the capabilities, not changed by this.
        sweep_s: The longest, in seconds, that an idle consumer waits before it asks the server by itself: by
            then at the latest it finds what a consumer that died has left.
        retry_timeout_s: How many seconds a call tries to reach the server before it fails.

    Raises:
        InvalidInput: a setting is out of range or of the wrong type; the message says which.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 6379,
        db: int = 0,
        *,
        username: str | None = None,
        password: Password = None,
        namespace: str = "default",
        ssl: bool = False,
        ssl_ca_certs: str | None = None,
        sentinels: Sequence[tuple[str, int]] = (),
        sentinel_service: str = "mymaster",
        sentinel_password: Password = None,
        durability: Durability | str = Durability.NONE,
        sweep_s: float = 5.0,
        retry_timeout_s: float = 5.0,
    ) -> None:
        super().__init__()
        check_name("namespace", namespace)
        who = (username, password, ssl, ssl_ca_certs)
        server = ServerSettings(host, port, db, *who, sentinels, sentinel_service, sentinel_password)
        self._server = server
        self._client_name = f"mindtrace-jobs-{secrets.token_hex(4)}"
        self._redis = server.connect(
            "RedisClient",
            self._client_name,
            sweep_s=sweep_s,
            retry_timeout_s=retry_timeout_s,
            logger=self.logger,
        )
        self._declared = DeclaredQueues(self._redis, namespace)
        self._redis.redeclare = self._declared.redeclare
        self._coordination = SharedCoordinationStore(self._redis, namespace, sweep_s)
        self._address = f"redis{'s' if ssl else ''}://{'' if sentinels else host}"
        self._namespace = namespace
        self._durability = parsed_durability(durability, DURABILITIES)
        self._sweep_s = sweep_s
        self._publishers: dict[str, Publisher] = {}
        self._consumers: weakref.WeakSet[RedisConsumerBackend] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def from_url(cls, url: str) -> "RedisClient":
        """Make a client from ``redis://[user[:password]@]host[:port][/db][?namespace=…]``.

        Its query may also name ``retry_timeout_s``. ``rediss://`` encrypts, and may name ``ssl_ca_certs``.
        ``redis+sentinel://[user[:password]@]host[:port],…/service[/db]`` asks Sentinels; its query may name
        their ``sentinel_password``.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        return cls(**parsed_url(url))

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            stack=True,
            priority=True,
            dedupe=True,
            results=True,
            lease=Lease.TIMED,
            redelivery=Redelivery.HEAD,
            durability=self._durability,
            delay_resolution_s=0.05,
            counts_in_flight=True,
            coordination=True,
            freed_places=True,
            first_ready=True,
            guarded_publish=True,
            then=True,
            atomic_then=True,
            dead_ttl=True,
            exact_dead_ttl=True,
            cancel=True,
        )

    def declare(self, queue: Queue) -> None:
        kind, layout, now_us = self._queue(queue.name).run(DECLARE, [queue.kind, _LAYOUT])
        if as_text(kind) != queue.kind:
            raise kind_conflict(queue, as_text(kind))
        if as_text(layout or b"unknown") != _LAYOUT:
            raise QueueConflict(
                f"queue {queue.name!r} was made by another release: its layout is "
                f"{as_text(layout or b'unknown')}, this one knows {_LAYOUT}"
            )
        self._declared.add(queue.name, queue.kind, _LAYOUT, as_text(now_us))

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        if not messages:
            self.counts(queue)  # raises QueueNotFound
            return []
        self._check_open()
        publisher = self._publishers.get(queue)
        if publisher is None:
            with self._lock:
                publisher = self._publishers.setdefault(queue, Publisher(self._queue(queue)))
        return publisher.publish(messages)

    @property
    def coordination(self) -> CoordinationStore:
        return self._coordination

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        return publish_guarded(self._queue(queue), self._coordination, message, guard)

    def open_consumer(
        self, queue: str, *, lease_s: float = DEFAULT_LEASE_S, prefetch: int | None = None
    ) -> RedisConsumerBackend:
        remote = self._queue(queue)
        self.counts(queue)  # raises QueueNotFound
        with remote.errors:
            self._redis.protect_leases(remote.keys.of(PROTECT_LEASES), round(lease_s * 1000))
        consumer = RedisConsumerBackend(remote, lease_s=lease_s, sweep_s=self._sweep_s)
        with self._lock:
            self._consumers.add(consumer)
        return consumer

    def cancel(
        self, queue: str, ids: Sequence[str], *, result_ttl_s: float = DEFAULT_RESULT_TTL_S
    ) -> list[CancelOutcome]:
        return cancel(self._queue(queue), ids, result_ttl_s)

    def counts(self, queue: str) -> QueueCounts:
        return QueueCounts(*self._queue(queue).run(COUNTS))

    def first_ready(self, queue: str) -> bytes | None:
        body: bytes | None = self._queue(queue).run(FIRST_READY)
        return body

    def purge(self, queue: str) -> int:
        remote, waiting = self._queue(queue), self.counts(queue).waiting
        with operation(remote, PURGE) as run:
            return _purge(run, waiting)

    def delete(self, queue: str) -> None:
        remote = self._queue(queue)
        self._declared.remove(queue)
        self._redis.unprotect_leases(remote.keys.of(PROTECT_LEASES))
        with operation(remote, DELETE) as run:
            run([queue])

    def dead_letters(self, queue: str, *, limit: int = MAX_LISTED, offset: int = 0) -> list[DeadLetter]:
        return list_dead_letters(self._queue(queue), limit=limit, offset=offset)

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return redrive_or_discard(self._queue(queue), "redrive", ids)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return redrive_or_discard(self._queue(queue), "discard", ids)

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        remote = self._queue(queue)
        give_up = monotonic() + timeout_s
        while True:
            wait_s = min(self._sweep_s, give_up - monotonic())
            announced_ms = round(wait_s * 1000) + 1000 if wait_s > 0 else 0
            answer = remote.run(GET_RESULT, [job_id, str(announced_ms)])
            if answer[0] == b"done":
                return JobResult(ResultStatus.DONE, answer[1] or None)
            if answer[0] == b"cancelled":
                return JobResult(ResultStatus.CANCELLED)
            if answer[0] == b"failed":
                return JobResult(ResultStatus.FAILED, error=read_error(answer[1]))
            if wait_s <= 0:
                return None
            self._redis.wait([(remote.keys.rwake, answer[1].decode())], wait_s)

    def status(self, queue: str, job_id: str) -> JobStatus:
        answer: bytes = self._queue(queue).run(STATUS, [job_id])
        return JobStatus(answer.decode())

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        if not ids:
            self.counts(queue)  # raises QueueNotFound
        return {id_: _result(answer) for id_, answer in look_up(self._queue(queue).run, GET_RESULTS, ids)}

    def ended_jobs(self, queue: str) -> RedisEndedJobs:
        remote = self._queue(queue)
        keys = remote.keys.of(ENDED_JOBS)
        return RedisEndedJobs(self._redis, remote.run, ENDED_JOBS, keys, remote.keys.rwake)

    def queues(self) -> list[Queue]:
        self._check_open()
        return list_queues(self._redis, self._namespace)

    def progress(self, queue: str, ids: Sequence[str] | None = None) -> dict[str, Progress]:
        found = read_progress(self._queue(queue), ids)
        if not found:
            self.counts(queue)  # raises QueueNotFound
        return found

    def diagnose(self) -> list[Finding]:
        findings = super().diagnose()
        if any(finding.verdict is Verdict.WRONG for finding in findings):
            return findings
        return findings + diagnose(self._redis, self._namespace, self._durability, _LAYOUT, self._address)

    def make_url(self, *, with_passwords: bool = False) -> str:
        return self._server.url(self._namespace, with_passwords=with_passwords)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumers, publishers = list(self._consumers), list(self._publishers.values())
        self._redis.start_closing()
        for consumer in consumers:
            consumer.close()
        for publisher in publishers:
            publisher.close()
        self._coordination.close()
        self._redis.close()

    def _queue(self, queue: str) -> RemoteQueue:
        self._check_open()
        return RemoteQueue(self._redis, QueueKeys(self._namespace, queue))

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            self._forget_parent()
        if self._closed:
            raise client_closed("RedisClient")

    def _forget_parent(self) -> None:
        """After a fork: be another client, or the server would take this one's requests for the parent's."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._publishers = {}
        self._consumers = weakref.WeakSet()


def _purge(run: Callable[[Sequence[Argument]], Any], waiting: int) -> int:
    """Drop as many jobs as waited, in bounded chunks, and return how many there were."""
    purged = 0
    # What is published meanwhile may be dropped as well; what was there when it began always is.
    while purged < waiting:
        dropped: int = run([str(CHUNK_JOBS)])
        if not dropped:
            break
        purged += dropped
    return purged


def _result(answer: bytes) -> JobResult:
    if answer[:1] == b"f":
        return JobResult(ResultStatus.FAILED, error=read_error(answer[1:]))
    if answer[:1] == b"c":
        return JobResult(ResultStatus.CANCELLED)
    return JobResult(ResultStatus.DONE, answer[1:] or None)
