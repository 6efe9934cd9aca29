"""The tables and functions: today's version whole, and what makes it of each version before.

A new database gets ``sql/tables.sql`` and ``sql/functions/``; one of an older release gets the files in
``sql/migrations/``, in order. A test compares what both ways make (ADR 102). A function that a release calls
keeps its name, arguments and columns in later versions, so that workers of several releases can go on side
by side during a deploy (ADR 53). ``version.oldest_release`` says which version a release must know to work on
the tables.
"""

import re
from functools import cache
from pathlib import Path
from typing import NamedTuple
from zlib import crc32

from ..shared.records import MAX_HISTORY, REMEMBERED_ENDS
from .connection import Connection, Statement
from .errors import RefusedByServer

OLDEST_SERVER = 140000
FOLDER = Path(__file__).with_name("sql")
"""Where the files are."""
_TIMEOUT_S = 60.0
_MIGRATION_S = 3600.0
_LOCK = 1299464010
"""The first half of the advisory lock's key; the second is the schema's."""
_NAMES = "SET search_path FROM CURRENT"
_ONE_PLAN = (
    f"{_NAMES} SET plan_cache_mode = force_generic_plan SET enable_seqscan = off SET enable_bitmapscan = off"
    " SET enable_sort = off SET jit = off"
)
_PLACEHOLDERS = {
    "names": _NAMES,
    "one_plan": _ONE_PLAN,
    "max_history": str(MAX_HISTORY),
    "remembered_ends": str(REMEMBERED_ENDS),
}
"""What ``{{…}}`` stands for in the files.

- *names*: a function finds our tables, whatever the caller's ``search_path`` is. Temporary tables come last.
- *one_plan*: beside that, each of its searches has one plan, by an index, however large the server believes
  the tables to be (ADR 87). A connection makes the plan once, and never compiles it, which would take longer
  than the plan runs.
- *max_history*, *remembered_ends*: as in :mod:`..shared.records`.
"""


class Version(NamedTuple):
    """The version of a schema's tables; all 0 where there are none."""

    number: int
    oldest_release: int
    """The lowest version that a release must know to work on them."""


class Files(NamedTuple):
    """What stands in the files."""

    whole: str
    """What makes today's version where there are no tables."""
    migrations: tuple[str, ...]
    """What makes each version from the second on of the one before it."""

    @property
    def version(self) -> int:
        """Today's version."""
        return 1 + len(self.migrations)


def files() -> Files:
    """Return what stands in the files."""
    return _read(FOLDER)


@cache
def _read(folder: Path) -> Files:
    whole = (folder / "tables.sql", *sorted((folder / "functions").glob("*.sql")))
    migrations = sorted((folder / "migrations").glob("*.sql"))
    return Files("\n".join(map(_text, whole)), tuple(map(_text, migrations)))


def _text(file: Path) -> str:
    return re.sub(r"{{(\w+)}}", lambda found: _PLACEHOLDERS[found[1]], file.read_text("utf-8"))


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
    """Make the tables, or apply the migrations that are missing, each in a transaction.

    Processes that do this at once wait for each other.

    Returns:
        The versions that this call made.

    Raises:
        RefusedByServer: the user may not.
    """
    made = []
    while version := _apply_next(connection, schema):
        made.append(version)
    return made


def missing(found: int) -> list[int]:
    """Return which versions are to be made of one that was found; 0 if there are no tables."""
    today = files().version
    return list(range(found + 1, today + 1)) if found else [today]


def _apply_next(connection: Connection, schema: str) -> int:
    """Make the next version, and return it; 0 if there is none."""
    connection.run_script(_begin(schema), _TIMEOUT_S)
    try:
        found = _find_version_in_transaction(connection, schema)
        version = next(iter(missing(found)), 0)
        if not version:
            connection.run_script("ROLLBACK", _TIMEOUT_S)
            return 0
        steps = _steps(schema, found, creates_schema=not has_schema(connection, schema))
        connection.run_script(f"{steps}\nCOMMIT", _MIGRATION_S)
    except BaseException:
        if connection.is_usable:
            connection.run_script("ROLLBACK", _TIMEOUT_S)
        raise
    return version


def script(schema: str, found: int, *, creates_schema: bool) -> str:
    """Return what makes the next version of the one that was found, as :func:`migrate` does it."""
    return f"{_begin(schema)}\n{_steps(schema, found, creates_schema=creates_schema)}\nCOMMIT;\n"


def _begin(schema: str) -> str:
    lock = crc32(schema.encode()) - 2**31
    # Whatever the user's default is: what another committed while this one waited must be seen.
    return f"BEGIN ISOLATION LEVEL READ COMMITTED;\nSELECT pg_advisory_xact_lock({_LOCK}, {lock});"


def _steps(schema: str, found: int, *, creates_schema: bool) -> str:
    name = quoted(schema)
    create = f"CREATE SCHEMA {name};\n" if creates_schema else ""
    # Workers queue up behind a migration that waits for a lock, so it gives up soon.
    limits = "SET LOCAL lock_timeout = '10s';\nSET LOCAL statement_timeout = 0;"
    # Temporary tables would come first, if they weren't last. The files' strings are those of the standard.
    language = f"SET LOCAL search_path = {name}, pg_temp;\nSET LOCAL standard_conforming_strings = on;"
    language += "\nSET LOCAL plpgsql.extra_errors = none;"
    text = files().migrations[found - 1] if found else files().whole
    return f"{create}{limits}\n{language}\n{text}"


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
