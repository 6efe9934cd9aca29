"""Options and helpers that all commands share."""

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, TypeVar

import click

from ..application.api.orchestrator import Orchestrator
from ..application.broker.default_backend import DEFAULT_URL
from ..domain.errors import QueueNotFound, UnsupportedCapability
from ..ports import Durability
from .errors import BadUsage
from .loading import load_schema
from .settings import Settings, add_to_path, load_settings, masked

CommandT = TypeVar("CommandT", bound=Callable[..., Any])


def backend_option(command: CommandT) -> CommandT:
    """``--backend`` and ``--app-dir``."""
    command = click.option(
        "--app-dir",
        type=click.Path(exists=True, file_okay=False, path_type=Path),
        default=".",
        help="Folder to import modules from.  [default: the working folder]",
    )(command)
    return click.option(
        "-b",
        "--backend",
        metavar="URL",
        help="URL of the backend, such as redis://localhost:6379/0.  [default: MINDTRACE_JOBS_BACKEND, else "
        f"pyproject.toml, else {DEFAULT_URL}]",
    )(command)


def log_options(command: CommandT) -> CommandT:
    """``--log-format`` and ``--log-level``, of a command that runs until it is stopped."""
    command = click.option(
        "--log-level",
        type=click.Choice(["debug", "info", "warning", "error"]),
        help="The lowest level of the lines that are logged.  [default: info]",
    )(command)
    return click.option(
        "--log-format",
        type=click.Choice(["text", "json"]),
        help="How each line of the log is written, as text or as a JSON object.  [default: text]",
    )(command)


json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, for scripts.")
yes_option = click.option("--yes", "-y", is_flag=True, help="Don't ask for confirmation.")


def settings_of(backend: str | None, app_dir: Path, **options: Any) -> Settings:
    """The settings, with these options in place of what is configured; modules come from ``app_dir``."""
    add_to_path(app_dir)
    return load_settings(backend=backend, **options)


def wants_json(as_json: bool) -> bool:
    """Whether JSON was asked for, by this command or by ``mindtrace-jobs --json``."""
    context = click.get_current_context(silent=True)
    return as_json or bool(context and context.find_root().params.get("as_json"))


@contextmanager
def opened(settings: Settings) -> Iterator[Orchestrator]:
    """An orchestrator on the backend that is configured.

    Raises:
        BadUsage: the backend lives in this process alone, where no other command would find its jobs.
        QueueNotFound: as raised inside, with the queues that there are.
    """
    url = settings.backend.get_secret_value()
    with Orchestrator(url) as orchestrator:
        check_shared(orchestrator, url)
        try:
            yield orchestrator
        except QueueNotFound as error:
            found = f"declared on {masked(url)}: {_declared(orchestrator)}"
            raise QueueNotFound(f"{error}; {found}") from error


def check_shared(orchestrator: Orchestrator, url: str) -> None:
    """Refuse queues that no other process can see.

    Raises:
        BadUsage: they live in the memory of this one.
    """
    if orchestrator.backend.capabilities.durability is Durability.PROCESS:
        raise BadUsage(
            f"{masked(url)}: these queues are in the memory of one process, so no two commands can share "
            "them: use a file, such as sqlite:///jobs.db, or a broker, such as redis://localhost:6379/0"
        )


def prepare(orchestrator: Orchestrator, queue: str, schema: str | None) -> None:
    """Make ``queue`` known to ``orchestrator``: by its schema, which declares it, or as it is.

    Raises:
        BadUsage: the schema is another queue's.
        QueueNotFound: no schema was given, and nobody has declared the queue.
    """
    if schema is None:
        try:
            orchestrator.attach(queue)
        except QueueNotFound as error:
            raise QueueNotFound(
                f"queue {queue!r}: not declared; name its schema with --schema module:Name, or start a worker"
            ) from error
        return
    found, queue_type = load_schema(schema)
    if found.name != queue:
        raise BadUsage(f"{schema} is the schema of queue {found.name!r}, not {queue!r}")
    orchestrator.register(found, queue_type)


def confirm(question: str, yes: bool) -> None:
    """Ask before something is dropped.

    Raises:
        BadUsage: nobody can be asked, and ``--yes`` wasn't given.
        click.Abort: the answer is no.
    """
    if yes:
        return
    if not sys.stdin.isatty():
        raise BadUsage(f"{question} There is no terminal to ask on: add --yes")
    click.confirm(question, abort=True, err=True)


def _declared(orchestrator: Orchestrator) -> str:
    try:
        names = [queue.name for queue in orchestrator.queues()]
    except UnsupportedCapability:
        return "can't be listed here"
    return ", ".join(names) or "none"
