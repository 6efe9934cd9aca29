"""The coordination store in PostgreSQL: records, places and rates in the schema of the queues."""

from collections.abc import Mapping, Sequence
from typing import Any

from ...ports import CoordinationStore, Migration, Place, Record, Reservation
from ..shared.error_messages import client_closed
from ..shared.server_settings import check_duration
from ..shared.turns import whole_microseconds
from .binary_format import TRUE, float8, int4, int4s, int8, parse_array, parse_float, parse_int, texts
from .connection import Answer, Parameter, Statement
from .errors import RefusedByServer, ServerUnreachable, translated
from .session import Session
from .settings import DEFAULT_NAMESPACE, Password, ServerSettings, check_namespace, parsed_url
from .statements import Statements
from .table_versions import Tables

VERSION = 3
"""The version of the tables that brought those of the store."""
_LONGEST_S = 1e9
"""The longest time that is kept count of, some thirty years."""
_LARGEST_INT4 = 2**31 - 1


class ClientCoordinationStore(CoordinationStore):
    """The coordination store of a client, on its connections.

    Each call is one statement. What may run twice is tried until it is answered: a look, places, and turns,
    of which some may then be gone unused. A record that may have been written isn't written again.

    Args:
        session: The way to the server.
        statements: The statements for the session's schema.
        tables: The tables; the first write makes them where there are none.
    """

    def __init__(self, session: Session, statements: Statements, tables: Tables) -> None:
        super().__init__()
        self._session = session
        self._statements = statements
        self._tables = tables
        self._closed = False

    def now(self) -> float:
        self._check_open()
        return parse_float(self._run(self._statements.now, []).value(0, 0)) or 0.0

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        self._check_open()
        if not keys or not self._tables.has(VERSION):
            return {}
        found = _records(self._run(self._statements.get_records, [texts(keys)]))
        return {key: found[key] for key in keys if key in found}

    def scan(self, prefix: str) -> dict[str, Record]:
        self._check_open()
        if not self._tables.has(VERSION):
            return {}
        before = prefix[:-1] + chr(ord(prefix[-1]) + 1) if prefix else None
        parameters = [prefix.encode(), None if before is None else before.encode()]
        return _records(self._run(self._statements.scan_records, parameters))

    def put(
        self, key: str, value: bytes, *, expected: int | None = None, ttl_s: float | None = None
    ) -> int | None:
        parameters = [key.encode(), bytes(value), optional_version(expected), optional_ttl(ttl_s)]
        written = self._change(self._statements.put_record, parameters, once=True).value(0, 0)
        return None if written is None else parse_int(written)

    def delete(self, key: str, *, expected: int | None = None) -> bool:
        parameters = [key.encode(), optional_version(expected)]
        return self._change(self._statements.delete_record, parameters, once=True).value(0, 0) == TRUE

    def take_places(self, places: Sequence[Place], *, ttl_s: float) -> list[bool]:
        if not places:
            self._check_open()
            return []
        keys, limits, holders = zip(*places, strict=True)
        parameters = [
            texts(keys),
            int4s([min(limit, _LARGEST_INT4) for limit in limits]),
            texts(holders),
            optional_ttl(ttl_s),
        ]
        answer = self._change(self._statements.take_places, parameters)
        return [has_it == TRUE for has_it in parse_array(answer.value(0, 0))]

    def leave_places(self, places: Sequence[Place]) -> None:
        if not places:
            self._check_open()
            return
        keys, _, holders = zip(*places, strict=True)
        self._change(self._statements.leave_places, [texts(keys), texts(holders)])

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        interval_s = whole_microseconds(interval_s) / 1e6  # the server would round to the nearest one
        parameters = [
            key.encode(),
            int4(min(count, _LARGEST_INT4)),
            float8(interval_s),
            int4(min(burst, _LARGEST_INT4)),
            float8(max_wait_s),
        ]
        first, turns = self._change(self._statements.reserve_turns, parameters).row(0)
        first_s, reserved = parse_float(first) or 0.0, parse_int(turns)
        waits_s = [max(0.0, first_s + turn * interval_s) for turn in range(reserved)]
        return Reservation(waits_s, 0.0 if reserved == count else first_s + reserved * interval_s)

    def pending_migrations(self) -> list[Migration]:
        self._check_open()
        return self._tables.pending()

    def migrate(self) -> list[Migration]:
        self._check_open()
        return self._tables.migrate()

    def make_url(self, *, with_passwords: bool = False) -> str:
        return self._session.settings.url(self._session.schema, None, with_passwords=with_passwords)

    def close(self) -> None:
        self._closed = True

    def _change(self, statement: Statement, parameters: Sequence[Parameter], *, once: bool = False) -> Answer:
        self._check_open()
        self._tables.make_once()
        return self._run(statement, parameters, once=once)

    def _run(self, statement: Statement, parameters: Sequence[Parameter], *, once: bool = False) -> Answer:
        try:
            return self._session.run(statement, parameters, once=once)
        except ServerUnreachable as out:
            raise self._session.unavailable(out) from out.error
        except RefusedByServer as error:  # the tables were dropped
            raise translated(error, self._session.settings.address, self._session.schema) from error

    def _check_open(self) -> None:
        if self._closed:
            raise client_closed(type(self).__name__)


class PostgreSQLCoordinationStore(ClientCoordinationStore):
    """A coordination store in a PostgreSQL database, version 14 or newer, for a broker that has none.

    Several clients may have it as their ``store``, and none closes it: close it after them. It connects when
    it is first used, and reconnects by itself; the first write makes the tables, which are those of
    :class:`PostgreSQLClient`.

    Args:
        host: The server's host name, or the folder of its socket.
        port: Its port.
        database: The database.
        username: Whom to connect as; by default, the user of this process.
        password: The password; shown nowhere.
        namespace: The schema of the tables. Stores and clients of the same namespace share their records.
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
        retry_timeout_s: float = 2.0,
        prepared: bool = True,
        more_hosts: Sequence[tuple[str, int]] = (),
        libpq: Mapping[str, str] | None = None,
    ) -> None:
        hosts, logger = ((host, port), *more_hosts), type(self).logger
        settings = ServerSettings(hosts, database, username, password, dict(libpq or {}), prepared)
        session = Session(
            settings,
            check_namespace(namespace),
            "PostgreSQLCoordinationStore",
            retry_timeout_s=check_duration("retry_timeout_s", retry_timeout_s),
            logger=logger,
        )
        super().__init__(session, Statements(namespace), Tables(session, logger))
        settings.warn_of_plaintext(logger)

    @classmethod
    def from_url(cls, url: str) -> "PostgreSQLCoordinationStore":
        """Make a store from a URL, as :meth:`PostgreSQLClient.from_url` makes a client.

        Raises:
            InvalidInput: the URL can't be understood.
        """
        settings: dict[str, Any] = {**parsed_url(url)}
        del settings["durability"]  # which a store doesn't declare
        return cls(**settings)

    def close(self) -> None:
        super().close()
        self._session.close()


def optional_version(expected: int | None) -> Parameter:
    """Return the version that a record must have; NULL for any."""
    return None if expected is None else int8(expected)


def optional_ttl(ttl_s: float | None) -> Parameter:
    """Return for how many seconds a record is kept; NULL for good."""
    return None if ttl_s is None else float8(min(ttl_s, _LONGEST_S))


def _records(answer: Answer) -> dict[str, Record]:
    return {
        (key or b"").decode(): Record(value or b"", parse_int(version))
        for key, value, version in answer.all_rows()
    }
