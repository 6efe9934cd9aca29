"""``mindtrace-jobs dead``: list, redrive and discard dead jobs."""

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ..application.tools.dead_letters import find_dead_letter, payload_of
from ..domain.printable import printable_lines
from ..domain.wording import quantity
from ..ports import DeadLetter, Failure
from .app import backend_option, confirm, json_option, opened, settings_of, wants_json, yes_option
from .errors import BadUsage, Exit
from .output import print_json, shown, stdout, table, tell


@click.group()
def dead() -> None:
    """List dead jobs, run them again, or delete them."""


@dead.command("list")
@click.argument("queue")
@click.option("--limit", type=click.IntRange(0), default=100, show_default=True)
@click.option("--offset", type=click.IntRange(0), default=0, show_default=True)
@json_option
@backend_option
def list_(queue: str, limit: int, offset: int, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """List the dead jobs of QUEUE, oldest first."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        letters = orchestrator.dead_letters(queue, limit=limit, offset=offset)
        count = orchestrator.counts(queue).dead
    if left := max(0, count - offset - len(letters)):
        tell(f"{left:,} more: list them by --offset {offset + len(letters)}, or a higher --limit")
    if wants_json(as_json):
        print_json([_plain(letter) for letter in letters])
        return Exit.OK
    rows = [
        (
            letter.id,
            f"{letter.died_at:%Y-%m-%d %H:%M:%S}",
            letter.reason,
            letter.attempt,
            _short(letter.error),
        )
        for letter in letters
    ]
    if rows:
        stdout().print(table(("id", "died (UTC)", "reason", "attempt", "error"), rows, right=("attempt",)))
    stdout().print(f"{len(letters):,} of {quantity(count, 'dead job')}")
    return Exit.OK


@dead.command()
@click.argument("queue")
@click.argument("job_id")
@json_option
@backend_option
def show(queue: str, job_id: str, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Show one dead job. It prints the payload, the attempts with time, host and process, and a traceback."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        letter = find_dead_letter(orchestrator, queue, job_id)
    if wants_json(as_json):
        print_json(_plain(letter))
        return Exit.OK
    console = stdout()
    console.print(
        f"[bold]{shown(letter.id)}[/] {shown(letter.reason)}, {letter.died_at:%Y-%m-%d %H:%M:%S} UTC"
    )
    console.print(f"payload   {shown(payload_of(letter))}")
    for failure in letter.attempts:
        console.print(f"attempt {failure.attempt} {_where(failure)}{shown(failure.error)}")
    if letter.crashes:
        console.print(f"crashes   {letter.crashes}")
    if letter.traceback is not None:
        console.print(escape(printable_lines(letter.traceback)))
    return Exit.OK


@dead.command()
@click.argument("queue")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "all_", is_flag=True, help="Every dead job of the queue.")
@json_option
@backend_option
def redrive(
    queue: str, job_ids: tuple[str, ...], all_: bool, as_json: bool, backend: str | None, app_dir: Path
) -> int:
    """Run dead jobs again, with all their attempts. Name their IDs, or add --all."""
    ids = _chosen(job_ids, all_)
    with opened(settings_of(backend, app_dir)) as orchestrator:
        count = orchestrator.redrive(queue, ids)
    return _counted("redriven", count, ids, as_json)


@dead.command()
@click.argument("queue")
@click.argument("job_ids", nargs=-1, metavar="[ID]...")
@click.option("--all", "all_", is_flag=True, help="Every dead job of the queue.")
@yes_option
@json_option
@backend_option
def discard(
    queue: str,
    job_ids: tuple[str, ...],
    all_: bool,
    yes: bool,
    as_json: bool,
    backend: str | None,
    app_dir: Path,
) -> int:
    """Delete dead jobs. Name their IDs, or add --all."""
    ids = _chosen(job_ids, all_)
    with opened(settings_of(backend, app_dir)) as orchestrator:
        count = orchestrator.counts(queue).dead if ids is None else len(ids)
        confirm(f"Delete {quantity(count, 'dead job')} of {queue}?", yes)
        count = orchestrator.discard(queue, ids)
    return _counted("discarded", count, ids, as_json)


def _chosen(job_ids: tuple[str, ...], all_: bool) -> list[str] | None:
    if bool(job_ids) == all_:
        raise BadUsage("name the ids of dead jobs, or add --all; mindtrace-jobs dead list shows the ids")
    return None if all_ else list(job_ids)


def _counted(what: str, count: int, ids: list[str] | None, as_json: bool) -> int:
    """Answer with the count; where ids were named, all of them had to be dead."""
    if wants_json(as_json):
        print_json({what: count})
    else:
        stdout().print(f"{what} {quantity(count, 'job')}" + (f" of {len(ids):,} named" if ids else ""))
    if ids is None or count == len(set(ids)):
        return Exit.OK
    tell("the others aren't dead: they were redriven or discarded, have expired, or never died in this queue")
    return Exit.NOT_FOUND


def _plain(letter: DeadLetter) -> dict[str, Any]:
    return {
        "id": letter.id,
        "reason": letter.reason,
        "error": letter.error,
        "attempt": letter.attempt,
        "crashes": letter.crashes,
        "died_at": letter.died_at.isoformat(),
        "host": letter.host,
        "pid": letter.pid,
        "traceback": letter.traceback,
        "history": [
            {
                "attempt": failure.attempt,
                "error": failure.error,
                "failed_at": None if failure.failed_at is None else failure.failed_at.isoformat(),
                "host": failure.host,
                "pid": failure.pid,
            }
            for failure in letter.history
        ],
        "payload": payload_of(letter),
    }


def _where(failure: Failure) -> str:
    """When an attempt failed, and in which process, as far as that is known."""
    moment = "" if failure.failed_at is None else f"{failure.failed_at:%Y-%m-%d %H:%M:%S} UTC "
    return moment + ("" if failure.host is None else f"on {shown(failure.host)}, process {failure.pid}: ")


def _short(text: str) -> str:
    line = text.splitlines()[0] if text else ""
    return line if len(line) <= 100 else line[:99] + "…"
