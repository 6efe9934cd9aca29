"""``mindtrace-jobs result``: how a job ended."""

from pathlib import Path
from typing import Any

import click
from rich.markup import escape

from ..application.tools.results import await_result
from ..domain import Progress
from ..domain.errors import JobFailed
from ..domain.printable import printable_lines
from .app import backend_option, json_option, opened, settings_of, wants_json
from .errors import Exit
from .output import print_json, stderr


@click.command()
@click.argument("job_id")
@click.option("--queue", help="The job's queue.  [default: search all queues]")
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=0.0, help="Seconds to wait for the job to end."
)
@json_option
@backend_option
def result(
    job_id: str, queue: str | None, wait_s: float, as_json: bool, backend: str | None, app_dir: Path
) -> int:
    """Print the result of a job as JSON. It is what the handler returned, or null if it returned nothing.

    While this waits, a terminal shows the progress that the job reports. If the job is dead, this prints its
    traceback and its error, and exits with 1; so it does if it was cancelled, was replaced or has expired. If
    it hasn't ended or isn't known, this says which, and exits with 4. On RabbitMQ, the URL must name a store
    for results: amqp://host?results=redis://host.
    """
    with opened(settings_of(backend, app_dir)) as orchestrator, stderr().status("waiting") as status:
        if not wait_s:
            status.stop()

        def show(progress: Progress) -> None:
            status.update(f"running: {progress}")

        try:
            value: Any = await_result(orchestrator, job_id, queue, timeout_s=wait_s, on_progress=show)
        except JobFailed as error:
            status.stop()
            if wants_json(as_json):
                print_json({"id": job_id, "error": error.error, "traceback": error.traceback})
            elif error.traceback is not None:
                stderr().print(escape(printable_lines(error.traceback)))
            raise
    print_json({"id": job_id, "result": value} if wants_json(as_json) else value)
    return Exit.OK
