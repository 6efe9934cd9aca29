"""Releases that change the tables, as folders of SQL files, and what a schema's catalog says of it."""

import re
import shutil
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

import psycopg

from mindtrace.jobs.adapters.postgresql import schema as tables

SHIPPED = tables.FOLDER
RECORDED = re.compile(r"INSERT INTO version VALUES \((\d+), (\d+)\);\s*\Z")
"""The last line of a file, which records the version that it makes."""
_FUNCTION = re.compile(r"^CREATE FUNCTION", re.MULTILINE)

_CATALOG = """
    SELECT 'column', c.relname, a.attname, format_type(a.atttypid, a.atttypmod),
      a.attnotnull::text, concat(a.attidentity, a.attgenerated), a.attcollation::regcollation::text,
      pg_get_expr(d.adbin, d.adrelid)
    FROM pg_class c JOIN pg_attribute a ON a.attrelid = c.oid AND a.attnum > 0 AND NOT a.attisdropped
    LEFT JOIN pg_attrdef d ON d.adrelid = c.oid AND d.adnum = a.attnum
    WHERE c.relnamespace = current_schema()::regnamespace
  UNION ALL
    SELECT c.relkind::text, c.relname, c.reloptions::text, t.reloptions::text,
      c.relreplident::text, c.relacl::text, i.indisreplident::text, pg_get_indexdef(i.indexrelid)
    FROM pg_class c
    LEFT JOIN pg_class t ON t.oid = c.reltoastrelid
    LEFT JOIN pg_index i ON i.indexrelid = c.oid
    WHERE c.relnamespace = current_schema()::regnamespace
  UNION ALL
    SELECT 'constraint', conname, conrelid::regclass::text, pg_get_constraintdef(oid), NULL, NULL, NULL, NULL
    FROM pg_constraint WHERE connamespace = current_schema()::regnamespace
  UNION ALL
    SELECT 'trigger', tgname, tgrelid::regclass::text, pg_get_triggerdef(oid), NULL, NULL, NULL, NULL
    FROM pg_trigger WHERE tgrelid IN (
      SELECT oid FROM pg_class WHERE relnamespace = current_schema()::regnamespace
    )
  UNION ALL
    SELECT 'sequence', sequencename, data_type::text, start_value::text, increment_by::text, cycle::text,
      cache_size::text, NULL
    FROM pg_sequences WHERE schemaname = current_schema()
  UNION ALL
    SELECT 'function', proname, pg_get_functiondef(oid), proacl::text, NULL, NULL, NULL, NULL
    FROM pg_proc WHERE pronamespace = current_schema()::regnamespace
  UNION ALL
    SELECT 'version', max(number)::text, max(oldest_release)::text, NULL, NULL, NULL, NULL, NULL FROM version
"""
"""All that a schema consists of, in whatever order its columns are; and its version."""


def make_release(
    folder: Path,
    before: Path,
    *,
    tables_sql: str = "",
    functions: Mapping[str, str] | None = None,
    dropped: Iterable[str] = (),
    oldest_release: int = 1,
) -> Path:
    """Make the files of a release behind another one: today's version whole, and the migration to it.

    Args:
        folder: Where to make them.
        before: Those of the release before.
        tables_sql: What changes the tables.
        functions: The functions that are new or have changed, whole, by name.
        dropped: The functions that go.
        oldest_release: The lowest version that a release must know to work on the tables.
    """
    shutil.copytree(before, folder)
    whole = folder / "tables.sql"
    text = whole.read_text("utf-8")
    recorded = RECORDED.search(text)
    assert recorded is not None
    version = int(recorded[1]) + 1
    row = f"INSERT INTO version VALUES ({version}, {oldest_release});\n"
    whole.write_text(f"{text[: recorded.start()]}{tables_sql}\n{row}", "utf-8")
    steps = [tables_sql]
    for name, function in (functions or {}).items():
        folder.joinpath("functions", f"{name}.sql").write_text(function, "utf-8")
        steps.append(_FUNCTION.sub("CREATE OR REPLACE FUNCTION", function))
    for name in dropped:
        folder.joinpath("functions", f"{name}.sql").unlink()
        steps.append(f"DROP FUNCTION {name};")
    folder.joinpath("migrations").mkdir(exist_ok=True)
    migration = folder / "migrations" / f"{version:04}_sample.sql"
    migration.write_text("\n".join((*steps, row)), "utf-8")
    return folder


def catalog(admin: "psycopg.Connection[Any]", namespace: str) -> set[tuple[str, ...]]:
    """Return what the catalog says of a schema, without its name."""
    admin.execute(f'SET search_path = "{namespace}"')
    rows = admin.execute(_CATALOG).fetchall()
    admin.execute("RESET search_path")
    return {tuple(str(value).replace(namespace, "ours") for value in row) for row in rows}
