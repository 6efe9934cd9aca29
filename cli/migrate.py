"""``mindtrace-jobs migrate``: bring the tables of a backend to this release's version."""

from collections.abc import Sequence
from pathlib import Path

import click

from ..application.broker.backends import detect_backend
from ..domain.wording import quantity
from ..ports import Migration
from .app import backend_option, json_option, settings_of, wants_json
from .errors import Exit
from .output import fail, print_json, shown, stdout
from .settings import masked


@click.command()
@click.option("--sql", "as_sql", is_flag=True, help="Print the SQL that is missing, and change nothing.")
@click.option(
    "--check", "checks", is_flag=True, help="Change nothing; exit with 1 if migrations are missing."
)
@json_option
@backend_option
def migrate(as_sql: bool, checks: bool, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Bring the backend's tables to this release's version. Running it again, or twice at once, is harmless.

    Workers and publishers do the same when they start, if their user may. This is for those whose user may
    not: run it as the owner of the tables, before the new release is deployed. Workers of the release before
    go on meanwhile. Only PostgreSQL has migrations; all other backends need none.
    """
    url = settings_of(backend, app_dir).backend.get_secret_value()
    with detect_backend(url) as opened:
        pending = opened.pending_migrations()
        if pending is None:
            return _answer(as_json, [], f"{masked(url)} has no migrations: nothing is needed")
        if as_sql and not wants_json(as_json):
            click.echo("".join(f"-- version {each.version}\n{each.sql}" for each in pending), nl=False)
            return Exit.OK
        if as_sql:
            return _answer(as_json, pending, "")
        if checks and pending:
            if wants_json(as_json):
                _answer(as_json, pending, "")
                return Exit.NO
            what = f"{pending[0].target} lacks {quantity(len(pending), 'migration')}"
            return fail(f"{what}: run mindtrace-jobs migrate as the owner of the tables", Exit.NO)
        made = opened.migrate() if pending else []
    said = [f"{each.target}: migrated to version {each.version}" for each in made]
    return _answer(as_json, made, "\n".join(said) or f"{masked(url)} is up to date")


def _answer(as_json: bool, migrations: Sequence[Migration], text: str) -> int:
    if wants_json(as_json):
        print_json([each._asdict() for each in migrations])
    else:
        for line in text.splitlines():
            stdout().print(shown(line))
    return Exit.OK
