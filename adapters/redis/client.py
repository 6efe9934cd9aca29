"""The backend for a Redis server."""

import os
import secrets
import threading
import weakref
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager, suppress
from time import monotonic
from typing import Any

from ...domain.errors import (
    BackendError,
    BackendUnavailable,
    Closed,
    JobsError,
    QueueConflict,
    QueueNotFound,
)
from ...domain.limits import check_name
from ...domain.queue import Queue
from ...domain.reporting import Progress
from ...ports import (
    Capabilities,
    DeadLetter,
    Durability,
    Finding,
    JobResult,
    Lease,
    Message,
    OrchestratorBackend,
    PublishOutcome,
    PublishStatus,
    QueueCounts,
    Redelivery,
    ResultStatus,
    Verdict,
)
from .chunks import CHUNK_BYTES, CHUNK_JOBS, in_chunks
from .connections import Argument
from .consumer_backend import RedisConsumerBackend
from .declared import Declared
from .diagnosis import diagnose
from .keys import QueueKeys
from .link import Link, OutOfReach, RefusedByServer
from .looking import list_queues, read_progress
from .records import read_error, read_letter, shown
from .refusals import check_queue, naming_queue
from .scripts import COUNTS, DECLARE, DELETE, LETTERS, PUBLISH, PURGE, RESULT, UNBURY, Script
from .server import Server, parsed_url
from .settings import Password, parsed_durability

_LAYOUT = "2"
_KEEP_MS = 600_000
"""How long an answer is kept for the case that it was lost."""
_RETRIED_S = 60.0
"""How long after an answer was lost a publish of the same id counts as a retry of it."""
_STATUS_OF = {ord("a"): PublishStatus.ACCEPTED, ord("d"): PublishStatus.DUPLICATE}
"""What the script says of a message."""


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
        durability: Durability = Durability.NONE,
        sweep_s: float = 5.0,
        retry_timeout_s: float = 5.0,
    ) -> None:
        super().__init__()
        check_name("namespace", namespace)
        server = Server(
            host=host,
            port=port,
            db=db,
            username=username,
            password=password,
            ssl=ssl,
            ssl_ca_certs=ssl_ca_certs,
            sentinels=sentinels,
            sentinel_service=sentinel_service,
            sentinel_password=sentinel_password,
        )
        self._client_name = f"mindtrace-jobs-{secrets.token_hex(4)}"
        self._link = server.link(
            "RedisClient",
            self._client_name,
            sweep_s=sweep_s,
            retry_timeout_s=retry_timeout_s,
            logger=self.logger,
        )
        self._declared = Declared(self._link, QueueKeys(namespace, "").mark)
        self._link.restore = self._declared.restore
        self._address = f"redis{'s' if ssl else ''}://{'' if sentinels else host}"
        self._namespace = namespace
        self._durability = parsed_durability(durability)
        self._sweep_s = sweep_s
        self._publishers: dict[str, _Publisher] = {}
        self._consumers: weakref.WeakSet[RedisConsumerBackend] = weakref.WeakSet()
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def from_url(cls, url: str) -> "RedisClient":
        """Make a client from ``redis://[user[:password]@]host[:port][/db][?namespace=…]``.

        ``rediss://`` encrypts, and its query may name ``ssl_ca_certs``.
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
        )

    def declare(self, queue: Queue) -> None:
        keys = self._keys(queue.name)
        arguments = [queue.kind, _LAYOUT]
        with naming_queue(queue.name, self._link):
            kind, layout = self._link.run(DECLARE, keys.for_declare(), arguments)
        if shown(kind) != queue.kind:
            raise QueueConflict(
                f"queue {queue.name!r} exists as {shown(kind)}, not {queue.kind}: "
                "declare it as it is, or delete it first"
            )
        if shown(layout or b"unknown") != _LAYOUT:
            raise QueueConflict(
                f"queue {queue.name!r} was made by another release: its layout is "
                f"{shown(layout or b'unknown')}, this one knows {_LAYOUT}"
            )
        with naming_queue(queue.name, self._link):
            self._declared.add(keys.for_declare(), arguments)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        self._check_open()
        publisher = self._publishers.get(queue)
        if publisher is None:
            with self._lock:
                publisher = self._publishers.setdefault(queue, _Publisher(self._link, self._keys(queue)))
        return publisher.publish(messages)

    def open_consumer(
        self, queue: str, *, lease_s: float = 30.0, prefetch: int | None = None
    ) -> RedisConsumerBackend:
        keys = self._keys(queue)
        self.counts(queue)  # raises QueueNotFound
        with naming_queue(queue, self._link):
            self._link.resume(keys.for_resume(), round(lease_s * 1000))
        consumer = RedisConsumerBackend(self._link, keys, lease_s=lease_s, sweep_s=self._sweep_s)
        with self._lock:
            self._consumers.add(consumer)
        return consumer

    def counts(self, queue: str) -> QueueCounts:
        keys = self._keys(queue)
        with naming_queue(queue, self._link):
            return QueueCounts(*self._link.run(COUNTS, keys.for_counts(), []))

    def purge(self, queue: str) -> int:
        keys, waiting, purged = self._keys(queue), self.counts(queue).waiting, 0
        with self._operation(keys) as operation:
            # What is published meanwhile may be dropped as well; what was there when it began always is.
            while purged < waiting:
                dropped: int = operation.run(PURGE, keys.for_purge(operation.id), [CHUNK_JOBS])
                if not dropped:
                    break
                purged += dropped
        return purged

    def delete(self, queue: str) -> None:
        keys = self._keys(queue)
        self._declared.remove(keys.for_declare())
        self._link.forget(keys.for_resume())
        with self._operation(keys) as operation:
            operation.run(DELETE, keys.for_delete(operation.id), [])

    def dead_letters(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        names, found, last = self._keys(queue).for_letters(), list[DeadLetter](), b""
        with naming_queue(queue, self._link):
            while True:  # page by page, each after the death that ended the one before
                size = min(CHUNK_JOBS, limit - len(found))
                last, *columns = self._link.run(LETTERS, names, [offset, size, CHUNK_BYTES, last])
                found += [read_letter(*row) for row in zip(*columns, strict=True)]
                if not last or len(found) >= limit:
                    return found

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._unbury("redrive", queue, ids)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        return self._unbury("discard", queue, ids)

    def _unbury(self, how: str, queue: str, ids: Sequence[str] | None) -> int:
        keys, upto, count = self._keys(queue), "", 0
        with self._operation(keys) as operation:
            names = keys.for_unbury(operation.id)
            if ids is not None:
                for chunk in in_chunks(dict.fromkeys(ids)):
                    taken, _ = operation.run(UNBURY, names, [how, "", CHUNK_JOBS, *chunk]).split()
                    count += int(taken)
                return count
            while True:  # up to the last death of when it began: those that come meanwhile stay
                taken, last = operation.run(UNBURY, names, [how, upto, CHUNK_JOBS, "*"]).split()
                upto = last.decode()
                count += int(taken)
                if int(taken) < CHUNK_JOBS:
                    return count

    @contextmanager
    def _operation(self, keys: QueueKeys) -> Iterator["_Operation"]:
        """Requests that are each carried out once, however often they are sent; and what refuses them."""
        operation = _Operation(self._link)
        with naming_queue(keys.queue, self._link):
            yield operation
        with suppress(BackendError, OutOfReach, Closed):  # else it expires
            self._link.forget_requests(keys.last(operation.id))

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        keys = self._keys(queue)
        give_up = monotonic() + timeout_s
        while True:
            wait_s = min(self._sweep_s, give_up - monotonic())
            with naming_queue(queue, self._link):
                announced_ms = round(wait_s * 1000) + 1000 if wait_s > 0 else 0
                answer = self._link.run(RESULT, keys.for_result(), [job_id, announced_ms])
            if answer[0] == b"done":
                return JobResult(ResultStatus.DONE, answer[1] or None)
            if answer[0] == b"failed":
                return JobResult(ResultStatus.FAILED, error=read_error(answer[1]))
            if wait_s <= 0:
                return None
            self._link.wait([(keys.rwake, answer[1].decode())], wait_s)

    def queues(self) -> list[Queue]:
        self._check_open()
        return list_queues(self._link, self._namespace)

    def progress(self, queue: str, ids: Sequence[str] | None = None) -> dict[str, Progress]:
        return read_progress(self._link, self._keys(queue), ids)

    def diagnose(self) -> list[Finding]:
        findings = super().diagnose()
        if any(finding.verdict is Verdict.WRONG for finding in findings):
            return findings
        return findings + diagnose(self._link, self._namespace, self._durability, _LAYOUT, self._address)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumers, publishers = list(self._consumers), list(self._publishers.values())
        self._link.end_soon()
        for consumer in consumers:
            consumer.close()
        for publisher in publishers:
            publisher.close()
        self._link.close()

    def _keys(self, queue: str) -> QueueKeys:
        self._check_open()
        return QueueKeys(self._namespace, queue)

    def _check_open(self) -> None:
        if os.getpid() != self._pid:
            self._start_anew()
        if self._closed:
            raise Closed("this RedisClient is closed")

    def _start_anew(self) -> None:
        """After a fork: be another client, or the server would take this one's requests for the parent's."""
        self._pid = os.getpid()
        self._lock = threading.Lock()
        self._publishers = {}
        self._consumers = weakref.WeakSet()


class _Operation:
    """Some requests, one after the other, that are numbered like those of a publisher."""

    def __init__(self, link: Link) -> None:
        self.id = secrets.token_hex(8)
        self._link = link
        self._requests = 0

    def run(self, script: Script, keys: Sequence[str], arguments: Sequence[Argument]) -> Any:
        self._requests += 1
        return self._link.run(script, keys, [self._requests, _KEEP_MS, *arguments])


class _Publisher:
    """Publishes into one queue, one request after the other, and keeps track of those left open."""

    def __init__(self, link: Link, keys: QueueKeys) -> None:
        self._link = link
        self._keys = keys
        self._client = secrets.token_hex(8)
        self._names = keys.for_publish(self._client)
        self._requests = 0
        self._open: tuple[str, list[str]] | None = None
        """The request whose answer never came, and the ids that it held."""
        self._settled: dict[str, float] = {}
        """Ids that were answered UNKNOWN but are in the queue (PUB-5), and until when that is of interest."""
        self._lock = threading.Lock()

    def publish(self, messages: Sequence[Message]) -> list[PublishOutcome]:
        retry_timeout_s = None if self._lock.acquire(blocking=False) else self._wait_for_turn()
        try:
            if len(messages) == 1:
                return self._publish_chunk(list(messages), retry_timeout_s)
            return self._publish_chunks(messages, retry_timeout_s)
        finally:
            self._lock.release()

    def _wait_for_turn(self) -> float:
        """Take the lock, and return how many seconds of patience are left then."""
        give_up = monotonic() + self._link.retry_timeout_s
        if not self._lock.acquire(timeout=self._link.retry_timeout_s):
            late = self._link.too_late()
            raise self._link.unavailable(late) from late.error
        return give_up - monotonic()

    def _publish_chunks(
        self, messages: Sequence[Message], retry_timeout_s: float | None
    ) -> list[PublishOutcome]:
        outcomes: list[PublishOutcome] = []
        failure: JobsError | None = None
        status = PublishStatus.UNKNOWN
        for chunk in in_chunks(messages, lambda message: len(message.body)):
            if failure is None:
                try:
                    answers = self._publish_chunk(chunk, retry_timeout_s)
                    outcomes += answers
                    failure, retry_timeout_s = _outage(answers), None
                    continue
                except JobsError as error:
                    if not outcomes:
                        raise
                    failure = error  # told by message, or those before would be left without an answer
                    if isinstance(error, QueueNotFound | BackendUnavailable):  # nothing of it was sent
                        status = PublishStatus.REJECTED
            outcomes += self._answer(chunk, status, failure)
        return outcomes

    def _publish_chunk(self, messages: list[Message], retry_timeout_s: float | None) -> list[PublishOutcome]:
        if self._open is not None:
            try:
                self._resolve_open(*self._open, retry_timeout_s)
            except OutOfReach as out:
                return self._unsent(messages, out)
        if self._settled:
            return self._publish_again(messages, retry_timeout_s)
        return self._send(messages, retry_timeout_s)

    def _unsent(self, messages: list[Message], out: OutOfReach) -> list[PublishOutcome]:
        """Answer for messages that weren't sent now; a request whose answer never came may have held them."""
        _, open_ids = self._open or ("", [])
        error = self._link.unavailable(out)
        if not {message.id for message in messages} & set(open_ids):
            raise error from out.error
        unknown, rejected = PublishStatus.UNKNOWN, PublishStatus.REJECTED
        return [
            PublishOutcome(message.id, unknown if message.id in open_ids else rejected, error)
            for message in messages
        ]

    def _publish_again(self, messages: list[Message], retry_timeout_s: float | None) -> list[PublishOutcome]:
        """Publish what isn't in the queue already though it was answered UNKNOWN."""
        now = monotonic()
        self._settled = {id_: until for id_, until in self._settled.items() if until > now}
        known = {message.id for message in messages} & self._settled.keys()
        fresh = [message for message in messages if message.id not in known]
        answers = iter(self._send(fresh, retry_timeout_s) if fresh else [])
        for id_ in known:  # answered now; the next publish of such an id is a new one
            self._settled.pop(id_)
        duplicate = PublishStatus.DUPLICATE
        return [
            PublishOutcome(message.id, duplicate) if message.id in known else next(answers)
            for message in messages
        ]

    def _send(self, messages: list[Message], retry_timeout_s: float | None) -> list[PublishOutcome]:
        self._requests += 1
        ids = ",".join([message.id for message in messages])
        bodies = [message.body for message in messages]
        arguments: list[Argument] = [str(self._requests), _KEEP_MS, ids, _plans(messages), *bodies]
        try:
            answer: bytes = self._link.run(PUBLISH, self._names, arguments, retry_timeout_s=retry_timeout_s)
        except OutOfReach as out:
            if not out.may_have_run:
                raise self._link.unavailable(out) from out.error
            self._open = (str(self._requests), [message.id for message in messages])
            return self._answer(messages, PublishStatus.UNKNOWN, self._link.unavailable(out))
        except RefusedByServer as error:
            check_queue(self._keys.queue, error)
            if error.may_have_run:
                self._open = (str(self._requests), [message.id for message in messages])
                return self._answer(messages, PublishStatus.UNKNOWN, error)
            full = str(error).startswith(("OOM", "command not allowed when used memory"))
            why = BackendError(f"Redis is out of memory, nothing was published: {error}") if full else error
            return self._answer(messages, PublishStatus.REJECTED, why)
        new, status_of = tuple.__new__, _STATUS_OF  # a third of what PublishOutcome(...) costs
        return [
            new(PublishOutcome, (message.id, status_of[said], None))
            for message, said in zip(messages, answer, strict=True)
        ]

    def _answer(
        self, messages: list[Message], status: PublishStatus, error: JobsError
    ) -> list[PublishOutcome]:
        return [PublishOutcome(message.id, status, error) for message in messages]

    def _resolve_open(self, request: str, ids: list[str], retry_timeout_s: float | None) -> None:
        """Find out what became of the request whose answer never came, before another takes its place."""
        answer = (
            self._link.command("GET", self._keys.last(self._client), retry_timeout_s=retry_timeout_s) or b""
        )
        last, _, said = answer.decode().partition("|")
        if last == request:
            until = monotonic() + _RETRIED_S
            self._settled.update((id_, until) for id_, what in zip(ids, said, strict=True) if what == "a")
        self._open = None

    def close(self) -> None:
        with suppress(BackendError, OutOfReach, Closed):  # else it expires
            self._link.forget_requests(self._keys.last(self._client))


def _plans(messages: Sequence[Message]) -> str:
    """Priority and delay of each as the script reads them: nothing where none has any, as mostly."""
    if not any(message.priority or message.delay_s for message in messages):
        return ""
    return ",".join([f"{message.priority}:{round(message.delay_s * 1000)}" for message in messages])


def _outage(outcomes: Iterable[PublishOutcome]) -> JobsError | None:
    """What left messages open, so that it is no use to send more."""
    return next((each.error for each in outcomes if each.status is PublishStatus.UNKNOWN), None)
