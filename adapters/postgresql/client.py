"""The backend for a PostgreSQL server."""

import os
import threading
from collections.abc import Mapping, Sequence

from ...domain.bounds import MAX_LISTED
from ...domain.defaults import DEFAULT_LEASE_S, DEFAULT_RESULT_TTL_S
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
    Migration,
    OrchestratorBackend,
    PublishOutcome,
    QueueCounts,
    Redelivery,
    Verdict,
)
from ..shared.error_messages import client_closed
from ..shared.server_settings import Password, check_duration, parsed_durability
from .admin import Admin
from .consumer import PostgreSQLConsumerBackend
from .coordination import ClientCoordinationStore
from .diagnosis import diagnose
from .lease_protection import LeaseProtection
from .publisher import Publisher
from .results import PostgreSQLEndedJobs, Results
from .session import Session
from .settings import (
    DEFAULT_NAMESPACE,
    DURABILITIES,
    ServerSettings,
    check_namespace,
    parsed_url,
)
from .statements import Statements
from .table_versions import Tables
from .transactional_publisher import TransactionalPublisher
from .wakeups import Wakeups


class PostgreSQLClient(OrchestratorBackend):
    """Queues in a PostgreSQL database, version 14 or newer.

    It connects when it is first used, and reconnects by itself. The first ``declare`` makes the tables.

    Args:
        host: The server's host name, or the folder of its socket.
        port: Its port.
        database: The database.
        username: Whom to connect as; by default, the user of this process.
        password: The password; shown nowhere.
        namespace: The schema of the tables, which is made where there is none. Clients of the same namespace
            share their queues.
        durability: What the server is set up to survive; declared in the capabilities, not changed by this.
        poll_s: The longest, in seconds, that an idle consumer, or who waits for a result, waits before it
            asks the server by itself. Behind a pooler that gives each transaction another connection,
            nothing else wakes it.
        retry_timeout_s: How many seconds a call tries to reach the server before it fails.
        prepared: Whether to prepare statements. Behind a pooler that doesn't allow it, the client finds out.
        more_hosts: Host and port of each further server, to connect to the first that answers; with
            ``libpq={"target_session_attrs": "read-write"}``, the one that isn't a standby.
        libpq: More of libpq's settings, such as ``sslmode`` and ``sslrootcert``.

    Raises:
        InvalidInput: a setting is out of range or of the wrong type; the message says which.
    """

    def __init__(
        self,
        host: str = "localhost",
        port: int = 5432,
        database: str = "postgres",
        *,
        username: str | None = None,
        password: Password = None,
        namespace: str = DEFAULT_NAMESPACE,
        durability: Durability | str = Durability.FSYNC,
        poll_s: float = 5.0,
        retry_timeout_s: float = 5.0,
        prepared: bool = True,
        more_hosts: Sequence[tuple[str, int]] = (),
        libpq: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._namespace = check_namespace(namespace)
        self._durability = parsed_durability(durability, DURABILITIES)
        hosts = ((host, port), *more_hosts)
        self._settings = ServerSettings(hosts, database, username, password, dict(libpq or {}), prepared)
        self._poll_s = check_duration("poll_s", poll_s)
        self._protect_leases = LeaseProtection(self._namespace, self._consumed_queues)
        self._session = Session(
            self._settings,
            self._namespace,
            "PostgreSQLClient",
            retry_timeout_s=check_duration("retry_timeout_s", retry_timeout_s),
            logger=self.logger,
            after_outage=self._protect_leases,
        )
        self._settings.warn_of_plaintext(self.logger)
        self._statements = Statements(self._namespace)
        self._wakeups = Wakeups(self._session, self._namespace, self.logger)
        self._tables = Tables(self._session, self.logger)
        self._admin = Admin(self._session, self._statements, self._tables)
        self._publisher = Publisher(self._session, self._statements)
        self._coordination = ClientCoordinationStore(
            self._session, self._statements, self._tables, self._wakeups
        )
        self._transactional = TransactionalPublisher(self._statements, self._namespace)
        self._results = Results(self._session, self._statements, self._wakeups, poll_s)
        self._consumers: list[PostgreSQLConsumerBackend] = []
        self._lock = threading.Lock()
        self._closed = False
        self._pid = os.getpid()

    @classmethod
    def from_url(cls, url: str) -> "PostgreSQLClient":
        """Make a client from ``postgresql://[user[:password]@]host[:port][,host[:port]]/database[?…]``.

        The query may name ``namespace`` (or ``schema``), ``durability``, ``prepared``, ``retry_timeout_s``,
        and settings of libpq such as ``sslmode``, ``sslrootcert`` and ``target_session_attrs``.

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
            redelivery=Redelivery.IN_ORDER,
            durability=self._durability,
            delay_resolution_s=0.05,
            counts_in_flight=True,
            transactional_publish=True,
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
        self._check_open()
        self._admin.declare(queue)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        self._require(queue)
        if not messages:
            self._admin.find_key(queue)  # raises QueueNotFound
        return self._publisher.publish(queue, messages)

    def publish_in(self, connection: object, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        self._check_open()
        return self._transactional.publish(connection, queue, messages)

    async def publish_in_async(
        self, connection: object, queue: str, messages: Sequence[Message]
    ) -> list[PublishOutcome]:
        self._check_open()
        return await self._transactional.publish_async(connection, queue, messages)

    @property
    def coordination(self) -> CoordinationStore:
        return self._coordination

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        self._require(queue)
        return self._publisher.publish_guarded(queue, message, guard)

    def open_consumer(
        self, queue: str, *, lease_s: float = DEFAULT_LEASE_S, prefetch: int | None = None
    ) -> PostgreSQLConsumerBackend:
        self._require(queue)
        key = self._admin.find_key(queue)
        settings = {"lease_s": lease_s, "poll_s": self._poll_s}
        consumer = PostgreSQLConsumerBackend(
            self._session, self._statements, self._wakeups, queue, key, **settings
        )
        with self._lock:  # so that `close` can't miss it
            if self._closed:
                raise client_closed("PostgreSQLClient")
            self._consumers = [*(each for each in self._consumers if not each.is_closed), consumer]
        # Its process may be new, and the server, too: this connection knew nothing of the queue.
        self._session.work(lambda connection: self._protect_leases(connection, 0.0))
        return consumer

    def _consumed_queues(self) -> set[int]:
        """The keys of the queues that have consumers here."""
        return {consumer.key for consumer in self._consumers if not consumer.is_closed}

    def cancel(
        self, queue: str, ids: Sequence[str], *, result_ttl_s: float = DEFAULT_RESULT_TTL_S
    ) -> list[CancelOutcome]:
        self._require(queue)
        return self._admin.cancel(queue, ids, result_ttl_s)

    def counts(self, queue: str) -> QueueCounts:
        self._check()
        return self._admin.counts(queue)

    def first_ready(self, queue: str) -> bytes | None:
        self._check()
        return self._admin.first_ready(queue)

    def purge(self, queue: str) -> int:
        self._require(queue)
        return self._admin.purge(queue)

    def delete(self, queue: str) -> None:
        self._require(queue)
        self._admin.delete(queue)

    def dead_letters(self, queue: str, *, limit: int = MAX_LISTED, offset: int = 0) -> list[DeadLetter]:
        self._require(queue)
        return self._admin.dead_letters(queue, limit, offset)

    def redrive(self, queue: str, ids: Sequence[str] | None = None) -> int:
        self._require(queue)
        return self._admin.redrive_or_discard(queue, ids, redrives=True)

    def discard(self, queue: str, ids: Sequence[str] | None = None) -> int:
        self._require(queue)
        return self._admin.redrive_or_discard(queue, ids, redrives=False)

    def result(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        self._require(queue)
        return self._results.result(queue, job_id, timeout_s)

    def results(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        self._require(queue)
        return self._results.results(queue, ids)

    def ended_jobs(self, queue: str) -> PostgreSQLEndedJobs:
        self._require(queue)
        return self._results.ended_jobs(queue)

    def status(self, queue: str, job_id: str) -> JobStatus:
        self._require(queue)
        return self._results.status(queue, job_id)

    def queues(self) -> list[Queue]:
        self._check()
        return self._admin.queues()

    def progress(self, queue: str, ids: Sequence[str] | None = None) -> dict[str, Progress]:
        self._require(queue)
        return self._results.progress(queue, ids)

    def diagnose(self) -> list[Finding]:
        findings = super().diagnose()
        if any(finding.verdict is Verdict.WRONG for finding in findings):
            return findings
        return findings + diagnose(self._session, self._durability)

    def pending_migrations(self) -> list[Migration]:
        self._check_open()
        return self._tables.pending()

    def migrate(self) -> list[Migration]:
        self._check_open()
        return self._tables.migrate()

    def make_url(self, *, with_passwords: bool = False) -> str:
        return self._settings.url(self._namespace, self._durability, with_passwords=with_passwords)

    def close(self) -> None:
        with self._lock:
            if self._closed:
                return
            self._closed = True
            consumers = list(self._consumers)
        self._session.start_closing()
        if os.getpid() == self._pid:
            for consumer in consumers:
                consumer.close()
            self._publisher.close()
        self._session.close()
        self._wakeups.close()

    def _require(self, queue: str) -> None:
        """Check that this is open, and that the tables are those of this release or compatible with it."""
        self._check_open()
        self._tables.require(queue)

    def _check(self) -> None:
        """As :meth:`_require`, for what only looks, as the doctor does: it changes nothing."""
        self._check_open()
        self._tables.check()

    def _check_open(self) -> None:
        if os.getpid() != self._pid:  # after a fork: the parent's consumers are the parent's
            self._pid = os.getpid()
            self._lock = threading.Lock()
            self._consumers = []
            self._publisher.forget_parent()
        if self._closed:
            raise client_closed("PostgreSQLClient")
