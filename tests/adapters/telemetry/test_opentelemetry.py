"""Spans follow the semantic conventions for messaging, and one trace leads from publisher to handler."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import Any

import pytest
from opentelemetry import trace
from opentelemetry.sdk.trace import ReadableSpan, TracerProvider
from opentelemetry.sdk.trace.export import SimpleSpanProcessor
from opentelemetry.sdk.trace.export.in_memory_span_exporter import InMemorySpanExporter
from opentelemetry.trace import SpanKind, StatusCode

from mindtrace.jobs import BatchConsumer, Dead, Job, JobInput, JobSchema, LocalClient, Orchestrator
from mindtrace.jobs.adapters.telemetry.opentelemetry import TracingObserver
from mindtrace.jobs.ports import Attempt, Outcome

from .conftest import Work

Spans = Callable[[], tuple[ReadableSpan, ...]]


@pytest.fixture
def exporter() -> InMemorySpanExporter:
    return InMemorySpanExporter()


@pytest.fixture
def observer(exporter: InMemorySpanExporter) -> TracingObserver:
    provider = TracerProvider()
    provider.add_span_processor(SimpleSpanProcessor(exporter))
    return TracingObserver("memory", provider)


def test_one_trace_leads_from_the_publish_to_each_attempt(
    work: Work, observer: TracingObserver, exporter: InMemorySpanExporter
) -> None:
    job_id = work(observer)
    publish, failed, done = exporter.get_finished_spans()

    assert [span.name for span in (publish, failed, done)] == ["publish halves"] + ["process halves"] * 2
    assert [span.kind for span in (publish, failed, done)] == [
        SpanKind.PRODUCER,
        SpanKind.CONSUMER,
        SpanKind.CONSUMER,
    ]
    for attempt in (failed, done):
        assert attempt.parent is not None
        assert attempt.parent.span_id == publish.context.span_id
        assert attempt.context.trace_id == publish.context.trace_id
    assert dict(done.attributes or {}) == {
        "messaging.system": "memory",
        "messaging.destination.name": "halves",
        "messaging.operation.name": "process",
        "messaging.operation.type": "process",
        "messaging.message.id": job_id,
        "mindtrace_jobs.attempt": 2,
        "mindtrace_jobs.outcome": "done",
    }
    assert publish.attributes is not None
    assert publish.attributes["messaging.operation.type"] == "send"


def test_an_attempt_that_fails_is_an_error(
    work: Work, observer: TracingObserver, exporter: InMemorySpanExporter
) -> None:
    work(observer)
    failed = exporter.get_finished_spans()[1]

    assert failed.status.status_code is StatusCode.ERROR
    assert failed.attributes is not None
    assert failed.attributes["error.type"] == "ValueError"


def test_nothing_of_an_attempt_stays_behind_on_its_thread(work: Work, observer: TracingObserver) -> None:
    """The next span of the thread belongs to no job."""
    work(observer)
    assert not trace.get_current_span().get_span_context().is_valid


def test_an_attempt_whose_handler_never_ran_has_no_span(
    observer: TracingObserver, exporter: InMemorySpanExporter
) -> None:
    observer.ended(Attempt("halves", "1", 1, Outcome.DEAD, 0.0, "malformed"))
    assert exporter.get_finished_spans() == ()


def test_a_batch_says_how_many_and_an_error_what(
    observer: TracingObserver, exporter: InMemorySpanExporter
) -> None:
    with suppress(ZeroDivisionError), observer.publishing("halves", 3) as headers:
        assert "traceparent" in headers
        raise ZeroDivisionError
    (span,) = exporter.get_finished_spans()
    attributes: Any = span.attributes

    assert attributes["messaging.batch.message_count"] == 3
    assert attributes["error.type"] == "ZeroDivisionError"


def test_each_job_of_a_batch_has_a_span_and_none_stays_behind(
    observer: TracingObserver, exporter: InMemorySpanExporter
) -> None:
    class Halves(BatchConsumer):
        schema = JobSchema(name="halves", input=JobInput)

        def run_batch(self, jobs: Sequence[Job[Any]]) -> list[Any]:
            return [None, Dead("never"), None]

    with LocalClient() as client, Halves() as consumer:
        orchestrator = Orchestrator(client, observers=[observer])
        consumer.connect(orchestrator, batch_size=3)
        orchestrator.publish_batch("halves", [{}, {}, {}])
        consumer.consume(3)

    (publish, *attempts) = exporter.get_finished_spans()
    assert {span.context.trace_id for span in attempts} == {publish.context.trace_id}
    outcomes = [(span.attributes or {})["mindtrace_jobs.outcome"] for span in reversed(attempts)]
    assert outcomes == ["done", "dead", "done"]
    assert not trace.get_current_span().get_span_context().is_valid
