"""Prometheus metrics of a worker: each process counts into a folder, and the supervisor serves the sums."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ..application.orchestrator import Orchestrator
from ..application.tools.queue_stats import watch
from ..domain.errors import JobsError
from ..ports import Observer
from .errors import BadUsage, NotInstalled
from .settings import Settings

_FOLDER = "PROMETHEUS_MULTIPROC_DIR"


def metrics_observer(url: str) -> Observer:
    """The observer of one process; the environment says which folder it counts into."""
    from ..adapters.telemetry.prometheus import PrometheusObserver

    return PrometheusObserver(url.partition("://")[0])


@contextmanager
def serving(settings: Settings, folder: Path) -> Iterator[dict[str, str]]:
    """Serve the metrics of all processes; yields the environment that they need.

    Raises:
        NotInstalled: the extra ``metrics`` is missing.
        BadUsage: the port is taken.
    """
    try:
        from prometheus_client import CollectorRegistry, start_http_server
        from prometheus_client.core import GaugeMetricFamily
        from prometheus_client.multiprocess import MultiProcessCollector
    except ModuleNotFoundError as error:
        raise NotInstalled("--metrics-port", error.name, "metrics") from error

    class QueueCollector:
        """Counts the jobs of each queue by state when it is asked."""

        def collect(self) -> Iterable[GaugeMetricFamily]:
            gauge = GaugeMetricFamily(
                "mindtrace_jobs_queue_jobs", "Jobs by state.", labels=("messaging_destination_name", "state")
            )
            with suppress(JobsError), Orchestrator(settings.backend.get_secret_value()) as orchestrator:
                for view in next(watch(orchestrator, ())):
                    gauge.add_metric([view.name, "ready"], view.counts.ready)
                    gauge.add_metric([view.name, "delayed"], view.counts.delayed)
                    gauge.add_metric([view.name, "dead"], view.counts.dead)
                    if view.counts.in_flight is not None:
                        gauge.add_metric([view.name, "in_flight"], view.counts.in_flight)
            yield gauge

    folder.mkdir()
    registry = CollectorRegistry()
    MultiProcessCollector(registry, path=str(folder))  # type: ignore[no-untyped-call]
    registry.register(QueueCollector())
    try:
        server, thread = start_http_server(settings.metrics_port or 0, registry=registry)
    except OSError as error:
        raise BadUsage(f"--metrics-port {settings.metrics_port}: {error.strerror}; name another") from error
    try:
        yield {_FOLDER: str(folder)}
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
