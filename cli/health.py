"""``mindtrace-jobs health``: whether a worker is healthy, by its health file."""

from pathlib import Path
from time import time

import click

from ..application.worker.health import HealthFile
from .app import json_option, wants_json
from .errors import Exit
from .output import print_json, stdout


@click.command()
@click.argument("file", type=click.Path(dir_okay=False, path_type=Path))
@click.option(
    "--within",
    "within_s",
    type=click.FloatRange(0),
    default=60.0,
    show_default=True,
    help="How many seconds ago each consumer must have asked for jobs; more than your longest job takes.",
)
@json_option
def health(file: Path, within_s: float, as_json: bool) -> int:
    """Say whether a worker is healthy. Exits with 0 if each consumer has asked for jobs lately, else with 1.

    FILE is the --health-file of the worker. A consumer doesn't ask for jobs while it runs one, so set
    --within to more seconds than your longest job takes.
    """
    moment_s = HealthFile(file).read()
    age_s = None if moment_s is None else time() - moment_s
    healthy = age_s is not None and age_s <= within_s
    if wants_json(as_json):
        print_json({"healthy": healthy, "age_s": None if age_s is None else round(age_s, 3)})
    elif age_s is None:
        stdout().print(f"unhealthy: there is no file {file}: no worker writes it, or none has started yet")
    else:
        state = "healthy: each consumer" if healthy else "unhealthy: not every consumer"
        stdout().print(f"{state} asked for jobs in the last {age_s if healthy else within_s:.1f} s")
    return Exit.OK if healthy else Exit.NO
