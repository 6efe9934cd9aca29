"""``mindtrace-jobs publish``: one job, or a file of them."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from datetime import datetime
from pathlib import Path
from time import monotonic
from typing import IO, Any

import click
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from ..application.api.orchestrator import Orchestrator
from ..application.publishing.publish_options import PublishOptions, publish_options
from ..application.tools.bulk_publish import BulkPublishReport, bulk_publish
from ..domain.errors import MalformedBody
from ..domain.json_guard import parse_object
from ..domain.wording import quantity
from ..ports import PublishStatus
from .app import backend_option, opened, prepare, settings_of, wants_json
from .errors import BadUsage, Exit
from .output import print_json, shown, stderr, stdout, tell


def _moment(_context: click.Context, _option: click.Parameter, text: str | None) -> datetime | None:
    """Read a moment with a time zone."""
    try:
        moment = None if text is None else datetime.fromisoformat(text)
    except ValueError:
        raise click.BadParameter(f"{text!r:.80} is no time such as 2027-01-31T08:00+01:00") from None
    if moment is not None and moment.tzinfo is None:
        raise click.BadParameter(f"{text} has no time zone: add Z for UTC, or a distance such as +01:00")
    return moment


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
    help="A JobSchema, a Consumer class, or a function with @job_handler: validates payloads and "
    "declares the queue.",
)
@click.option(
    "--id",
    "job_id",
    help="The job's id. A job with this id that is still in the queue isn't published again, except on "
    "RabbitMQ.  [default: a new id]",
)
@click.option("--priority", type=int, help="0 to 9, higher first; for priority queues only.")
@click.option("--delay", "delay_s", type=float, help="Seconds before the job may run.")
@click.option(
    "--not-before",
    metavar="TIME",
    callback=_moment,
    help="When the job may run, in place of --delay: a date and time with its distance from UTC, such as "
    "2027-01-31T08:00+01:00, or with Z for UTC.",
)
@click.option(
    "--expires",
    "expires_s",
    type=float,
    help="Seconds for which the job may wait from then on; after that it isn't run.  [default: the schema's]",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    help="Seconds that its handler may run.  [default: what the worker says, or the schema]",
)
@backend_option
def publish(
    queue: str,
    payload: str | None,
    lines: IO[bytes] | None,
    schema: str | None,
    job_id: str | None,
    priority: int | None,
    delay_s: float | None,
    not_before: datetime | None,
    expires_s: float | None,
    timeout_s: float | None,
    backend: str | None,
    app_dir: Path,
) -> int:
    """Publish one job, or many from a file. The command returns once the broker has confirmed them.

    Without --schema the queue has to be there already, and it is the consumer that validates. To have the
    answer as JSON: mindtrace-jobs --json publish …
    """
    settings = settings_of(backend, app_dir)
    options = publish_options(priority, delay_s, not_before, expires_s, timeout_s)
    if lines is not None and payload is None:
        if job_id is not None:
            raise BadUsage("--id names one job: give it with --json")
        with opened(settings) as orchestrator:
            prepare(orchestrator, queue, schema)
            return _publish_file(orchestrator, queue, lines, options)
    if payload is None or lines is not None:
        raise BadUsage("""give either --json '{"key": "value"}' for one job, or --file jobs.jsonl for many""")
    data = _parse(payload)
    with opened(settings) as orchestrator:
        prepare(orchestrator, queue, schema)
        job = orchestrator.job(queue, data, id=job_id)
        published = orchestrator.publish_with(queue, job, options)
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


def _publish_file(orchestrator: Orchestrator, queue: str, lines: IO[bytes], options: PublishOptions) -> int:
    began_s = monotonic()
    with _progress_bar(lines) as show:
        report = bulk_publish(orchestrator, queue, lines, options=options, on_batch=show)
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
