"""Metrics for Prometheus: what was sent, what was consumed, and how long it took."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter
from weakref import WeakKeyDictionary

from ...domain.errors import AdapterNotInstalled
from ...domain.wording import lacks
from ...ports import Attempt, Observer, SlotOutcome

try:
    from prometheus_client import CollectorRegistry, Counter, Histogram
    from prometheus_client.registry import REGISTRY
except ModuleNotFoundError as error:
    raise AdapterNotInstalled(lacks("PrometheusObserver", error.name, "metrics"), name=error.name) from error

_SECONDS = (0.001, 0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 5.0, 10.0, 60.0, 300.0, 1800.0)
_LABELS = ("messaging_system", "messaging_destination_name")


class _Metrics:
    """The metrics of one registry, which takes each name once."""

    def __init__(self, registry: CollectorRegistry) -> None:
        self.sent = Counter(
            "messaging_client_sent_messages",
            "Jobs handed to the broker, whatever it answered.",
            _LABELS,
            registry=registry,
        )
        self.send_duration = Histogram(
            "messaging_client_operation_duration_seconds",
            "How long a publish took, of one job or a batch.",
            (*_LABELS, "messaging_operation_name", "error_type"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.consumed = Counter(
            "messaging_client_consumed_messages",
            "Jobs that a consumer received.",
            _LABELS,
            registry=registry,
        )
        self.process_duration = Histogram(
            "messaging_process_duration_seconds",
            "How long an attempt took, and how it ended: done, retried, dead, cancelled, snoozed or expired.",
            (*_LABELS, "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self.timed_out = Counter(
            "mindtrace_jobs_timed_out",
            "Attempts that failed once their time limit was over.",
            _LABELS,
            registry=registry,
        )
        self.slots = Counter(
            "mindtrace_jobs_slots",
            "Slots of schedules that were due: published, missed or failed.",
            (*_LABELS, "outcome"),
            registry=registry,
        )
        self.unique = Counter(
            "mindtrace_jobs_unique",
            "Unique jobs that met another: it stood in their place, or was replaced.",
            (*_LABELS, "outcome"),
            registry=registry,
        )
        self.held_back = Counter(
            "mindtrace_jobs_held_back",
            "Jobs that had to wait with a consumer for a rate or a concurrency limit.",
            _LABELS,
            registry=registry,
        )


_made: "WeakKeyDictionary[CollectorRegistry, _Metrics]" = WeakKeyDictionary()
_making = threading.Lock()


def _metrics_of(registry: CollectorRegistry) -> _Metrics:
    with _making:
        if (metrics := _made.get(registry)) is None:
            metrics = _made[registry] = _Metrics(registry)
        return metrics


class PrometheusObserver(Observer):
    """Counts and times the work.

    Any number may share a registry; those with the same ``system`` count together.

    Args:
        system: What carries the jobs, such as ``redis``.
        registry: Where the metrics are registered.
    """

    def __init__(self, system: str, *, registry: CollectorRegistry = REGISTRY) -> None:
        self._system = system
        self._metrics = _metrics_of(registry)

    @contextmanager
    def publishing(self, queue: str, count: int) -> Iterator[Mapping[str, str]]:
        """Time it, and count its jobs."""
        began_s = perf_counter()
        failed = ""
        try:
            yield {}
        except Exception as error:
            failed = type(error).__name__
            raise
        finally:
            seconds = perf_counter() - began_s
            self._metrics.send_duration.labels(self._system, queue, "publish", failed).observe(seconds)
            self._metrics.sent.labels(self._system, queue).inc(count)

    def polled(self, queue: str, received: int) -> None:
        """Count what was received."""
        if received:
            self._metrics.consumed.labels(self._system, queue).inc(received)

    def held_back(self, queue: str, count: int) -> None:
        """Count them."""
        self._metrics.held_back.labels(self._system, queue).inc(count)

    def stood(self, queue: str, count: int) -> None:
        """Count them."""
        self._metrics.unique.labels(self._system, queue, "stood").inc(count)

    def replaced(self, queue: str, count: int) -> None:
        """Count them."""
        self._metrics.unique.labels(self._system, queue, "replaced").inc(count)

    def slot(self, queue: str, outcome: SlotOutcome) -> None:
        """Count it by its outcome."""
        self._metrics.slots.labels(self._system, queue, outcome.value).inc()

    def ended(self, attempt: Attempt) -> None:
        """Time it by its outcome, and count it if it timed out."""
        labels = (self._system, attempt.queue, attempt.outcome.value)
        self._metrics.process_duration.labels(*labels).observe(attempt.duration_s)
        if attempt.timed_out:
            self._metrics.timed_out.labels(self._system, attempt.queue).inc()
