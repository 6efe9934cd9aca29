"""A store in PostgreSQL for the results of a broker that keeps none itself."""

from collections.abc import Mapping, Sequence
from contextlib import suppress
from time import monotonic
from typing import Any

from ...domain.errors import QueueNotFound
from ...ports import EndedJob, JobResult, Migration, ResultStore
from ..shared.chunks import in_chunks
from ..shared.result_records import make_record, parse_record
from ..shared.server_settings import Password, check_duration
from .admin import Admin
from .binary_format import byteas, float8s, parse_int, texts
from .connection import Answer, Parameter, Statement
from .errors import ServerUnreachable
from .results import ANNOUNCED_S, PostgreSQLEndedJobs, wait_for_end
from .schema import quoted
from .session import Session
from .settings import DEFAULT_NAMESPACE, ServerSettings, check_namespace, parsed_url
from .statements import Statements
from .table_versions import Tables
from .wakeups import ENDED, Waiter, Wakeups

_KIND = b"results"
"""The kind of a queue that holds only results, of jobs of another broker. No client lists it."""
_CHUNK, _CHUNK_BYTES = 1000, 8 * 1024 * 1024
_SWEEP_S = 1.0
"""The shortest time, in seconds, between two removals of results whose time is over."""

_PUT = """
    WITH q AS (
      SELECT key, callers_wait_until > clock_timestamp() AS is_awaited FROM {s}.queue WHERE name = $1
    ), stored AS (
      INSERT INTO {s}.result (queue, id, expires, body)
      SELECT q.key, e.id, clock_timestamp() + e.ttl * interval '1 s', e.body
      FROM q, unnest($2::pg_catalog.text[], $3::pg_catalog.float8[], $4::pg_catalog.bytea[])
        AS e (id, ttl, body)
      ON CONFLICT (queue, id) DO UPDATE SET expires = excluded.expires, body = excluded.body
    )
    SELECT q.key, CASE WHEN q.is_awaited THEN {s}.wake_callers(q.key, $2) END FROM q
"""
_GET = """
    SELECT r.id, r.body FROM {s}.queue q, unnest($2::pg_catalog.text[]) AS i (id), LATERAL (
      SELECT * FROM {s}.result WHERE queue = q.key AND id = i.id OFFSET 0
    ) r
    WHERE q.name = $1 AND r.expires > clock_timestamp()
"""
_FORGET = """
    SELECT {s}.forget_results(key, $2) FROM {s}.queue WHERE name = $1
"""
_SWEEP = "SELECT {s}.sweep_results($1)"


class PostgreSQLResultStore(ResultStore):
    """Keeps the results of a broker that can't, in a PostgreSQL database, version 14 or newer.

    Give it to one client, which closes it. It connects when it is first used, and reconnects by itself; the
    first use makes the tables, which are those of :class:`PostgreSQLClient`.

    Args:
        host: The server's host name, or the folder of its socket.
        port: Its port.
        database: The database.
        username: Whom to connect as; by default, the user of this process.
        password: The password; shown nowhere.
        namespace: The schema of the tables. Stores of the same namespace share their results.
        poll_s: The longest, in seconds, that one who waits for a result doesn't ask the server by itself.
        retry_timeout_s: How many seconds a call tries to reach the server before it fails. It is short, as
            workers wait for it as well.
        prepared: As in :class:`PostgreSQLClient`; so are the others.
        more_hosts: Further servers.
        libpq: More of libpq's settings.

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
        poll_s: float = 5.0,
        retry_timeout_s: float = 2.0,
        prepared: bool = True,
        more_hosts: Sequence[tuple[str, int]] = (),
        libpq: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__()
        self._namespace = check_namespace(namespace)
        hosts = ((host, port), *more_hosts)
        self._settings = ServerSettings(hosts, database, username, password, dict(libpq or {}), prepared)
        self._poll_s = min(check_duration("poll_s", poll_s), ANNOUNCED_S)
        self._session = Session(
            self._settings,
            self._namespace,
            "PostgreSQLResultStore",
            retry_timeout_s=check_duration("retry_timeout_s", retry_timeout_s),
            logger=self.logger,
        )
        self._settings.warn_of_plaintext(self.logger)
        self._statements = Statements(self._namespace)
        self._tables = Tables(self._session, self.logger)
        self._admin = Admin(self._session, self._statements, self._tables)
        self._wakeups = Wakeups(self._session, self._namespace, self.logger)

        def statement(sql: str, parameters: int, *, is_planned_anew: bool = False) -> Statement:
            return Statement(sql.replace("{s}", quoted(self._namespace)), parameters, is_planned_anew)

        self._next_sweep = 0.0
        self._put = statement(_PUT, 4)
        self._get = statement(_GET, 2, is_planned_anew=True)
        self._forget = statement(_FORGET, 2)
        self._sweep = statement(_SWEEP, 1)

    @classmethod
    def from_url(cls, url: str) -> "PostgreSQLResultStore":
        """Make a store from a URL, as :meth:`PostgreSQLClient.from_url` makes a client.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        settings: dict[str, Any] = {**parsed_url(url)}
        del settings["durability"]  # which a store doesn't declare
        return cls(**settings)

    def put(self, queue: str, ended: Sequence[EndedJob]) -> None:
        # The last end of a job counts. The ids are sorted, so that no two workers wait for each other.
        records = sorted({job.id: (job.id, job.ttl_s, make_record(job.result)) for job in ended}.values())
        self._tables.make_once()
        for chunk in in_chunks(
            records, _CHUNK, max_bytes=_CHUNK_BYTES, size_of=lambda record: len(record[2])
        ):
            ids, ttls, bodies = zip(*chunk, strict=True)
            parameters = [queue.encode(), texts(ids), float8s(ttls), byteas(bodies)]
            while not self._run(self._put, parameters).rows:
                self._declare(queue)
        if monotonic() >= self._next_sweep:
            self._next_sweep = monotonic() + _SWEEP_S
            self._run(self._sweep, [_KIND])

    def get(self, queue: str, job_id: str, *, timeout_s: float = 0.0) -> JobResult | None:
        def look() -> JobResult | None:
            return self.get_many(queue, [job_id]).get(job_id)

        return wait_for_end(job_id, look, lambda: self.ended_jobs(queue), timeout_s, self._poll_s)

    def get_many(self, queue: str, ids: Sequence[str]) -> dict[str, JobResult]:
        self._tables.make_once()
        found: dict[str, JobResult] = {}
        for chunk in in_chunks(ids, _CHUNK):
            for id_, record in self._run(self._get, [queue.encode(), texts(chunk)]).all_rows():
                found[(id_ or b"").decode()] = parse_record(record or b"")
        return found

    def ended_jobs(self, queue: str) -> "StoredEndedJobs":
        return StoredEndedJobs(self, queue, self._poll_s)

    def announce(self, queue: str) -> int:
        """Announce that a caller waits, so that puts notify it for some seconds; return the queue's key."""
        self._tables.make_once()
        while True:
            try:
                answer = self._run(self._statements.announce_caller, [queue.encode()], queue)
            except QueueNotFound:
                self._declare(queue)
            else:
                return parse_int(answer.value(0, 0))

    def open_waiter(self, key: int) -> Waiter:
        """Open what waits for the results of a queue."""
        return self._wakeups.open_waiter(key, ENDED)

    def forget(self, queue: str, ids: Sequence[str] | None = None) -> None:
        self._tables.make_once()
        if ids is None:
            with suppress(QueueNotFound):  # no result of this queue was ever kept
                self._admin.delete(queue)
            return
        for chunk in in_chunks(ids, _CHUNK):
            self._run(self._forget, [queue.encode(), texts(sorted(chunk))])

    def pending_migrations(self) -> list[Migration]:
        return self._tables.pending()

    def migrate(self) -> list[Migration]:
        return self._tables.migrate()

    def make_url(self, *, with_passwords: bool = False) -> str:
        return self._settings.url(self._namespace, None, with_passwords=with_passwords)

    def close(self) -> None:
        self._session.close()
        self._wakeups.close()

    def _declare(self, queue: str) -> None:
        self._run(self._statements.declare, [queue.encode(), _KIND])

    def _run(self, statement: Statement, parameters: Sequence[Parameter], queue: str = "") -> Answer:
        try:
            return self._session.run(statement, parameters, queue=queue)
        except ServerUnreachable as out:
            raise self._session.unavailable(out) from out.error


class StoredEndedJobs(PostgreSQLEndedJobs):
    """Learns of ends by notifications, also after all results of the queue were forgotten and others came.

    Args:
        store: The store.
        queue: The queue.
        poll_s: As in :class:`PostgreSQLEndedJobs`.
    """

    def __init__(self, store: PostgreSQLResultStore, queue: str, poll_s: float) -> None:
        self._store = store
        self._queue = queue
        self._key = store.announce(queue)
        super().__init__(store.open_waiter(self._key), self._announce_again, poll_s)

    def wait(self, timeout_s: float) -> "Sequence[str] | None":
        told = super().wait(timeout_s)
        if told is None:  # perhaps all was forgotten, which gives the queue another key
            self._announce_again()
        return told

    def _announce_again(self) -> None:
        key = self._store.announce(self._queue)
        if key != self._key:
            self._waiter.close()
            self._key, self._waiter = key, self._store.open_waiter(key)
