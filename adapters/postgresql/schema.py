"""The tables and functions: SQL files, one for each version, applied in order.

A function that a release calls keeps its name, arguments and columns in later versions, so that workers of
several releases can go on side by side during a deploy. A later version may replace what it does only if
older callers needn't know (ADR 53). ``version.oldest_release`` says which version a release must know to work
on the tables. Each file ends with the row that records it.
"""

from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from .connection import Connection, Statement
from .errors import RefusedByServer

OLDEST_SERVER = 140000
FOLDER = Path(__file__).with_name("sql")
"""Where the files are."""
_TIMEOUT_S = 60.0
_MIGRATION_S = 3600.0
_LOCK = 1299464010
"""The first half of the advisory lock's key; the second is the schema's."""


class Version(NamedTuple):
    """The version of a schema's tables; all 0 where there are none."""

    number: int
    oldest_release: int
    """The lowest version that a release must know to work on them."""


def migrations() -> tuple[str, ...]:
    """Return what makes each version of the one before it."""
    return _read(FOLDER)


@cache
def _read(folder: Path) -> tuple[str, ...]:
    return tuple(file.read_text("utf-8") for file in sorted(folder.glob("*.sql")))


def quoted(schema: str) -> str:
    """Return the schema's name as SQL has it; its characters were checked before."""
    return f'"{schema}"'


def find_version(connection: Connection, schema: str) -> Version:
    """Return the version of the schema's tables.

    Raises:
        RefusedByServer: the user may not see it.
    """
    look = Statement(f"SELECT max(number), max(oldest_release) FROM {quoted(schema)}.version", 0)  # noqa: S608
    try:
        row = connection.execute(look, (), _TIMEOUT_S).row(0)
    except RefusedByServer as error:
        if not error.has_no_schema:
            raise
        return Version(0, 0)
    return Version(*(int.from_bytes(value or b"", "big") for value in row))


def migrate(connection: Connection, schema: str) -> list[int]:
    """Apply the migrations that are missing, each in a transaction; return which versions this made.

    Processes that do this at once wait for each other.

    Raises:
        RefusedByServer: the user may not.
    """
    made = []
    while version := _apply_next(connection, schema):
        made.append(version)
    return made


def _apply_next(connection: Connection, schema: str) -> int:
    """Apply the first migration that is missing, and return its version; 0 if none is."""
    connection.run_script(_begin(schema), _TIMEOUT_S)
    try:
        version = _find_version_in_transaction(connection, schema) + 1
        if version > len(migrations()):
            connection.run_script("ROLLBACK", _TIMEOUT_S)
            return 0
        steps = _steps(schema, version, creates_schema=not has_schema(connection, schema))
        connection.run_script(f"{steps}\nCOMMIT", _MIGRATION_S)
    except BaseException:
        if connection.is_usable:
            connection.run_script("ROLLBACK", _TIMEOUT_S)
        raise
    return version


def script(schema: str, version: int, *, creates_schema: bool) -> str:
    """Return what makes a version of the one before it, as :func:`migrate` does it."""
    return f"{_begin(schema)}\n{_steps(schema, version, creates_schema=creates_schema)}\nCOMMIT;\n"


def _begin(schema: str) -> str:
    lock = crc32(schema.encode()) - 2**31
    # Whatever the user's default is: what another committed while this one waited must be seen.
    return f"BEGIN ISOLATION LEVEL READ COMMITTED;\nSELECT pg_advisory_xact_lock({_LOCK}, {lock});"


def _steps(schema: str, version: int, *, creates_schema: bool) -> str:
    name = quoted(schema)
    create = f"CREATE SCHEMA {name};\n" if creates_schema else ""
    # Workers queue up behind a migration that waits for a lock, so it gives up soon.
    limits = "SET LOCAL lock_timeout = '10s';\nSET LOCAL statement_timeout = 0;"
    # Temporary tables would come first, if they weren't last. The files' strings are those of the standard.
    language = f"SET LOCAL search_path = {name}, pg_temp;\nSET LOCAL standard_conforming_strings = on;"
    language += "\nSET LOCAL plpgsql.extra_errors = none;"
    return f"{create}{limits}\n{language}\n{migrations()[version - 1]}"


def has_schema(connection: Connection, schema: str) -> bool:
    """Tell whether there is such a schema."""
    look = Statement("SELECT 1 FROM pg_catalog.pg_namespace WHERE nspname = $1", 1)
    return connection.execute(look, [schema.encode()], _TIMEOUT_S).rows == 1


def _find_version_in_transaction(connection: Connection, schema: str) -> int:
    """As :func:`find_version`, where an error would end the transaction that is under way."""
    # Not to_regclass, which may answer from a cache that is older than what another has just committed.
    look = Statement(
        "SELECT 1 FROM pg_catalog.pg_class c JOIN pg_catalog.pg_namespace n ON n.oid = c.relnamespace"
        " WHERE n.nspname = $1 AND c.relname = 'version'",
        1,
    )
    is_there = connection.execute(look, [schema.encode()], _TIMEOUT_S).rows == 1
    return find_version(connection, schema).number if is_there else 0
