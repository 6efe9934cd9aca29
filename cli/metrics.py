"""Prometheus metrics: what the processes of a worker count, and what is in the queues."""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any, NamedTuple

import click

from ..application.orchestrator import Orchestrator
from ..application.signals.signal_queue import STOP, SignalQueue
from ..application.tools.queue_stats import watch
from ..domain.errors import InvalidInput, JobsError
from ..ports import Observer
from .app import backend_option, opened, settings_of
from .errors import Exit, NotInstalled
from .logs import WORKER, configure
from .metrics_server import MetricsServer
from .settings import Settings, masked

if TYPE_CHECKING:
    from prometheus_client import CollectorRegistry

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"
_PORT = 9105


@click.command()
@click.argument("names", nargs=-1, metavar="[QUEUE]...")
@click.option(
    "--port", type=click.IntRange(1, 65_535), default=_PORT, show_default=True, help="Port to listen on."
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for all, as a container needs.",
)
@click.option("--log-format", type=click.Choice(["text", "json"]), help="[default: text]")
@click.option("--log-level", type=click.Choice(["debug", "info", "warning", "error"]), help="[default: info]")
@backend_option
def metrics(
    names: tuple[str, ...], port: int, host: str, backend: str | None, app_dir: Path, **options: Any
) -> int:
    """Serve the number of jobs in each queue to Prometheus (extra: metrics).

    Run one for each backend: workers don't serve these numbers, as each would serve the same. On RabbitMQ
    name the queues, as it can't list them.
    """
    settings = settings_of(backend, app_dir, **options)
    configure(settings.log_format, settings.log_level)
    exposition = _exposition("mindtrace-jobs metrics")
    with opened(settings) as orchestrator, SignalQueue(STOP) as signals:
        exposition.registry.register(QueueCollector(orchestrator, names))
        with exposition.served(host, port):
            url = masked(settings.backend.get_secret_value())
            WORKER.info("metrics of %s on http://%s:%d/metrics", url, host, port)
            while not signals.wait(3600.0):
                pass
    return Exit.OK


class QueueCollector:
    """Counts the jobs of queues by state when it is asked.

    Args:
        orchestrator: Where the queues are.
        names: Which; all there are if none is named.

    Raises:
        InvalidInput: none is named, and the backend can't list them.
    """

    def __init__(self, orchestrator: Orchestrator, names: Sequence[str]) -> None:
        self._orchestrator = orchestrator
        self._names = tuple(names)
        try:
            next(watch(orchestrator, self._names))
        except InvalidInput:
            raise
        except JobsError as error:  # it may come back, and a queue may be declared
            WORKER.warning("the queues can't be counted: %s", error)

    def collect(self) -> Iterable[Any]:
        """Return the metrics."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("mindtrace_jobs_backend_up", "Whether the backend answered.")
        jobs = GaugeMetricFamily(
            "mindtrace_jobs_queue_jobs", "Jobs by state.", labels=("messaging_destination_name", "state")
        )
        try:
            views = next(watch(self._orchestrator, self._names))
        except JobsError as error:
            WORKER.warning("the queues can't be counted: %s", error)
            views = None
        up.add_metric([], 0 if views is None else 1)
        for view in views or ():
            counts = view.counts
            states = {"ready": counts.ready, "delayed": counts.delayed, "dead": counts.dead}
            if counts.in_flight is not None:
                states["in_flight"] = counts.in_flight
            for state, count in states.items():
                jobs.add_metric([view.name, state], count)
        return [up, jobs]


def metrics_observer(url: str) -> Observer:
    """The observer of one process; the environment says which folder it counts into."""
    from ..adapters.telemetry.prometheus import PrometheusObserver

    return PrometheusObserver(url.partition("://")[0])


@contextmanager
def serving(settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """Serve what all processes of a worker count; yields the environment that they need.

    Raises:
        NotInstalled: the extra ``metrics`` is missing.
        BadUsage: the port is taken.
    """
    exposition = _exposition("--metrics-port")
    folder.mkdir()
    from prometheus_client.multiprocess import MultiProcessCollector

    MultiProcessCollector(exposition.registry, path=str(folder))  # type: ignore[no-untyped-call]
    with exposition.served(settings.metrics_host, settings.metrics_port or _PORT):
        yield {_FOLDER: str(folder)}


class _Exposition(NamedTuple):
    """What collects, and how it is written."""

    registry: "CollectorRegistry"
    write: "Callable[[CollectorRegistry], bytes]"
    content_type: str

    def served(self, host: str, port: int) -> MetricsServer:
        return MetricsServer(host, port, self.content_type, lambda: self.write(self.registry))


def _exposition(what: str) -> _Exposition:
    """Return a registry that is empty.

    Args:
        what: What needs the extra ``metrics``.

    Raises:
        NotInstalled: it is missing.
    """
    try:
        from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, generate_latest
    except ModuleNotFoundError as error:
        raise NotInstalled(what, error.name, "metrics") from error
    return _Exposition(CollectorRegistry(), generate_latest, CONTENT_TYPE_LATEST)
