"""``mindtrace-jobs publish``: one job, or a file of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from time import monotonic
from typing import IO, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..application.orchestrator import Orchestrator
from ..application.tools.bulk_publish import BulkPublishReport, bulk_publish
from ..domain.errors import MalformedBody
from ..domain.json_guard import parse_object
from ..domain.wording import quantity
from ..ports import PublishStatus
from .app import backend_option, opened, prepare, settings_of, wants_json
from .errors import BadUsage, Exit
from .output import print_json, shown, stderr, stdout, tell


@click.command()
@click.argument("queue")
@click.option("--json", "payload", metavar="OBJECT", help="The payload of one job, as a JSON object.")
@click.option(
    "--file",
    "lines",
    type=click.File("rb"),
    help="A file with one payload per line (JSON Lines); - is standard input.",
)
@click.option(
    "--schema",
    metavar="module:Name",
    help="A JobSchema or Consumer class: validates payloads and declares the queue.",
)
@click.option(
    "--id",
    "job_id",
    help="The job's id. A job with this id that is still in the queue isn't published again, except on "
    "RabbitMQ.  [default: a new id]",
)
@click.option("--priority", type=int, help="0 to 9, higher first; for priority queues only.")
@click.option("--delay", "delay_s", type=float, help="Seconds before the job may run.")
@backend_option
def publish(
    queue: str,
    payload: str | None,
    lines: IO[bytes] | None,
    schema: str | None,
    job_id: str | None,
    priority: int | None,
    delay_s: float | None,
    backend: str | None,
    app_dir: Path,
) -> int:
    """Publish one job, or many from a file, and return once the broker has confirmed.

    Without --schema the queue has to be there already, and it is the consumer that validates. To have the
    answer as JSON: mindtrace-jobs --json publish …
    """
    settings = settings_of(backend, app_dir)
    if lines is not None and payload is None:
        if job_id is not None:
            raise BadUsage("--id names one job: give it with --json")
        with opened(settings) as orchestrator:
            prepare(orchestrator, queue, schema)
            return _publish_file(orchestrator, queue, lines, priority, delay_s)
    if payload is None or lines is not None:
        raise BadUsage("""give either --json '{"key": "value"}' for one job, or --file jobs.jsonl for many""")
    data = _parse(payload)
    with opened(settings) as orchestrator:
        prepare(orchestrator, queue, schema)
        job = orchestrator.job(queue, data, id=job_id)
        published = orchestrator.publish(queue, job, priority=priority, delay_s=delay_s)
    if wants_json(False):
        print_json({"id": published})
    else:
        stdout().print(shown(published))
    return Exit.OK


def _parse(payload: str) -> dict[str, Any]:
    """Parse the payload of one job.

    Raises:
        BadUsage: it isn't JSON; the message says how to quote it.
        MalformedBody: it is JSON that can't be sent.
    """
    try:
        return parse_object(payload.encode("utf-8", "surrogateescape"))
    except MalformedBody as error:
        if not str(error).startswith("not JSON:"):
            raise
        raise BadUsage(
            f"--json: {error}; JSON has names and texts in double quotes, and a shell takes it in single "
            """quotes, as in --json '{"path": "a.png"}'"""
        ) from error


def _publish_file(
    orchestrator: Orchestrator, queue: str, lines: IO[bytes], priority: int | None, delay_s: float | None
) -> int:
    began_s = monotonic()
    with _progress_bar(lines) as show:
        report = bulk_publish(orchestrator, queue, lines, priority=priority, delay_s=delay_s, on_batch=show)
    seconds = monotonic() - began_s
    if wants_json(False):
        print_json(
            {status.value: report.counts[status] for status in PublishStatus}
            | {"standing": report.standing, "seconds": round(seconds, 3)}
            | {"bad": [bad._asdict() for bad in report.bad]}
        )
    else:
        for bad in report.bad:
            tell(f"line {bad.number}: {bad.status.value}: {bad.error}")
        rate = report.published / seconds if seconds else 0.0
        done = f"published {report.published:,} of {quantity(report.lines, 'job')}"
        stdout().print(f"{done} in {seconds:.1f} s, {rate:,.0f} a second{_duplicates(report)}")
    return Exit.OK if report.is_whole else Exit.NO


def _duplicates(report: BulkPublishReport) -> str:
    """Say how many weren't published as they are in the queue, or as another job is in their place."""
    there = report.counts[PublishStatus.DUPLICATE] - report.standing
    told = f"; {there:,} in the queue before" if there else ""
    if report.standing:
        told += f"; {quantity(report.standing, 'duplicate')} of unique jobs"
    return told


@contextmanager
def _progress_bar(lines: IO[bytes]) -> Iterator[Callable[[BulkPublishReport], None]]:
    """A bar on a terminal, by how much of the file is read; elsewhere nothing is shown."""
    total = Path(lines.name).stat().st_size if isinstance(lines.name, str) and lines.seekable() else None
    columns = (
        TextColumn("publishing"),
        BarColumn(),
        TextColumn("{task.fields[jobs]:,} jobs"),
        TextColumn("{task.fields[rate]:,.0f}/s"),
        TimeElapsedColumn(),
    )
    console = stderr()
    with Progress(*columns, console=console, disable=not console.is_terminal) as bar:
        task = bar.add_task("", total=total, jobs=0, rate=0.0)
        began_s = monotonic()

        def show(report: BulkPublishReport) -> None:
            rate = report.published / max(monotonic() - began_s, 1e-9)
            read = lines.tell() if total is not None else None
            bar.update(task, completed=read, jobs=report.published, rate=rate)

        yield show
