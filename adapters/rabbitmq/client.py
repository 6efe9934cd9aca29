"""The backend for a RabbitMQ server."""

import os
import threading
from collections.abc import Sequence
from functools import partial
from time import monotonic

from pydantic import SecretStr

from ...domain import Queue
from ...domain.bounds import MAX_LISTED
from ...domain.defaults import DEFAULT_LEASE_S
from ...domain.errors import BackendUnavailable, JobsError, QueueNotFound, UnsupportedCapability
from ...ports import (
    Capabilities,
    CoordinationStore,
    DeadLetter,
    Durability,
    EndedJobs,
    Finding,
    JobResult,
    Lease,
    Message,
    Migration,
    OrchestratorBackend,
    PublishOutcome,
    QueueCounts,
    Redelivery,
    ResultStore,
    Verdict,
)
from ..shared.error_messages import client_closed, not_declared
from .admin import Admin
from .consumer import RabbitMQConsumerBackend
from .dead_letters import DeadLetters, DeadMessage
from .delays import DELAY_UNIT_S
from .diagnosis import diagnose
from .message import dead_letter, revived_properties
from .publisher import Publisher
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
from .stores import Stores
from .topology import Names, names_of
from .transport.broker import Broker
from .transport.publishing import Outgoing, SendState

_LOOK_S = 1.0
"""How long who waits for a result waits before the queue is looked for again."""
_NOTICING = threading.Lock()
"""Taken by threads of a child only, as they notice that it is one."""
_MOVE_S = 1.0
"""How long the broker may take to move a due job to its next queue, in which time no count has it."""


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
        store: A coordination store, on which schedules, unique jobs and pauses stand; without it they are
            unsupported. Several clients may have the same. It isn't closed with this client.
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
        store: CoordinationStore | None = None,
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
        self._settings = settings
        if settings.is_exposed:
            self.logger.warning(
                "the connection to RabbitMQ at %s isn't encrypted: anyone on the way can change jobs, "
                "and read the password; use ssl=True or an amqps:// URL",
                settings.shown,
            )
        self._make_broker = partial(
            Broker, settings.parameters(), settings.shown, retry_timeout_s=retry_timeout_s, logger=self.logger
        )
        self._default_prefetch = checked_prefetch(prefetch)
        self._stores = Stores(results, store, self._namespace, self.logger)
        self._results = self._stores.results
        self._look_s = _LOOK_S
        self._consumers: set[RabbitMQConsumerBackend] = set()
        """Those that are open: each has a connection, and jobs that only its end gives back."""
        self._lock = threading.Lock()
        self._parts: _Parts | None = None
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def from_url(
        cls, url: str, *, results: ResultStore | None = None, store: CoordinationStore | None = None
    ) -> "RabbitMQClient":
        """Make a client from ``amqp://[user[:password]@]host[:port][,host[:port]…][/vhost][?…]``.

        ``amqps://`` encrypts. The query may name ``namespace``, ``prefetch`` (a number, or ``adaptive``),
        ``heartbeat_s``, ``retry_timeout_s`` and, with ``amqps://``, ``ssl_ca_certs``. ``Orchestrator(url)``
        takes ``results`` and ``store`` besides, the URLs of stores, and gives both here. The client closes
        them, unlike a ``store`` that is given to its class: give it there if other clients have it as well.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        client = cls(**parsed_url(url), results=results, store=store)
        client._stores.owns_coordination = True
        return client

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
            coordination=self._stores.coordination is not None,
            freed_places=self._stores.coordination is not None
            and self._stores.coordination.tells_freed_places,
            then=True,
            dead_ttl=True,
        )

    # -- queues -----------------------------------------------------------------------------------

    def declare(self, queue: Queue) -> None:
        names, parts = self._names(queue.name), self._open()
        self.capabilities.require_kind(queue)
        parts.admin.declare(names, queue)

    def counts(self, queue: str) -> QueueCounts:
        return self._open().admin.counts(self._names(queue))

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
        names, parts = self._names(queue), self._open()
        if not messages:
            parts.admin.require(names)
        if self._results is not None and messages:
            self._results.try_forget(names.results, [message.id for message in messages])
        outcomes = parts.publisher.publish(names, messages)
        if messages and all(isinstance(outcome.error, QueueNotFound) for outcome in outcomes):
            raise not_declared(queue)
        return outcomes

    def open_consumer(
        self, queue: str, *, lease_s: float = DEFAULT_LEASE_S, prefetch: int | None = None
    ) -> RabbitMQConsumerBackend:
        names, parts = self._names(queue), self._open()
        consumer = RabbitMQConsumerBackend(
            parts.broker,
            names,
            partial(parts.admin.kind_of, names),
            parts.publisher,
            self.publish,
            results=self._results,
            prefetch=self._default_prefetch if prefetch is None else prefetch,
            on_close=self._consumers.discard,
        )
        with self._lock:
            if not self._closed:
                self._consumers.add(consumer)
                return consumer
        consumer.close()
        raise client_closed("RabbitMQClient")

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        give_up = monotonic() + timeout_s
        while True:
            results, name = self._results_of(queue)  # each time: the store doesn't tell that it was deleted
            left_s = give_up - monotonic()
            found = results.get(name, job_id, timeout_s=max(0.0, min(left_s, self._look_s)))
            if found is not None or left_s <= self._look_s:
                return found

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        results, name = self._results_of(queue)
        return results.get_many(name, ids)

    def ended_jobs(self, queue: str) -> EndedJobs:
        results, name = self._results_of(queue)
        return results.ended_jobs(name)

    @property
    def coordination(self) -> CoordinationStore:
        return self._stores.coordination or super().coordination

    def _results_of(self, queue: str) -> tuple[Results, str]:
        """Where the results of a declared queue are, and what it is called there."""
        if self._results is None:
            raise UnsupportedCapability(
                "RabbitMQ keeps no results: name a store for them, in the URL as in "
                "amqp://localhost?results=redis://localhost:6379/0, or as in "
                "RabbitMQClient(results=RedisResultStore(...)); workers need it, too"
            )
        names, admin = self._names(queue), self._open().admin
        admin.require(names)
        return self._results, names.results

    def _forget(self, names: Names, ids: Sequence[str] | None = None) -> None:
        """Forget how jobs of these ids ended in an earlier life, or how all ended that the queue had."""
        if self._results is not None and ids != []:
            self._results.forget(names.results, ids)

    # -- dead letters -----------------------------------------------------------------------------

    def dead_letters(self, queue: str, *, limit: int = MAX_LISTED, offset: int = 0) -> list[DeadLetter]:
        page = self._open().dead_letters.page(self._names(queue), limit, offset)
        return [dead_letter(message.properties, message.body) for message in page]

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        parts, names = self._open(), self._names(queue)
        kind = parts.admin.kind_of(names)
        failed: list[Outgoing] = []

        def publish_again(messages: Sequence[DeadMessage]) -> Sequence[DeadMessage]:
            self._forget(names, [message.id for message in messages])
            revived = [
                Outgoing(names.work, revived_properties(message.properties, kind), message.body)
                for message in messages
            ]
            parts.publisher.send(names, revived)
            failed.extend(again for again in revived if again.state is not SendState.CONFIRMED)
            return [
                message
                for message, again in zip(messages, revived, strict=True)
                if again.state is SendState.CONFIRMED
            ]

        redriven = parts.dead_letters.remove(names, ids, publish_again, _REDRIVEN_AND_MAYBE_DEAD)
        if failed:
            raise _not_redriven(queue, redriven, failed)
        return redriven

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        names = self._names(queue)

        def forget(messages: Sequence[DeadMessage]) -> Sequence[DeadMessage]:
            self._forget(names, [message.id for message in messages])
            return messages

        return self._open().dead_letters.remove(
            names, ids, forget, "may be gone; look, and discard what is left"
        )

    def diagnose(self) -> list[Finding]:
        findings = super().diagnose()
        if all(finding.verdict is Verdict.GOOD for finding in findings):
            findings += diagnose(self._open().broker, self._namespace, exposed=self._settings.is_exposed)
        return findings + self._stores.diagnose()

    def pending_migrations(self) -> Sequence[Migration] | None:
        return self._stores.pending_migrations()

    def migrate(self) -> Sequence[Migration]:
        return self._stores.migrate()

    def make_url(self, *, with_passwords: bool = False) -> str:
        stores = self._stores.urls(with_passwords=with_passwords)
        return self._settings.url(
            self._namespace, self._default_prefetch, stores, with_passwords=with_passwords
        )

    # -- parts ------------------------------------------------------------------------------------

    def close(self) -> None:
        self._notice_fork()
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumers, parts = list(self._consumers), self._parts
        for consumer in consumers:
            consumer.close()
        if parts is not None:
            parts.close()
        self._stores.close()

    def _names(self, queue: str) -> Names:
        return names_of(self._namespace, queue)

    def _open(self) -> "_Parts":
        self._notice_fork()
        with self._lock:
            if self._closed:
                raise client_closed("RabbitMQClient")
            if self._parts is None:
                self._parts = _Parts(self._make_broker())
            return self._parts

    def _notice_fork(self) -> None:
        """Begin anew in a child, whose parent goes on over the connections that are open."""
        if os.getpid() != self._pid:
            with _NOTICING:
                if os.getpid() != self._pid:
                    self._lock = threading.Lock()
                    self._parts = None
                    self._consumers = set()
                    self._pid = os.getpid()  # last: it lets other threads go on


_REDRIVEN_AND_MAYBE_DEAD = (
    "are ready; discard those of them that are listed as dead still, as another redrive would run them twice"
)
"""Of jobs that were published again, and whose dead letters the broker may have put back."""


def _not_redriven(queue: str, redriven: int, failed: Sequence[Outgoing]) -> JobsError:
    """Return what to raise where jobs weren't confirmed that were published again; they stay dead."""
    error = failed[0].error
    unknown = sum(message.state is SendState.UNKNOWN for message in failed)
    if not unknown and not redriven and error is not None:
        return error
    if not unknown:
        reason = error or "RabbitMQ is out of reach"
        return BackendUnavailable(
            f"queue {queue!r}: {redriven} dead jobs were redriven, and the next can't be now ({reason}); "
            "they are dead still: redrive them later"
        )
    return BackendUnavailable(
        f"queue {queue!r}: {redriven} dead jobs were redriven, and of {unknown} more it isn't known "
        f"({error}): they may be ready, and are still listed as dead; compare, then redrive or discard them"
    )


class _Parts:
    """What one process has open to the server."""

    def __init__(self, broker: Broker) -> None:
        self.broker = broker
        self.admin = Admin(broker)
        self.publisher = Publisher(broker, self.admin.make_levels)
        self.dead_letters = DeadLetters(broker, self.admin.dead)

    def close(self) -> None:
        self.broker.stop_retrying()
        self.admin.close()
        self.publisher.close()
        self.broker.close()
