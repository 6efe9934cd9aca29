"""Metrics for Prometheus: what was sent, what was consumed, and how long it took."""

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from time import perf_counter

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


class PrometheusObserver(Observer):
    """Counts and times the work.

    Args:
        system: What carries the jobs, such as ``redis``.
        registry: Where the metrics are registered; each registry takes them once.
    """

    def __init__(self, system: str, *, registry: CollectorRegistry = REGISTRY) -> None:
        self._system = system
        self._sent = Counter(
            "messaging_client_sent_messages",
            "Jobs handed to the broker, whatever it answered.",
            _LABELS,
            registry=registry,
        )
        self._send_duration = Histogram(
            "messaging_client_operation_duration_seconds",
            "How long a publish took, of one job or a batch.",
            (*_LABELS, "messaging_operation_name", "error_type"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._consumed = Counter(
            "messaging_client_consumed_messages",
            "Jobs that a consumer received.",
            _LABELS,
            registry=registry,
        )
        self._process_duration = Histogram(
            "messaging_process_duration_seconds",
            "How long an attempt took, and how it ended: done, retried, dead or cancelled.",
            (*_LABELS, "outcome"),
            buckets=_SECONDS,
            registry=registry,
        )
        self._slots = Counter(
            "mindtrace_jobs_slots",
            "Slots of schedules that were due: published, missed or failed.",
            (*_LABELS, "outcome"),
            registry=registry,
        )
        self._unique = Counter(
            "mindtrace_jobs_unique",
            "Unique jobs that met another: it stood in their place, or was replaced.",
            (*_LABELS, "outcome"),
            registry=registry,
        )
        self._held_back = Counter(
            "mindtrace_jobs_held_back",
            "Jobs that had to wait with a consumer for a rate or a concurrency limit.",
            _LABELS,
            registry=registry,
        )

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
            self._send_duration.labels(self._system, queue, "publish", failed).observe(seconds)
            self._sent.labels(self._system, queue).inc(count)

    def polled(self, queue: str, received: int) -> None:
        """Count what was received."""
        if received:
            self._consumed.labels(self._system, queue).inc(received)

    def held_back(self, queue: str, count: int) -> None:
        """Count them."""
        self._held_back.labels(self._system, queue).inc(count)

    def stood(self, queue: str, count: int) -> None:
        """Count them."""
        self._unique.labels(self._system, queue, "stood").inc(count)

    def replaced(self, queue: str, count: int) -> None:
        """Count them."""
        self._unique.labels(self._system, queue, "replaced").inc(count)

    def slot(self, queue: str, outcome: SlotOutcome) -> None:
        """Count it by its outcome."""
        self._slots.labels(self._system, queue, outcome.value).inc()

    def ended(self, attempt: Attempt) -> None:
        """Time it by its outcome."""
        labels = (self._system, attempt.queue, attempt.outcome.value)
        self._process_duration.labels(*labels).observe(attempt.duration_s)
