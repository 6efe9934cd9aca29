"""``mindtrace-jobs cancel``: cancel jobs that wait or run."""

from pathlib import Path

import click

from ..ports import CancelOutcome
from .app import backend_option, json_option, opened, settings_of, wants_json
from .errors import Exit
from .output import print_json, shown, stdout

_SAID = {
    CancelOutcome.CANCELLED: "cancelled",
    CancelOutcome.REQUESTED: "is asked to end",
    CancelOutcome.TOO_LATE: "too late: it is done or dead",
    CancelOutcome.UNKNOWN: "not known",
}


@click.command()
@click.argument("queue")
@click.argument("job_ids", nargs=-1, required=True, metavar="ID...")
@json_option
@backend_option
def cancel(queue: str, job_ids: tuple[str, ...], as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Cancel jobs of QUEUE by their IDs. Those that wait are gone, those that run are asked to end.

    Exits with 4 if a job isn't known, else with 1 if it was too late for one. All others are cancelled.
    """
    with opened(settings_of(backend, app_dir)) as orchestrator:
        orchestrator.attach(queue)
        outcomes = dict(zip(job_ids, orchestrator.cancel_batch(queue, job_ids), strict=True))
    if wants_json(as_json):
        print_json({id_: str(outcome) for id_, outcome in outcomes.items()})
    else:
        for id_, outcome in outcomes.items():
            stdout().print(shown(f"{id_}: {_SAID[outcome]}"))
    if CancelOutcome.UNKNOWN in outcomes.values():
        return Exit.NOT_FOUND
    return Exit.NO if CancelOutcome.TOO_LATE in outcomes.values() else Exit.OK
