"""Spans for OpenTelemetry: one for each publish, one for each attempt, joined by the job's headers."""

import threading
from collections.abc import Iterator, Mapping
from contextlib import AbstractContextManager, contextmanager
from typing import Any

from ...domain import Job
from ...domain.errors import AdapterNotInstalled
from ...domain.wording import lacks
from ...ports import Attempt, Observer, Outcome

try:
    from opentelemetry import propagate, trace
    from opentelemetry.trace import Link, Span, SpanKind, StatusCode, TracerProvider
except ModuleNotFoundError as error:
    raise AdapterNotInstalled(lacks("TracingObserver", error.name, "tracing"), name=error.name) from error


class TracingObserver(Observer):
    """Opens a span around each publish and each attempt.

    The context of a publish travels in the headers of its jobs (``traceparent``). An attempt's span belongs
    to that trace, and is current while the handler runs, so that spans of the handler are below it. In a
    batch, each job has a span, and the last one is current.

    Args:
        system: What carries the jobs, such as ``redis``.
        provider: Where the spans go; the global provider by default.
    """

    def __init__(self, system: str, provider: TracerProvider | None = None) -> None:
        self._system = system
        self._tracer = trace.get_tracer("mindtrace.jobs", tracer_provider=provider)
        self._running = threading.local()

    @contextmanager
    def publishing(self, queue: str, count: int) -> Iterator[Mapping[str, str]]:
        """Open a producer's span, and yield its context as headers."""
        attributes = self._attributes(queue, "publish", "send")
        if count > 1:
            attributes["messaging.batch.message_count"] = count
        with self._tracer.start_as_current_span(
            f"publish {queue}", kind=SpanKind.PRODUCER, attributes=attributes
        ) as span:
            headers: dict[str, str] = {}
            propagate.inject(headers)
            try:
                yield headers
            except Exception as error:
                span.set_attribute("error.type", type(error).__name__)
                raise

    def started(self, queue: str, job: Job[Any]) -> None:
        """Open a consumer's span in the trace of the publisher, and make it current."""
        context = propagate.extract(job.headers)
        created = trace.get_current_span(context).get_span_context()
        attributes = self._attributes(queue, "process", "process")
        attributes["messaging.message.id"] = job.id
        attributes["mindtrace_jobs.attempt"] = job.attempt
        span = self._tracer.start_span(
            f"process {queue}",
            context=context,
            kind=SpanKind.CONSUMER,
            links=[Link(created)] if created.is_valid else (),
            attributes=attributes,
        )
        current = trace.use_span(span, end_on_exit=True)
        current.__enter__()
        self._spans()[job.id] = (span, current)

    def ended(self, attempt: Attempt) -> None:
        """Close the span of the job."""
        running = self._spans().pop(attempt.job_id, None)
        if running is None:
            return
        span, current = running
        span.set_attribute("mindtrace_jobs.outcome", attempt.outcome.value)
        if attempt.outcome is not Outcome.DONE and attempt.error is not None:
            span.set_attribute("error.type", attempt.error.partition(":")[0])
            span.set_status(StatusCode.ERROR, attempt.error)
        current.__exit__(None, None, None)

    def _spans(self) -> dict[str, tuple[Span, AbstractContextManager[Span]]]:
        """Return the open spans of this thread, by the ids of their jobs."""
        spans: dict[str, tuple[Span, AbstractContextManager[Span]]] = self._running.__dict__.setdefault(
            "spans", {}
        )
        return spans

    def _attributes(self, queue: str, name: str, kind: str) -> dict[str, str | int]:
        return {
            "messaging.system": self._system,
            "messaging.destination.name": queue,
            "messaging.operation.name": name,
            "messaging.operation.type": kind,
        }
