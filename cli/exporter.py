"""``mindtrace-jobs exporter``: what is in the queues, for how long, and the use of limits, for Prometheus."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import click

from ..application.api.orchestrator import Orchestrator
from ..application.process.signal_queue import STOP, SignalQueue
from ..application.worker.waiting_time import WaitingTimes
from ..domain.errors import InvalidInput, JobsError, QueueNotFound, UnsupportedCapability
from ..ports import QueueCounts
from .app import backend_option, log_options, opened, settings_of
from .errors import Exit
from .limit_metrics import LimitCollector
from .logs import WORKER, configure
from .metrics import DEFAULT_PORT, exposition_for
from .settings import masked

_AWAY = "the queues can't be counted: %s"


@click.command()
@click.argument("names", nargs=-1, metavar="[QUEUE]...")
@click.option(
    "--port",
    type=click.IntRange(1, 65_535),
    default=DEFAULT_PORT,
    show_default=True,
    help="Port to listen on.",
)
@click.option(
    "--host",
    default="127.0.0.1",
    show_default=True,
    help="Address to listen on; 0.0.0.0 for all, as a container needs.",
)
@log_options
@backend_option
def exporter(
    names: tuple[str, ...], port: int, host: str, backend: str | None, app_dir: Path, **options: Any
) -> int:
    """Serve gauges of queues and limits to Prometheus.

    They count jobs by state and places in use, and tell how long the next job has waited. This needs the
    extra metrics.

    Run one for each backend: workers don't serve these numbers, as each would serve the same. On RabbitMQ
    name the queues, as it can't list them.
    """
    settings = settings_of(backend, app_dir, **options)
    configure(settings.log_format, settings.log_level)
    exposition = exposition_for("mindtrace-jobs exporter")
    with opened(settings) as orchestrator, SignalQueue(STOP) as signals:
        exposition.registry.register(QueueCollector(orchestrator, names))
        if orchestrator.backend.capabilities.coordination:
            exposition.registry.register(LimitCollector(orchestrator))
        with exposition.served(host, port):
            url = masked(settings.backend.get_secret_value())
            WORKER.info("metrics of %s on http://%s:%d/metrics", url, host, port)
            _wait_for_any(signals)
    return Exit.OK


def _wait_for_any(signals: SignalQueue) -> None:
    while not signals.wait(3600.0):
        pass


class Figures(NamedTuple):
    """What is told of a queue."""

    counts: QueueCounts
    waiting_s: float | None
    """For how long the job that is next has waited; None where that can't be told."""


class QueueCollector:
    """Counts the jobs of queues by state when it is asked, and tells for how long the next one has waited.

    Args:
        orchestrator: The backend that the queues are on.
        names: The queues; all there are if none is named. One that isn't declared is left out until it is.

    Raises:
        InvalidInput: none is named, and the backend can't list them.
    """

    def __init__(self, orchestrator: Orchestrator, names: Sequence[str]) -> None:
        self._orchestrator = orchestrator
        self._names = tuple(names)
        self._times = WaitingTimes(orchestrator.backend)
        try:
            self._look()
        except UnsupportedCapability as error:
            raise InvalidInput(str(error)) from error
        except JobsError as error:  # the backend may come back
            WORKER.warning(_AWAY, error)

    def collect(self) -> Iterable[Any]:
        """Return the metrics."""
        from prometheus_client.core import GaugeMetricFamily

        up = GaugeMetricFamily("mindtrace_jobs_backend_up", "Whether the backend answered.")
        jobs = GaugeMetricFamily(
            "mindtrace_jobs_queue_jobs", "Jobs by state.", labels=("messaging_destination_name", "state")
        )
        waiting = GaugeMetricFamily(
            "mindtrace_jobs_queue_waiting_seconds",
            "For how long the job that is next has waited: since its publish, or since its delay was over. "
            "0 if none is ready.",
            labels=("messaging_destination_name",),
        )
        try:
            found = self._look()
        except JobsError as error:
            WORKER.warning(_AWAY, error)
            up.add_metric([], 0)
            return [up, jobs, waiting]
        up.add_metric([], 1)
        for name, (counts, waiting_s) in found.items():
            for state, count in _by_state(counts).items():
                jobs.add_metric([name, state], count)
            if waiting_s is not None:
                waiting.add_metric([name], waiting_s)
        return [up, jobs, waiting]

    def _look(self) -> Mapping[str, Figures]:
        names = self._names or [queue.name for queue in self._orchestrator.queues()]
        found = {}
        for name in names:
            try:
                counts = self._orchestrator.counts(name)
                found[name] = Figures(counts, self._times.of(name))
            except QueueNotFound as error:  # the others are there
                WORKER.warning("the jobs of %s can't be counted: %s", name, error)
        return found


def _by_state(counts: QueueCounts) -> Mapping[str, int]:
    """Return the numbers of jobs by state, but for a state in which the backend can't count them."""
    states = {"ready": counts.ready, "delayed": counts.delayed, "dead": counts.dead}
    if counts.in_flight is not None:
        states["in_flight"] = counts.in_flight
    return states
