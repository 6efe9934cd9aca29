"""OpenTelemetry spans of a worker, sent by OTLP to where the ``OTEL_…`` variables say."""

import atexit

from ..ports import Observer
from .errors import NotInstalled


def tracing_observer(url: str) -> Observer:
    """The observer of one process, with an exporter behind it.

    Raises:
        NotInstalled: the extra ``tracing`` is missing.
    """
    try:
        from opentelemetry import trace
        from opentelemetry.exporter.otlp.proto.http.trace_exporter import OTLPSpanExporter
        from opentelemetry.sdk.trace import TracerProvider
        from opentelemetry.sdk.trace.export import BatchSpanProcessor
    except ModuleNotFoundError as error:
        raise NotInstalled("--tracing", error.name, "tracing") from error
    from ..adapters.telemetry.opentelemetry import TracingObserver

    provider = TracerProvider()
    provider.add_span_processor(BatchSpanProcessor(OTLPSpanExporter()))
    trace.set_tracer_provider(provider)  # for the handlers' own spans
    atexit.register(provider.shutdown)
    return TracingObserver(url.partition("://")[0], provider)
