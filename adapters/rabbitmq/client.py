"""The backend for a RabbitMQ server."""

import os
import threading
from collections.abc import Callable, Iterable, Iterator, Sequence
from functools import partial
from itertools import islice

from pydantic import SecretStr

from ...domain import Queue
from ...domain.errors import (
    BackendError,
    Closed,
    QueueNotFound,
    UnsupportedCapability,
)
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
    ResultStore,
    Verdict,
)
from .admin import Admin, not_declared
from .consumer_backend import RabbitMQConsumerBackend
from .delays import DELAY_UNIT_S
from .diagnosis import diagnose
from .letters import DeadLetters, Letter
from .link import Link
from .message import dead_letter, fresh_properties, id_of, revived_properties
from .outbox import Outbox, Parcel, Sent
from .publisher import Fate
from .results import Results
from .settings import (
    Settings,
    check_settings,
    checked_addresses,
    checked_namespace,
    checked_prefetch,
    parsed_url,
    secret,
)
from .topology import Names, names_of
from .wire import LineBroken

_MOVE_S = 1.0
"""How long the broker may take to move a due job to its next queue, in which time no count has it."""
_CHUNK = 200
"""How many dead letters are moved at a time."""
_CHUNK_JOBS = 2000
"""The most messages that are sent before their confirms are waited for."""
_CHUNK_BYTES = 8 * 1024 * 1024
_STATUS = {
    Fate.CONFIRMED: PublishStatus.ACCEPTED,
    Fate.UNKNOWN: PublishStatus.UNKNOWN,
    Fate.UNROUTABLE: PublishStatus.REJECTED,
    Fate.REFUSED: PublishStatus.REJECTED,
    Fate.UNWRITABLE: PublishStatus.REJECTED,
    Fate.UNSENT: PublishStatus.REJECTED,
}


class RabbitMQClient(OrchestratorBackend):
    """Queues in a RabbitMQ server, version 4.0 or newer.

    It connects when it is first used, and reconnects by itself. It has one connection to publish, one to
    administer, and one for each consumer; whoever waits for one does its I/O, and one thread keeps up the
    heartbeats of those that nobody waits for.

    Args:
        host: The server's host name.
        port: Its port.
        username: Whom to connect as.
        password: The password; shown nowhere.
        vhost: The virtual host.
        namespace: Clients of the same namespace and virtual host share their queues.
        hosts: Host and port of each node of a cluster, tried in turn; in place of ``host``.
        ssl: Encrypt the connection, and verify the server's certificate.
        ssl_ca_certs: A file of certificates to verify it against; the system's by default.
        prefetch: How many jobs a consumer takes at once unless it says otherwise; None adapts it to how long
            jobs take.
        results: Where results are kept, which RabbitMQ can't; without it they are unsupported. It is closed
            with this client.
        heartbeat_s: How often, in seconds, each side shows that it lives. A worker that was cut off without a
            word loses its jobs after about two of them.
        retry_timeout_s: How many seconds a call tries to reach the server before it fails.

    Raises:
        InvalidName: the namespace breaks the rule for names, or is longer than 96 characters.
        InvalidInput: another setting can't be used.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 5672,
        username: str = "guest",
        password: str | SecretStr = "guest",  # noqa: S107 - RabbitMQ's own, which it takes from localhost only
        *,
        vhost: str = "/",
        namespace: str = "default",
        hosts: Sequence[tuple[str, int]] = (),
        ssl: bool = False,
        ssl_ca_certs: str | None = None,
        prefetch: int | None = 1,
        results: ResultStore | None = None,
        heartbeat_s: int = 15,
        retry_timeout_s: float = 5.0,
    ) -> None:
        super().__init__()
        self._namespace = checked_namespace(namespace)
        settings = check_settings(
            Settings(
                checked_addresses(host, port, hosts),
                username,
                secret(password),
                vhost,
                ssl,
                ssl_ca_certs,
                heartbeat_s,
                retry_timeout_s,
            )
        )
        self._is_exposed = settings.is_exposed
        if settings.is_exposed:
            self.logger.warning(
                "the connection to RabbitMQ at %s isn't encrypted: anyone on the way can change jobs, "
                "and read the password; use ssl=True or an amqps:// URL",
                settings.shown,
            )
        self._make_link = partial(
            Link, settings.parameters(), settings.shown, retry_timeout_s=retry_timeout_s, logger=self.logger
        )
        self._default_prefetch = checked_prefetch(prefetch)
        self._results = None if results is None else Results(results, self.logger)
        self._consumers: set[RabbitMQConsumerBackend] = set()
        """Those that are open: each has a connection, and jobs that only its end gives back."""
        self._lock = threading.Lock()
        self._lines: _Lines | None = None
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def from_url(cls, url: str, *, results: ResultStore | None = None) -> "RabbitMQClient":
        """Make a client from ``amqp://[user[:password]@]host[:port][,host[:port]…][/vhost][?…]``.

        ``amqps://`` encrypts. The query may name ``namespace``, ``prefetch`` (a number, or ``adaptive``),
        ``heartbeat_s`` and, with ``amqps://``, ``ssl_ca_certs``. ``Orchestrator(url)`` takes ``results``
        besides, the URL of a store.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        return cls(**parsed_url(url), results=results)

    @property
    def capabilities(self) -> Capabilities:
        return Capabilities(
            stack=False,
            priority=True,
            dedupe=False,
            results=self._results is not None,
            lease=Lease.CONNECTION,
            redelivery=Redelivery.NEAR_HEAD,
            durability=Durability.FSYNC,
            delay_resolution_s=2 * DELAY_UNIT_S,
            counts_in_flight=False,
            counts_lag_s=_MOVE_S,
            # Such queues are classic ones, which are confirmed before the disk has them.
            priority_durability=Durability.NONE,
        )

    # -- queues -----------------------------------------------------------------------------------

    def declare(self, queue: Queue) -> None:
        names, lines = self._names(queue.name), self._open()
        self.capabilities.require_kind(queue)
        lines.admin.declare(names, queue)

    def counts(self, queue: str) -> QueueCounts:
        ready, delayed, dead = self._open().admin.counts(self._names(queue))
        return QueueCounts(ready=ready, delayed=delayed, in_flight=None, dead=dead)

    def purge(self, queue: str) -> int:
        return self._open().admin.purge(self._names(queue))

    def delete(self, queue: str) -> None:
        names, admin = self._names(queue), self._open().admin
        try:
            admin.delete(names)
        finally:  # also of a queue that is gone: where the store was away, delete it once more
            self._forget(names)

    # -- jobs -------------------------------------------------------------------------------------

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        names, lines = self._names(queue), self._open()
        if not messages:
            lines.admin.require(names)
        if self._results is not None and messages:
            self._results.try_forget(names.results, [message.id for message in messages])
        outcomes: list[PublishOutcome] = []
        for chunk in _bounded(messages):
            parcels = [
                Parcel(fresh_properties(message.id, message.priority), message.body, message.delay_s)
                for message in chunk
            ]
            try:
                sent = lines.outbox.send(names, parcels)
            except (BackendError, Closed) as error:
                if not outcomes:
                    raise
                sent = [Sent(Fate.UNSENT, error)] * len(chunk)
            outcomes += map(_outcome, chunk, sent)
        if messages and all(isinstance(outcome.error, QueueNotFound) for outcome in outcomes):
            raise not_declared(queue)
        return outcomes

    def open_consumer(
        self, queue: str, *, lease_s: float = 30.0, prefetch: int | None = None
    ) -> RabbitMQConsumerBackend:
        names, lines = self._names(queue), self._open()
        consumer = RabbitMQConsumerBackend(
            lines.link,
            names,
            partial(lines.admin.kind_of, names),
            lines.outbox,
            results=self._results,
            prefetch=self._default_prefetch if prefetch is None else prefetch,
            on_close=self._consumers.discard,
        )
        with self._lock:
            if not self._closed:
                self._consumers.add(consumer)
                return consumer
        consumer.close()
        raise Closed("this RabbitMQClient is closed")

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        if self._results is None:
            raise UnsupportedCapability(
                "RabbitMQ keeps no results: give its client a store for them, as in "
                "RabbitMQClient(results=RedisResultStore(...))"
            )
        names, admin = self._names(queue), self._open().admin
        admin.require(names)
        return self._results.get(names.results, job_id, timeout_s=timeout_s)

    def _forget(self, names: Names, ids: Sequence[str] | None = None) -> None:
        """Forget how jobs of these ids ended in an earlier life, or how all ended that the queue had."""
        if self._results is not None and ids != []:
            self._results.forget(names.results, ids)

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letters(self, queue: str, *, limit: int = 100, offset: int = 0) -> list[DeadLetter]:
        lines, names = self._open(), self._names(queue)
        if not any(lines.admin.dead(names)):
            return []

        def look(_timeout_s: float) -> list[Letter]:
            with lines.letters.reading(names) as reading:
                return list(islice(reading, offset, offset + limit))

        return [dead_letter(letter.properties, letter.body) for letter in lines.link.persist(look)]

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        lines, names = self._open(), self._names(queue)
        kind = lines.admin.kind_of(names)

        def revive(letters: list[Letter]) -> list[Letter]:
            self._forget(names, [_id(letter) for letter in letters])
            parcels = [Parcel(revived_properties(letter.properties, kind), letter.body) for letter in letters]
            sent = lines.outbox.send(names, parcels)
            return [letter for letter, one in zip(letters, sent, strict=True) if one.fate is Fate.CONFIRMED]

        return self._remove(queue, ids, revive)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        def forget(letters: list[Letter]) -> list[Letter]:
            self._forget(self._names(queue), [_id(letter) for letter in letters])
            return letters

        return self._remove(queue, ids, forget)

    def _remove(
        self, queue: str, ids: Sequence[str] | None, handle: Callable[[list[Letter]], list[Letter]]
    ) -> int:
        """Take out letters that ``handle`` has dealt with, in bounded chunks; say how many."""
        lines, names = self._open(), self._names(queue)
        wanted = None if ids is None else set(ids)
        if not any(lines.admin.dead(names)) or wanted == set():
            return 0
        removed = 0
        # Whoever wants some has to see all of them; whoever wants all can have them bit by bit.
        at_once = _CHUNK if wanted is None else 0
        try:
            with lines.letters.reading(names, at_once=at_once) as reading:
                for chunk in _chunks(letter for letter in reading if wanted is None or _id(letter) in wanted):
                    handled = handle(chunk)
                    reading.drop(handled)
                    removed += len(handled)
        except LineBroken as broken:
            lines.link.refuse(broken)
            raise lines.link.unavailable(broken) from broken.cause
        return removed

    def diagnose(self) -> list[Finding]:
        findings = super().diagnose()
        if all(finding.verdict is Verdict.GOOD for finding in findings):
            findings += diagnose(self._open().link, self._namespace, exposed=self._is_exposed)
        return findings

    # -- lines ------------------------------------------------------------------------------------

    def close(self) -> None:
        self._notice_fork()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumers, lines = list(self._consumers), self._lines
        for consumer in consumers:
            consumer.close()
        if lines is not None:
            lines.close()
        if self._results is not None:
            self._results.close()

    def _names(self, queue: str) -> Names:
        return names_of(self._namespace, queue)

    def _open(self) -> "_Lines":
        self._notice_fork()
        with self._lock:
            if self._closed:
                raise Closed("this RabbitMQClient is closed")
            if self._lines is None:
                self._lines = _Lines(self._make_link())
            return self._lines

    def _notice_fork(self) -> None:
        """Begin anew in a child, whose parent goes on over the connections that are open."""
        if os.getpid() != self._pid:
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._lines = None
            self._consumers = set()


class _Lines:
    """What one process has open to the server."""

    def __init__(self, link: Link) -> None:
        self.link = link
        self.admin = Admin(link)
        self.outbox = Outbox(link, self.admin)
        self.letters = DeadLetters(link, self.admin.dead)

    def close(self) -> None:
        self.link.stop_trying()
        self.admin.close()
        self.outbox.close()
        self.link.close()


def _outcome(message: Message, sent: Sent) -> PublishOutcome:
    return PublishOutcome(message.id, _STATUS[sent.fate], sent.error)


def _id(letter: Letter) -> str:
    return id_of(letter.properties)


def _bounded(messages: Iterable[Message]) -> Iterator[list[Message]]:
    """Cut a batch into chunks that are bounded in number and size."""
    chunk: list[Message] = []
    size = 0
    for message in messages:
        if chunk and (len(chunk) >= _CHUNK_JOBS or size + len(message.body) > _CHUNK_BYTES):
            yield chunk
            chunk, size = [], 0
        chunk.append(message)
        size += len(message.body)
    if chunk:
        yield chunk


def _chunks(letters: Iterable[Letter]) -> Iterator[list[Letter]]:
    remaining = iter(letters)
    while chunk := list(islice(remaining, _CHUNK)):
        yield chunk
