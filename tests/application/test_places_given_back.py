"""Places of jobs that have ended, or went elsewhere, which mustn't keep others waiting."""

import logging
from collections.abc import Sequence
from contextlib import suppress
from typing import Any

import pytest

from mindtrace.jobs import Limit
from mindtrace.jobs.application.limits.consumer_backend import LimitedConsumerBackend
from mindtrace.jobs.domain.errors import AccessDenied, BackendUnavailable, Closed, JobsError
from mindtrace.jobs.ports import Delivery, Place, Release

from .test_limits import LEASE_S, Broker, acks, numbers

SOON_S = 6.0
"""Far sooner than the 1.1 leases after which a place ends by itself."""
ANY_MODE = pytest.mark.parametrize("mode", ["wait", "run"])


def fail(
    monkeypatch: pytest.MonkeyPatch, broker: Broker, request: str, error: JobsError, *, acts: bool = False
) -> None:
    """Have requests for places fail with ``error``, perhaps once they have taken effect."""
    real = getattr(broker.store, request)

    def failing(places: Sequence[Place], **options: Any) -> None:
        if acts:
            real(places, **options)
        raise error

    monkeypatch.setattr(broker.store, request, failing)


def wait_for_jobs(
    broker: Broker, consumer: LimitedConsumerBackend, count: int = 1, *others: LimitedConsumerBackend
) -> float:
    """Return after how many seconds a consumer has got so many jobs, while others look for some, too."""
    waited_s, got = 0.0, list[Delivery]()
    while True:
        got += consumer.receive(count - len(got), 0.0)
        if len(got) >= count or waited_s > 2 * LEASE_S:
            return waited_s
        for other in others:
            other.receive(1, 0.0)
        broker.clock.advance(0.05)
        waited_s += 0.05


@ANY_MODE
def test_places_that_the_store_gave_though_the_request_failed(
    mode: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker = Broker(limit=Limit(4, when_store_is_away=mode))
    broker.publish(*range(20))
    consumer, other = broker.consumer(at_once=4), broker.consumer(at_once=4)
    jobs = consumer.receive(4, 0.0)
    with monkeypatch.context() as away:
        fail(away, broker, "take_places", BackendUnavailable("no reply"), acts=True)
        jobs = consumer.settle(acks(jobs), take=4).deliveries
    broker.clock.advance(SOON_S)
    consumer.settle(acks(jobs))
    consumer.release_ahead()
    assert wait_for_jobs(broker, other, 4, consumer) < SOON_S
    broker.client.close()


def test_a_failed_request_to_give_places_back_is_repeated_while_there_are_no_jobs(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker(limit=Limit(4))
    broker.publish(*range(8))
    consumer, other = broker.consumer(at_once=4), broker.consumer(at_once=4)
    jobs = consumer.receive(4, 0.0)
    broker.clock.advance(2.0)
    assert other.receive(4, 0.0) == []
    with monkeypatch.context() as away:
        fail(away, broker, "leave_places", BackendUnavailable("away"))
        consumer.settle(acks(jobs))
    assert wait_for_jobs(broker, other, 1, consumer) < SOON_S
    broker.client.close()


def test_a_released_job_has_no_second_place() -> None:
    broker = Broker(limit=Limit(4))
    broker.publish(*range(12))
    leaving, consumer = broker.consumer(at_once=2), broker.consumer(at_once=2)
    jobs = consumer.receive(2, 0.0)
    leaving.settle([Release(each.receipt) for each in leaving.receive(2, 0.0)])
    jobs = consumer.settle(acks(jobs), take=2).deliveries
    assert numbers(jobs) == [2, 3], "those that were released"
    consumer.settle(acks(jobs))
    assert wait_for_jobs(broker, broker.consumer(at_once=4), 4) == 0.0
    broker.client.close()


def test_a_released_job_that_nobody_takes_keeps_its_place_for_seconds_only() -> None:
    """Who holds a job that waits for the only place takes no other job."""
    broker = Broker(limit=Limit(1))
    broker.publish(0, 0)
    leaving, consumer = broker.consumer(), broker.consumer()
    (job,) = leaving.receive(1, 0.0)
    assert consumer.receive(1, 0.0) == []
    leaving.settle([Release(job.receipt)])
    leaving.close()
    assert wait_for_jobs(broker, consumer) < SOON_S
    broker.client.close()


def test_an_error_of_the_store_after_a_settlement_loses_no_job_that_was_taken(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    broker = Broker(limit=Limit(100))
    broker.publish(*range(10))
    consumer = broker.consumer(at_once=5)
    jobs = consumer.receive(5, 0.0)
    with monkeypatch.context() as denied:
        fail(denied, broker, "take_places", AccessDenied("no right"))
        assert consumer.settle(acks(jobs), take=5).deliveries == []
    assert consumer.held_back == 5
    assert wait_for_jobs(broker, consumer, 5) < SOON_S
    broker.client.close()


def test_every_outage_is_told_and_its_end(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    broker = Broker(limit=Limit(100, when_store_is_away="run"))
    broker.publish(*range(100))
    consumer = broker.consumer(at_once=5)
    jobs = consumer.receive(5, 0.0)
    with caplog.at_level(logging.WARNING):
        for _ in range(2):
            with monkeypatch.context() as away:
                fail(away, broker, "take_places", BackendUnavailable("away"))
                broker.clock.advance(1.0)  # what it knew of the limit is too old
                jobs = consumer.settle(acks(jobs), take=5).deliveries
            for _ in range(2):
                broker.clock.advance(10.0)
                jobs = consumer.settle(acks(jobs), take=5).deliveries
    told = [record.getMessage() for record in caplog.records]
    assert [" is back" in each for each in told] == [False, True, False, True]
    broker.client.close()


def test_a_held_job_whose_place_ends_before_its_lease_waits_while_the_store_is_away(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Its lease was extended beside a slow job; another consumer may have the place by then (CRD-5)."""
    broker = Broker(limit=Limit(4))
    broker.publish(*range(40))
    first, consumer, other = (broker.consumer(at_once=4) for _ in range(3))
    jobs = first.receive(4, 0.0)
    assert consumer.receive(4, 0.0) == []
    first.settle(acks(jobs))
    broker.clock.advance(0.06)
    slow = consumer.receive(1, 0.0)
    for _ in range(4):
        broker.clock.advance(LEASE_S * 0.3)
        consumer.extend([each.receipt for each in slow])
    assert len(other.receive(4, 0.0)) == 3
    fail(monkeypatch, broker, "take_places", BackendUnavailable("away"))
    assert consumer.settle(acks(slow), take=4).deliveries == []
    broker.client.close()


@pytest.mark.parametrize("settles", [False, True])
def test_a_place_that_was_taken_while_its_consumer_closed_is_left(
    monkeypatch: pytest.MonkeyPatch, settles: bool
) -> None:
    """Another thread may close it at any moment; the job went back, and nobody would leave the place."""
    broker = Broker(limit=Limit(1, by="camera"))
    broker.publish(0, 0)
    consumer, other = broker.consumer(), broker.consumer()
    running = consumer.receive(1, 0.0) if settles else []
    where, name = (consumer._inner, "settle") if settles else (consumer._held, "take")
    real = getattr(where, name)

    def answer_as_it_closes(*args: Any, **options: Any) -> Any:
        answer = real(*args, **options)
        monkeypatch.undo()
        consumer.close()
        return answer

    monkeypatch.setattr(where, name, answer_as_it_closes)
    if settles:
        assert consumer.settle(acks(running), take=1).deliveries == []
    else:
        with suppress(Closed):
            assert consumer.receive(1, 0.0) == []
    assert len(other.receive(1, 0.0)) == 1
    broker.client.close()
