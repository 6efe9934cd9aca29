"""``mindtrace-jobs doctor``: what is wrong, and how to fix it."""

import os
from dataclasses import asdict
from pathlib import Path

import click

from ..application.tools.doctor import examine
from ..application.worker.connecting import WorkerSettings
from ..application.worker.worker import MakeConsumer
from ..domain.errors import JobsError
from ..ports import Finding, Verdict
from ..ports.findings import good, wrong
from .app import backend_option, json_option, settings_of, wants_json
from .errors import Exit
from .loading import load_maker
from .output import print_json, shown, stdout
from .settings import Settings, masked
from .targets import Target, check_order

_MARKS = {Verdict.GOOD: "[green]✓[/]", Verdict.DOUBTFUL: "[yellow]![/]", Verdict.WRONG: "[red]✗[/]"}


@click.command()
@click.argument("consumers", nargs=-1, metavar="[module[:ConsumerClass]]...")
@json_option
@backend_option
def doctor(consumers: tuple[str, ...], as_json: bool, backend: str | None, app_dir: Path) -> int:
    """Check the broker and the consumers. It says how to fix what is wrong, and changes nothing.

    Exits with 1 if anything is wrong.
    """
    settings = settings_of(backend, app_dir, consumers=consumers or None)
    check_order(settings)
    url = settings.backend.get_secret_value()
    findings, makers = _check_consumers(settings)
    findings += _check_files(settings)
    how = WorkerSettings(
        concurrency=settings.concurrency,
        lease_s=settings.lease_s,
        prefetch=settings.prefetch,
        batch_size=settings.batch_size,
        batch_wait_s=settings.batch_wait_s,
        poll_timeout_s=settings.poll_s,
    )
    findings += examine(url, makers, how)
    if wants_json(as_json):
        print_json([asdict(finding) for finding in findings])
    else:
        console = stdout()
        console.print(f"backend {shown(masked(url))}")
        for finding in findings:
            console.print(f"{_MARKS[finding.verdict]} {shown(f'{finding.subject}: {finding.what}')}")
            if finding.remedy:
                console.print(f"    → {shown(finding.remedy)}")
    return Exit.NO if any(finding.verdict is Verdict.WRONG for finding in findings) else Exit.OK


def _check_consumers(settings: Settings) -> tuple[list[Finding], list[MakeConsumer]]:
    findings, makers = [], []
    for target in settings.consumers:
        try:
            make = load_maker(Target.parse(target).name)
            make()
        except JobsError as error:
            remedy = f"correct {target}, or the module that it is in; a worker ends with the same message"
            findings.append(wrong("consumer", str(error), remedy))
        else:
            makers.append(make)
            findings.append(good("consumer", target))
    return findings, makers


def _check_files(settings: Settings) -> list[Finding]:
    path = settings.health_file
    if path is None:
        return []
    if os.access(path if path.exists() else path.parent, os.W_OK):
        return [good("health file", str(path))]
    remedy = f"let the worker's user write to {path.parent}, or set health_file to another path"
    return [wrong("health file", f"{path} can't be written", remedy)]
