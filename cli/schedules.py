"""``mindtrace-jobs schedules`` and ``scheduler``: list and change schedules, and run them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from ..application.process.graceful_stop import stopping_on_signals
from .app import (
    backend_option,
    confirm,
    json_option,
    log_options,
    opened,
    settings_of,
    wants_json,
    yes_option,
)
from .errors import Exit
from .logs import WORKER, configure
from .output import print_json, shown, stdout, table
from .settings import masked

if TYPE_CHECKING:  # imported by the commands that need it
    from ..application.schedules.record import Schedule


@click.group()
def schedules() -> None:
    """List, run, pause, resume or remove schedules. Programs and workers define them."""


@schedules.command("list")
@json_option
@backend_option
def list_(as_json: bool, backend: str | None, app_dir: Path) -> int:
    """List all schedules with their next slot. Times are in UTC."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        found = orchestrator.schedules.list()
    if wants_json(as_json):
        print_json([_plain(each) for each in found])
        return Exit.OK
    if not found:
        stdout().print("no schedules are defined here: a program or a worker's consumers define them")
        return Exit.OK
    rows = [
        (
            each.name,
            each.queue,
            each.when,
            each.when.misfire,
            "paused" if each.paused else f"{each.next_slot:%Y-%m-%d %H:%M:%S}",
            None if each.last_slot is None else f"{each.last_slot:%Y-%m-%d %H:%M:%S}",
        )
        for each in found
    ]
    stdout().print(table(("name", "queue", "when", "misfire", "next (UTC)", "last (UTC)"), rows))
    return Exit.OK


@schedules.command()
@click.argument("name")
@json_option
@backend_option
def run(name: str, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Publish a job of the schedule NAME now, also while it is paused. Its slots stay as they are."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        job_id = orchestrator.schedules.run(name)
    return _answer(as_json, {"id": job_id}, job_id)


@schedules.command()
@click.argument("name")
@json_option
@backend_option
def pause(name: str, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Publish no more jobs of the schedule NAME until it is resumed."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        paused = orchestrator.schedules.pause(name)
    return _answer(as_json, _plain(paused), f"paused {name}")


@schedules.command()
@click.argument("name")
@json_option
@backend_option
def resume(name: str, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """End the pause of the schedule NAME. What passed is published only if its misfire is "all"."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        resumed = orchestrator.schedules.resume(name)
    text = f"resumed {name}; its next slot is {resumed.next_slot:%Y-%m-%d %H:%M:%S} UTC"
    return _answer(as_json, _plain(resumed), text)


@schedules.command()
@click.argument("name")
@yes_option
@json_option
@backend_option
def remove(name: str, yes: bool, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Remove the schedule NAME. Jobs that were published stay.

    A worker whose consumer has this schedule defines it again when it starts.
    """
    with opened(settings_of(backend, app_dir)) as orchestrator:
        confirm(f"Remove the schedule {name}?", yes)
        orchestrator.schedules.remove(name)
    return _answer(as_json, {"removed": name}, f"removed {name}")


@click.command()
@log_options
@backend_option
def scheduler(backend: str | None, app_dir: Path, **options: Any) -> int:
    """Publish the jobs of schedules when they are due. Any number of schedulers may run.

    SIGTERM or Ctrl-C stops it after the slot that it is publishing; a second one at once.
    """
    settings = settings_of(backend, app_dir, **options)
    configure(settings.log_format, settings.log_level)
    from ..application.schedules.scheduler import Scheduler

    with opened(settings) as orchestrator:
        found = Scheduler(orchestrator, logger=WORKER)
        with stopping_on_signals(found.stop):
            WORKER.info("scheduler on %s", masked(settings.backend.get_secret_value()))
            found.run()
    return Exit.OK


def _answer(as_json: bool, fields: dict[str, Any], text: str) -> int:
    if wants_json(as_json):
        print_json(fields)
    else:
        stdout().print(shown(text))
    return Exit.OK


def _plain(schedule: "Schedule") -> dict[str, Any]:
    last = schedule.last_slot
    return {
        "name": schedule.name,
        "queue": schedule.queue,
        "payload": schedule.payload,
        "priority": schedule.priority,
        **schedule.when.to_dict(),
        "paused": schedule.paused,
        "next_slot": schedule.next_slot.isoformat(),
        "last_slot": None if last is None else last.isoformat(),
        "last_job_id": schedule.last_job_id,
    }
