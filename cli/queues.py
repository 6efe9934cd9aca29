"""``mindtrace-jobs queues``, ``pause``, ``resume``, ``purge`` and ``delete``: count jobs, and drop them."""

from collections.abc import Iterator
from contextlib import suppress
from dataclasses import asdict
from pathlib import Path
from time import monotonic, sleep
from typing import Any

import click
from rich.console import Group, RenderableType
from rich.live import Live

from ..application.pausing.records import Pause
from ..application.tools.pause_and_wait import pause_and_wait
from ..application.tools.queue_stats import QueueView, watch
from ..domain.wording import quantity
from .app import backend_option, confirm, json_option, opened, settings_of, wants_json, yes_option
from .errors import Exit
from .output import print_json, shown, stdout, table

_COLUMNS = ("queue", "type", "ready", "in flight", "delayed", "dead")
_JOBS_SHOWN = 10


@click.command()
@click.argument("names", nargs=-1, metavar="[QUEUE]...")
@click.option(
    "--watch", "watching", is_flag=True, help="Repeat until Ctrl-C, with changes and the progress of jobs."
)
@click.option(
    "--every",
    "every_s",
    type=click.FloatRange(0.05),
    default=1.0,
    show_default=True,
    help="Seconds between two updates.",
)
@json_option
@backend_option
def queues(
    names: tuple[str, ...], watching: bool, every_s: float, as_json: bool, backend: str | None, app_dir: Path
) -> int:
    """Count the jobs of queues. They are ready, in flight, delayed or dead. Without a name, it shows all.

    A queue that is paused is shown with the reason.

    With --watch, change/s is by how many ready, delayed and running jobs the queue grows each second. It is
    negative while the queue drains. It doesn't say how many jobs are run.
    """
    with opened(settings_of(backend, app_dir)) as orchestrator:
        looks = watch(orchestrator, names)
        if not watching:
            _show(next(looks), wants_json(as_json))
            return Exit.OK
        with suppress(KeyboardInterrupt):
            if wants_json(as_json) or not stdout().is_terminal:
                for views in _paced(looks, every_s):
                    _show(views, wants_json(as_json))
            else:
                _live(looks, every_s)
    return Exit.OK


@click.command()
@click.argument("queue")
@click.option("--reason", help="Why; shown with the queue.")
@click.option("--drain", is_flag=True, help="Return only once no job of the queue runs.")
@json_option
@backend_option
def pause(
    queue: str, reason: str | None, drain: bool, as_json: bool, backend: str | None, app_dir: Path
) -> int:
    """Pause QUEUE: no more of its jobs start. This takes up to a second. Running jobs finish.

    Jobs can be published as before. If QUEUE is paused already, only a new reason changes anything.
    """
    with opened(settings_of(backend, app_dir)) as orchestrator:
        made = pause_and_wait(orchestrator, queue, reason) if drain else orchestrator.pause(queue, reason)
    if wants_json(as_json):
        print_json(_plain_pause(made))
    else:
        stdout().print(shown(f"{queue} is {made}{'; no job runs' if drain else ''}"))
    return Exit.OK


@click.command()
@click.argument("queue")
@json_option
@backend_option
def resume(queue: str, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Let the workers of QUEUE go on after a pause."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        orchestrator.counts(queue)  # or a typing error would go unnoticed
        was_paused = orchestrator.resume(queue)
    if wants_json(as_json):
        print_json({"was_paused": was_paused})
    else:
        stdout().print(shown(f"{queue} goes on" if was_paused else f"{queue} wasn't paused"))
    return Exit.OK


@click.command()
@click.argument("queue")
@yes_option
@json_option
@backend_option
def purge(queue: str, yes: bool, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Drop the ready and delayed jobs of QUEUE. Jobs in flight and dead jobs stay."""
    with opened(settings_of(backend, app_dir)) as orchestrator:
        waiting = orchestrator.count_queue_messages(queue)
        confirm(f"Drop {quantity(waiting, 'job')} of {queue} for good?", yes)
        purged = orchestrator.clean_queue(queue)
    if wants_json(as_json):
        print_json({"purged": purged})
    else:
        stdout().print(f"dropped {quantity(purged, 'job')}")
    return Exit.OK


@click.command()
@click.argument("queue")
@yes_option
@json_option
@backend_option
def delete(queue: str, yes: bool, as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Delete QUEUE with its jobs, dead jobs and results. Its schedules stay.

    Stop its workers first: those that run lose their jobs, start again, and declare the queue anew.
    """
    with opened(settings_of(backend, app_dir)) as orchestrator:
        if not yes:  # else what an earlier try left of a queue that is gone can be deleted, too
            counts = orchestrator.counts(queue)
            jobs = counts.waiting + (counts.in_flight or 0) + counts.dead
            confirm(f"Delete {queue} for good, with {quantity(jobs, 'job')} and all results?", yes)
        orchestrator.delete_queue(queue)
    if wants_json(as_json):
        print_json({"deleted": queue})
    else:
        stdout().print(shown(f"deleted {queue}"))
    return Exit.OK


def _paced(looks: Iterator[list[QueueView]], every_s: float) -> Iterator[list[QueueView]]:
    due_s = monotonic()
    for views in looks:
        yield views
        due_s += every_s
        sleep(max(0.0, due_s - monotonic()))


def _live(looks: Iterator[list[QueueView]], every_s: float) -> None:
    with Live(console=stdout(), auto_refresh=False) as live:
        for views in _paced(looks, every_s):
            live.update(_rendered(views, changes=True), refresh=True)


def _show(views: list[QueueView], as_json: bool) -> None:
    if as_json:
        print_json([_plain(view) for view in views])
        return
    stdout().print(_rendered(views, changes=any(view.change_per_s is not None for view in views)))


def _rendered(views: list[QueueView], *, changes: bool) -> RenderableType:
    if not views:
        return "no queues are declared here: a worker declares the queues of its consumers"
    columns = (*_COLUMNS, "change/s") if changes else _COLUMNS
    rows = [
        (
            view.name,
            view.kind,
            view.counts.ready,
            view.counts.in_flight,
            view.counts.delayed,
            view.counts.dead,
            *([None if view.change_per_s is None else f"{view.change_per_s:+.1f}"] if changes else []),
        )
        for view in views
    ]
    lines = [
        shown(f"  {view.name}/{job_id}: {progress}")
        for view in views
        for job_id, progress in list(view.progress.items())[:_JOBS_SHOWN]
    ]
    pauses = [shown(f"  {view.name} is {view.pause}") for view in views if view.pause is not None]
    unknown = [
        shown(f"  whether queues are paused isn't known: {error}")
        for error in dict.fromkeys(view.pause_error for view in views)
        if error is not None
    ]
    return Group(table(columns, rows, right=columns[2:]), *pauses, *unknown, *lines)


def _plain(view: QueueView) -> dict[str, Any]:
    return {
        "queue": view.name,
        "type": view.kind,
        **asdict(view.counts),
        "change_per_s": None if view.change_per_s is None else round(view.change_per_s, 3),
        "progress": {job_id: asdict(progress) for job_id, progress in view.progress.items()},
        "paused": None if view.pause is None else _plain_pause(view.pause),
        **({} if view.pause_error is None else {"pause_error": view.pause_error}),
    }


def _plain_pause(pause: Pause) -> dict[str, Any]:
    return {"since": pause.since.isoformat(), "reason": pause.reason, "by": pause.by}
