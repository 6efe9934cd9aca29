"""The coordination store in PostgreSQL: records, places and rates in the schema of the queues."""

from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

from ...ports import (
    CoordinationStore,
    KeyCount,
    Migration,
    Place,
    PlaceCount,
    PlaceWatch,
    Record,
    Reservation,
)
from ..shared.error_messages import client_closed
from ..shared.server_settings import Password, check_duration
from ..shared.turns import whole_microseconds
from .binary_format import TRUE, float8, int4, int4s, int8, parse_array, parse_float, parse_int, texts
from .connection import Answer, Parameter, Statement
from .errors import RefusedByServer, ServerUnreachable, translated
from .session import Session
from .settings import DEFAULT_NAMESPACE, ServerSettings, check_namespace, parsed_url
from .statements import Statements
from .table_versions import Tables
from .wakeups import Wakeups

_LONGEST_S = 1e9
"""The longest time, in seconds, that the store takes: about thirty years. Longer ones are cut to it."""
_LARGEST_INT4 = 2**31 - 1


class ClientCoordinationStore(CoordinationStore):
    """The coordination store of a client, on its connections.

    Each call is one statement. What may run twice is tried until it is answered: a look, places, and turns,
    of which some may then be gone unused. A record that may have been written isn't written again.

    Args:
        session: The way to the server.
        statements: The statements for the session's schema.
        tables: The tables; the first write makes them where there are none.
        wakeups: Tells that places got free.
    """

    def __init__(self, session: Session, statements: Statements, tables: Tables, wakeups: Wakeups) -> None:
        super().__init__()
        self._session = session
        self._statements = statements
        self._tables = tables
        self._wakeups = wakeups
        self._closed = False

    def now(self) -> float:
        self._check_open()
        return parse_float(self._run(self._statements.now, []).value(0, 0)) or 0.0

    def get(self, keys: Sequence[str]) -> dict[str, Record]:
        self._check_open()
        if not keys or not self._tables.are_there():
            return {}
        found = _records(self._run(self._statements.get_records, [texts(keys)]))
        return {key: found[key] for key in keys if key in found}

    def scan(self, prefix: str) -> dict[str, Record]:
        self._check_open()
        if not self._tables.are_there():
            return {}
        before = _end_of(prefix) if prefix else None
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

    def take_places(
        self,
        places: Sequence[Place],
        *,
        ttl_s: float,
        waits_s: float | None = None,
        leaving: Sequence[Place] = (),
    ) -> list[bool]:
        if not places:
            self.leave_places(leaving)
            return []
        waits = optional_ttl(ttl_s if waits_s is None else waits_s)
        parameters = [*_packed(places), optional_ttl(ttl_s), waits, *_packed(leaving)]
        answer = self._change(self._statements.take_places, parameters)
        return [has_it == TRUE for has_it in parse_array(answer.value(0, 0))]

    def leave_places(self, places: Sequence[Place]) -> None:
        if not places:
            self._check_open()
            return
        self._change(self._statements.leave_places, _packed(places))

    def count_places(self, prefixes: Sequence[str], *, busiest: int = 10) -> list[PlaceCount]:
        self._check_open()
        if not self._tables.are_there():
            return [PlaceCount(0, 0, 0, []) for _ in prefixes]
        parameters = [texts(prefixes), texts(list(map(_end_of, prefixes))), int4(busiest)]
        rows = self._run(self._statements.count_places, parameters).all_rows()
        return _place_counts(rows)

    def watch_places(self, tell: Callable[[str | None], None]) -> PlaceWatch:
        self._check_open()
        return self._wakeups.watch_places(tell)

    def reserve(
        self, key: str, count: int, *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> Reservation:
        counts = {key: count}
        return self.reserve_each(counts, interval_s=interval_s, burst=burst, max_wait_s=max_wait_s)[key]

    def reserve_each(
        self, counts: Mapping[str, int], *, interval_s: float, burst: int = 1, max_wait_s: float = 0.0
    ) -> dict[str, Reservation]:
        if not counts:
            self._check_open()
            return {}
        interval_s = whole_microseconds(interval_s) / 1e6  # the server would round to the nearest one
        keys = sorted(counts, key=str.encode)  # the order in which each call locks them
        parameters = [
            texts(keys),
            int4s([min(counts[key], _LARGEST_INT4) for key in keys]),
            float8(interval_s),
            int4(min(burst, _LARGEST_INT4)),
            float8(max_wait_s),
        ]
        rows = self._change(self._statements.reserve_turns, parameters).all_rows()
        return {key: _reservation(row, counts[key], interval_s) for key, row in zip(keys, rows, strict=True)}

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
        wakeups = Wakeups(session, namespace, logger)
        super().__init__(session, Statements(namespace), Tables(session, logger), wakeups)
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
        self._wakeups.close()


def optional_version(expected: int | None) -> Parameter:
    """Return the version that a record must have; NULL for any."""
    return None if expected is None else int8(expected)


def optional_ttl(ttl_s: float | None) -> Parameter:
    """Return for how many seconds a record is kept; NULL for good."""
    return None if ttl_s is None else float8(min(ttl_s, _LONGEST_S))


def _end_of(prefix: str) -> str:
    """Return what comes behind all keys that begin with ``prefix``, in the order of their characters."""
    return prefix[:-1] + chr(ord(prefix[-1]) + 1)


def _place_counts(rows: Iterable[Sequence[bytes | None]]) -> list[PlaceCount]:
    found: list[PlaceCount] = []
    for _, key, held, waiting, keys in rows:
        if key is None:  # the row of all keys comes first
            found.append(PlaceCount(parse_int(held), parse_int(waiting), parse_int(keys), []))
        else:
            found[-1].busiest.append(KeyCount(key.decode(), parse_int(held), parse_int(waiting)))
    return found


def _reservation(row: Sequence[bytes | None], count: int, interval_s: float) -> Reservation:
    first_s, reserved = parse_float(row[0]) or 0.0, parse_int(row[1])
    waits_s = [max(0.0, first_s + turn * interval_s) for turn in range(reserved)]
    return Reservation(waits_s, 0.0 if reserved == count else first_s + reserved * interval_s)


def _packed(places: Sequence[Place]) -> list[Parameter]:
    keys, limits, holders, watches = zip(*places, strict=True) if places else ((), (), (), ())
    return [
        texts(keys),
        int4s([min(limit, _LARGEST_INT4) for limit in limits]),
        texts(holders),
        texts(watches),
    ]


def _records(answer: Answer) -> dict[str, Record]:
    return {
        (key or b"").decode(): Record(value or b"", parse_int(version))
        for key, value, version in answer.all_rows()
    }
