"""Metrics are named by the semantic conventions for messaging, and count what happened."""

import pytest
from prometheus_client import CollectorRegistry

from mindtrace.jobs.adapters.telemetry.prometheus import PrometheusObserver
from mindtrace.jobs.ports import Attempt, Outcome, SlotOutcome

from .conftest import Work

QUEUE = {"messaging_system": "memory", "messaging_destination_name": "halves"}


def test_jobs_sent_and_consumed_are_counted_and_attempts_timed(work: Work) -> None:
    registry = CollectorRegistry()
    work(PrometheusObserver("memory", registry=registry))

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(name, QUEUE | labels)

    assert value("messaging_client_sent_messages_total") == 1
    assert value("messaging_client_consumed_messages_total") == 2
    assert value("messaging_process_duration_seconds_count", outcome="retried") == 1
    assert value("messaging_process_duration_seconds_count", outcome="done") == 1
    publish = {"messaging_operation_name": "publish", "error_type": ""}
    assert value("messaging_client_operation_duration_seconds_count", **publish) == 1


def test_a_publish_that_fails_is_timed_with_its_error() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver("memory", registry=registry)
    with pytest.raises(ZeroDivisionError), observer.publishing("halves", 1):
        raise ZeroDivisionError

    labels = {"messaging_operation_name": "publish", "error_type": "ZeroDivisionError"}
    name = "messaging_client_operation_duration_seconds_count"
    assert registry.get_sample_value(name, QUEUE | labels) == 1


def test_slots_unique_jobs_and_jobs_that_wait_are_counted_by_queue() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver("memory", registry=registry)
    observer.stood("halves", 2)
    observer.replaced("halves", 3)
    observer.held_back("halves", 4)
    for outcome in SlotOutcome:
        observer.slot("halves", outcome)

    def value(name: str, **labels: str) -> float | None:
        return registry.get_sample_value(f"mindtrace_jobs_{name}_total", QUEUE | labels)

    assert value("unique", outcome="stood") == 2
    assert value("unique", outcome="replaced") == 3
    assert value("held_back") == 4
    assert [value("slots", outcome=each) for each in ("published", "missed", "failed")] == [1, 1, 1]


def test_attempts_that_timed_out_are_counted_beside_their_outcome() -> None:
    registry = CollectorRegistry()
    observer = PrometheusObserver("memory", registry=registry)
    observer.ended(Attempt("halves", "1", 1, Outcome.RETRIED, 5.0, "JobTimedOut: …", timed_out=True))
    observer.ended(Attempt("halves", "1", 2, Outcome.RETRIED, 5.0, "ValueError: no"))

    assert registry.get_sample_value("mindtrace_jobs_timed_out_total", QUEUE) == 1
    name = "messaging_process_duration_seconds_count"
    assert registry.get_sample_value(name, QUEUE | {"outcome": "retried"}) == 2


def test_observers_of_one_registry_count_together() -> None:
    """As of two orchestrators in one program; each backend has its label."""
    registry = CollectorRegistry()
    for system in ("memory", "memory", "redis"):
        PrometheusObserver(system, registry=registry).polled("halves", 1)

    name = "messaging_client_consumed_messages_total"
    assert registry.get_sample_value(name, QUEUE) == 2
    assert registry.get_sample_value(name, QUEUE | {"messaging_system": "redis"}) == 1
