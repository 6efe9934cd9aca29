"""The tables and functions: SQL files, one for each version, applied in order.

A function that a release calls stays as it is in later versions, so that workers of several releases can go
on side by side during a deploy; a change makes a function of another name, and ``version.oldest_release``
says which version a release must know.
"""

from functools import cache
from pathlib import Path
from zlib import crc32

from ...domain.errors import BrokerUnsuitable
from .connection import Connection, Statement
from .errors import RefusedByServer

OLDEST_SERVER = 140000
_TIMEOUT_S = 60.0


@cache
def migrations() -> tuple[str, ...]:
    """Return what makes each version of the one before it."""
    files = sorted(Path(__file__).with_name("sql").glob("*.sql"))
    return tuple(file.read_text("utf-8") for file in files)


def quoted(schema: str) -> str:
    """Return the schema's name as SQL has it; its characters were checked before."""
    return f'"{schema}"'


def find_version(connection: Connection, schema: str) -> int:
    """Return the version of the schema's tables; 0 where there are none.

    Raises:
        BrokerUnsuitable: the schema is another application's, or a newer release's.
    """
    if connection.server_version < OLDEST_SERVER:
        raise BrokerUnsuitable(
            f"PostgreSQL {connection.server_version // 10000}: this server is too old, 14 is needed"
        )
    look = Statement(f"SELECT max(number), max(oldest_release) FROM {quoted(schema)}.version", 0)  # noqa: S608
    try:
        row = connection.execute(look, (), _TIMEOUT_S).row(0)
    except RefusedByServer as error:
        if not error.has_no_schema:
            raise
        return 0
    number, oldest = (int.from_bytes(value or b"", "big") for value in row)
    if oldest > len(migrations()):
        raise BrokerUnsuitable(
            f"schema {schema!r} was made by a newer release: its version is {number}, and this release knows "
            f"{len(migrations())}; upgrade mindtrace-jobs"
        )
    return number


def migrate(connection: Connection, schema: str) -> None:
    """Bring the schema to this release's version, unless it has it or a later one.

    Raises:
        BrokerUnsuitable: as of :func:`find_version`.
        RefusedByServer: the user may not.
    """
    if find_version(connection, schema) >= len(migrations()):
        return
    lock = crc32(schema.encode())
    begin = f"BEGIN; SELECT pg_advisory_xact_lock(1299464010, {lock - 2**31});"
    connection.run_script(begin, _TIMEOUT_S)
    try:
        version = find_version_in_transaction(connection, schema)
        steps = "".join(migrations()[version:])
        if steps:
            name = quoted(schema)
            create = "" if has_schema(connection, schema) else f"CREATE SCHEMA {name};"
            connection.run_script(f"{create} SET LOCAL search_path = {name}; {steps}", _TIMEOUT_S)
        connection.run_script("COMMIT", _TIMEOUT_S)
    except BaseException:
        if connection.is_usable:
            connection.run_script("ROLLBACK", _TIMEOUT_S)
        raise


def has_schema(connection: Connection, schema: str) -> bool:
    """Tell whether there is such a schema."""
    look = Statement("SELECT 1 FROM pg_namespace WHERE nspname = $1", 1)
    return connection.execute(look, [schema.encode()], _TIMEOUT_S).rows == 1


def find_version_in_transaction(connection: Connection, schema: str) -> int:
    """As :func:`find_version`, where an error would end the transaction that is under way."""
    look = Statement("SELECT to_regclass($1) IS NOT NULL", 1)
    there = connection.execute(look, [f"{quoted(schema)}.version".encode()], _TIMEOUT_S).value(0, 0)
    return find_version(connection, schema) if there == b"\x01" else 0
