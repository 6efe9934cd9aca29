"""``mindtrace-jobs health``: whether a worker that keeps a health file is well."""

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
    "--within", "within_s", type=click.FloatRange(0), default=60.0, show_default=True, help="Seconds."
)
@json_option
def health(file: Path, within_s: float, as_json: bool) -> int:
    """Exit with 0 if every consumer of the worker has fetched or polled within so many seconds, else with 1.

    FILE is what the worker was given as --health-file. Give more seconds than the longest job takes.
    """
    moment_s = HealthFile(file).read()
    age_s = None if moment_s is None else time() - moment_s
    healthy = age_s is not None and age_s <= within_s
    if wants_json(as_json):
        print_json({"healthy": healthy, "age_s": None if age_s is None else round(age_s, 3)})
    elif age_s is None:
        stdout().print(f"not well: {file} isn't there: no worker keeps it, or it hasn't begun to work")
    else:
        state = "well" if healthy else "not well"
        stdout().print(f"{state}: every consumer had last fetched or polled {age_s:.1f} s ago")
    return Exit.OK if healthy else Exit.NO
