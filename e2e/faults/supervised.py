"""Workers of ``mindtrace-jobs worker`` in experiments."""

import os
import subprocess
import sysconfig
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from conditions import LIMIT_S

from .experiment import Experiment
from .targets import ProcessTarget

FOLDER = Path(__file__).parents[1]
PREFETCH = 5
_COMMAND = Path(sysconfig.get_path("scripts"), "mindtrace-jobs")


@contextmanager
def supervised(
    experiment: Experiment, consumer: str, *options: str, **files: Path
) -> Iterator["subprocess.Popen[bytes]"]:
    """``mindtrace-jobs worker`` with two processes.

    Args:
        experiment: What it works for.
        consumer: As the command takes it; a module of ``e2e/``.
        options: More options of the command.
        files: Further files that the consumer finds by their names in the environment.
    """
    assert isinstance(experiment.target, ProcessTarget)
    words = [str(_COMMAND), "worker", consumer, "--app-dir", str(FOLDER)]
    words += ["--backend", experiment.target.url(experiment.namespace), *options]
    words += ["--processes", "2", "--lease", str(experiment.target.lease_s), "--prefetch", str(PREFETCH)]
    records = {name.upper(): record.path for name, record in experiment.records._asdict().items()}
    environment = os.environ | {name: str(path) for name, path in (records | files).items()}
    with (experiment.started.path.parent / "log").open("wb") as log:
        process = subprocess.Popen(words, env=environment, stdout=log, stderr=log)
    try:
        yield process
    finally:
        process.terminate()
        process.wait(LIMIT_S)
