"""``mindtrace-jobs worker``: consumers in processes under supervision."""

import os
import tempfile
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import click

from ..application.process.signal_queue import SignalQueue
from ..application.worker.autoscaling import ProcessCount, WaitingFile
from ..application.worker.health import HealthFile, oldest
from ..application.worker.supervisor import SIGNALS, Supervisor
from .app import backend_option, log_options, settings_of
from .errors import BadUsage, Exit
from .logs import WORKER, configure
from .orphans import reap_orphans
from .settings import Settings, masked_with_stores
from .targets import check_order
from .worker_process import PROCESS_NUMBER, Plan, WorkerProcess

_HOPELESS = frozenset({Exit.USAGE, Exit.BROKER, Exit.NOT_FOUND, Exit.NOT_INSTALLED, Exit.BUG})
"""Exit codes of a process whose command can't work: it isn't restarted, and its message is enough."""


@click.command()
@click.argument("consumers", nargs=-1, metavar="[module[:ConsumerClass][=WEIGHT]]...")
@backend_option
@click.option("-p", "--processes", type=int, help="Number of processes.  [default: 1]")
@click.option(
    "--autoscale",
    metavar="MIN:MAX",
    help="So many processes, in place of --processes: more while jobs wait for long, fewer while none does.",
)
@click.option(
    "-c",
    "--concurrency",
    type=int,
    help="Jobs that each consumer runs at once.  [default: what its class says, else 1]",
)
@click.option(
    "-j",
    "--jobs",
    type=int,
    help="Handlers that all consumers of a process run at once; a batch is one.  [default: no limit]",
)
@click.option(
    "--order",
    type=click.Choice(["strict", "weighted"]),
    help="Whose job is next, with --jobs. strict: the first consumer's that has one, in the order of their "
    "names. weighted: each one's by its weight, as in tasks:High=3 tasks:Low=1.  [default: weighted]",
)
@click.option(
    "--grace",
    "grace_s",
    type=float,
    help="Seconds that a running job may take to finish after SIGTERM.  [default: 30]",
)
@click.option(
    "--lease",
    "lease_s",
    type=float,
    help="Seconds until the jobs of a worker that died go to another.  [default: 30]",
)
@click.option(
    "--timeout",
    "timeout_s",
    type=float,
    help="Seconds that a handler may run.  [default: what its class or its schema says, else no limit]",
)
@click.option("--poll", "poll_s", type=float, help="Longest single wait for jobs, in seconds.  [default: 5]")
@click.option(
    "--prefetch",
    type=int,
    help="Jobs that a consumer takes at once.  [default: the backend's: 1 on RabbitMQ, else adaptive]",
)
@click.option(
    "--batch-size", type=int, help="Jobs that a BatchConsumer runs at once.  [default: what its class says]"
)
@click.option(
    "--batch-wait",
    "batch_wait_s",
    type=float,
    help="Seconds that its batch waits for more jobs.  [default: what its class says]",
)
@click.option(
    "--max-jobs",
    type=int,
    help="Jobs after which a process is replaced, one process after the other.  [default: no limit]",
)
@click.option(
    "--max-memory",
    metavar="SIZE",
    help="Resident memory with which a process is replaced, as 500M or 2G; or, as 80%, a share of the "
    "container's, or the machine's, for all processes together.  [default: no limit]",
)
@click.option("--schedules", is_flag=True, default=None, help="Publish the jobs of schedules as well.")
@click.option("--burst", is_flag=True, help="Exit once no job is ready, delayed or to be retried.")
@click.option(
    "--reload",
    is_flag=True,
    help="Restart the processes when a .py file in the app dir changes (extra: reload).",
)
@log_options
@click.option(
    "--health-file",
    type=click.Path(dir_okay=False, path_type=Path),
    help="File whose modification time shows when each consumer last asked for jobs; see health.",
)
@click.option("--metrics-port", type=int, help="Serve Prometheus metrics on this port (extra: metrics).")
@click.option(
    "--metrics-host",
    help="Address to serve them on; 0.0.0.0 for all, as a container needs.  [default: 127.0.0.1]",
)
@click.option(
    "--observer",
    "observers",
    multiple=True,
    metavar="module:name",
    help="An Observer, or what makes one: it hears of each job, for example to alert when one is dead. "
    "Can be given several times.",
)
@click.option("--tracing", is_flag=True, default=None, help="Send OpenTelemetry spans (extra: tracing).")
def worker(
    consumers: tuple[str, ...],
    observers: tuple[str, ...],
    backend: str | None,
    app_dir: Path,
    burst: bool,
    reload: bool,
    **options: Any,
) -> int:
    """Run consumers. A module stands for every consumer in it.

    module:name is one of them, a Consumer class with a schema or a function with @job_handler; or a function
    that returns a consumer, or a list of them.

    SIGTERM or Ctrl-C stops gracefully: running jobs get up to --grace seconds to finish. A second one stops
    at once: running jobs go back to their queue, and no attempt is spent. SIGUSR1 restarts the processes one
    after the other.
    """
    named = {"consumers": consumers or None, "observers": observers or None}
    settings = settings_of(backend, app_dir, **named, **options)
    if not settings.consumers:
        raise BadUsage("no consumers: name them, as in: mindtrace-jobs worker tasks:MyConsumer")
    check_order(settings)
    configure(settings.log_format, settings.log_level)
    with ExitStack() as stack:
        signal_queue = stack.enter_context(SignalQueue(SIGNALS))
        if reload:
            from .reload import reloading

            stack.enter_context(reloading(app_dir, signal_queue))
        folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="mindtrace-jobs-")))
        environment = stack.enter_context(_metrics(settings, folder))
        if reload:  # bytecode is told from its source by the second, and one may edit faster than that
            environment["PYTHONDONTWRITEBYTECODE"] = "1"
        return _supervise(settings, app_dir, burst, signal_queue, folder, environment)


def _supervise(
    settings: Settings,
    app_dir: Path,
    burst: bool,
    signal_queue: SignalQueue,
    folder: Path,
    environment: dict[str, str],
) -> int:
    beats = [HealthFile(folder / f"{number}.beat") for number in range(settings.most_processes)]
    scale = None if settings.autoscale is None else ProcessCount(*settings.autoscale)
    waiting = WaitingFile(folder / "waiting")

    processes: dict[int, list[WorkerProcess]] = {}
    """Of each number, those whose exit codes are still to be read."""

    def start(number: int, prepared_file: Path | None = None) -> WorkerProcess:
        plan = Plan.of(
            settings,
            app_dir=app_dir.resolve(),
            burst=burst,
            follows_a_death=number in processes,
            beat_file=beats[number].path,
            prepared_file=prepared_file,
            waiting_file=waiting.path if scale is not None and number == 0 else None,
        )
        process = WorkerProcess(plan, beats[number], environment | {PROCESS_NUMBER: str(number)})
        processes[number] = [*unread(number), process]
        return process

    def prepare(number: int) -> WorkerProcess:
        return start(number, folder / f"{number}.prepared")

    def unread(number: int) -> list[WorkerProcess]:
        return [process for process in processes.get(number, []) if process.is_unread]

    def on_tick() -> None:
        reap_orphans({process.pid for number in processes for process in unread(number)})
        tell_health()
        if scale is not None and (waiting_s := waiting.read()) is not None:
            _note(scale, waiting_s)

    def wanted() -> int:
        return settings.processes if scale is None else scale.now

    def tell_health() -> None:
        for number in processes:
            if number >= wanted() and not unread(number):
                beats[number].remove()  # or it would be old once there is a process of this number again
        moment_s = oldest(beats[: wanted()])
        if settings.health_file is not None and moment_s is not None:
            try:
                HealthFile(settings.health_file).write(moment_s)
            except OSError as error:
                WORKER.error("the health file isn't written: %s", error)

    if settings.health_file is not None:
        _check_writable(settings.health_file)
    WORKER.info(
        "%s on %s; processes: %d",
        ", ".join(settings.consumers),
        masked_with_stores(settings.backend.get_secret_value()),
        wanted(),
    )
    supervisor = Supervisor(
        start,
        prepare,
        settings.most_processes,
        grace_s=settings.grace_s,
        signal_queue=signal_queue,
        logger=WORKER,
        hopeless=lambda code: code in _HOPELESS,
        on_tick=on_tick,
        wanted=wanted,
    )
    return supervisor.run()


def _note(scale: ProcessCount, waiting_s: float) -> None:
    """Decide how many processes there are to be, and tell of a change."""
    before = scale.now
    scale.note(waiting_s)
    if scale.now != before:
        WORKER.info("processes: %d; the job that is next has waited for %.1f s", scale.now, waiting_s)


@contextmanager
def _metrics(settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """Serve metrics if they are asked for; yields what the processes need in their environment."""
    if settings.metrics_port is None:
        yield {}
        return
    from .metrics import serving

    with serving(settings, folder / "metrics") as environment:
        yield environment


def _check_writable(path: Path) -> None:
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise BadUsage(f"the health file {path} can't be written: name another with --health-file")
