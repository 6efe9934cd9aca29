"""A place that passes from a job that ends to one that waits in the same consumer: one request, in turn."""

import threading
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import pytest

from conditions import eventually
from mindtrace.jobs import Limit
from mindtrace.jobs.application.limits.consumer_backend import LimitedConsumerBackend
from mindtrace.jobs.domain.errors import BackendUnavailable, Closed
from mindtrace.jobs.ports import Place, SettleOutcome

from .test_freed_places import TIMEOUT_S, taken
from .test_limits import Broker, acks, gate_of, numbers
from .test_passed_on_places import Requests
from .test_places_given_back import SOON_S


@pytest.fixture
def broker() -> Any:
    made = Broker(limit=Limit(1, by="camera"))
    yield made
    made.client.close()


def test_the_next_job_gets_the_place_of_one_that_ends_by_one_request(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish(*[0] * 5)
    consumer = broker.consumer(at_once=5)
    jobs = consumer.receive(5, 0.0)
    requests, order = Requests(broker, monkeypatch), numbers(jobs)
    for _ in range(4):
        jobs = consumer.settle(acks(jobs), take=5).deliveries
        order += numbers(jobs)
    assert order == [0, 1, 2, 3, 4]
    assert requests.made == ["take_places"] * 4


def test_a_thread_that_waits_for_a_job_gets_the_next_one_by_one_request(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish(0, 0)
    consumer = broker.consumer(at_once=2)
    running = consumer.receive(2, 0.0)
    requests, came = Requests(broker, monkeypatch), list[int]()
    thread = threading.Thread(target=lambda: came.extend(numbers(consumer.receive(1, TIMEOUT_S))))
    thread.start()
    eventually(lambda: consumer._wait.wanted == 1, "a thread in receive")
    consumer.settle(acks(running))
    thread.join(TIMEOUT_S)
    assert came == [1]
    assert requests.made == ["take_places"]


def test_a_job_that_waits_longer_elsewhere_gets_the_place(broker: Broker) -> None:
    broker.publish(0, 0, 0)
    one, other = broker.consumer(at_once=2), broker.consumer()
    running = one.receive(1, 0.0)
    assert other.receive(1, 0.0) == []
    assert one.receive(1, 0.0) == []
    assert one.settle(acks(running), take=1).deliveries == []
    assert numbers(other.receive(1, 0.0)) == [1]


def test_no_place_is_taken_for_a_job_that_has_no_slot(broker: Broker) -> None:
    """Nobody is in receive, as in a consumer that stops."""
    broker.publish(0, 0)
    consumer = broker.consumer(at_once=2)
    consumer.settle(acks(consumer.receive(2, 0.0)))
    assert taken(broker) == 0
    assert numbers(consumer.receive(2, 0.0)) == [1]


def test_a_place_that_could_not_be_exchanged_is_given_back_after_the_outage(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish(0, 0)
    consumer = broker.consumer(at_once=2)
    running = consumer.receive(2, 0.0)

    def fail(*_places: object, **_settings: object) -> None:
        raise BackendUnavailable("away")

    with monkeypatch.context() as away:
        for name in ("take_places", "leave_places"):
            away.setattr(broker.store, name, fail)
        settled = consumer.settle(acks(running), take=2)
        assert [outcome.name for outcome in settled.outcomes] == ["OK"]
        assert settled.deliveries == []
    assert consumer.receive(2, 0.0) == [], "the store isn't asked for a second"
    broker.clock.advance(1.0)
    assert numbers(consumer.receive(2, 0.0)) == [1]
    assert taken(broker) == 1


class WatchedLock:
    """A lock that says when a thread is about to wait for it."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.waits = threading.Event()

    def acquire(self, blocking: bool = True) -> bool:
        if self._lock.acquire(blocking=False):
            return True
        self.waits.set()
        return blocking and self._lock.acquire()

    def release(self) -> None:
        self._lock.release()

    def __enter__(self) -> None:
        self.acquire()

    def __exit__(self, *_: object) -> None:
        self.release()


@pytest.mark.parametrize("let_go", [LimitedConsumerBackend.release_ahead, LimitedConsumerBackend.close])
def test_a_place_that_comes_while_its_job_goes_back_ends_as_soon_as_any_other(
    let_go: Callable[[LimitedConsumerBackend], None],
    broker: Broker,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The store may get the request that shortens it before the one that takes it (ADR 72)."""
    broker.publish(0, 0)
    consumer = broker.consumer(at_once=2)
    running = consumer.receive(2, 0.0)
    gate_of(consumer)._asking = lock = WatchedLock()  # type: ignore[assignment]
    thread = threading.Thread(target=let_go, args=(consumer,))
    take_places = broker.store.take_places

    def take_late(*args: Any, **options: Any) -> list[bool]:
        if options.get("leaving") and not thread.ident:
            thread.start()
            eventually(lambda: lock.waits.is_set() or not thread.is_alive(), "the job went, or has to wait")
        return take_places(*args, **options)

    monkeypatch.setattr(broker.store, "take_places", take_late)
    consumer._wait.wanted = 2  # as if a thread waited for jobs; none takes the one that gets its place
    with suppress(Closed):
        consumer.settle(acks(running))
    thread.join(TIMEOUT_S)
    broker.clock.advance(SOON_S)
    place = Place(next(iter(broker.client._namespace.coordination._lines)), 1, "another")
    assert broker.store.take_places([place], ttl_s=1.0) == [True]


def test_a_job_that_starts_while_the_held_ones_are_to_go_back_is_not_released(
    broker: Broker,
) -> None:
    broker.publish(0, 0)
    consumer = broker.consumer(at_once=2)
    consumer.settle(acks(consumer.receive(2, 0.0)))
    gate_of(consumer)._asking = lock = WatchedLock()  # type: ignore[assignment]
    thread = threading.Thread(target=consumer.release_ahead)
    with lock:
        thread.start()
        eventually(lock.waits.is_set, "the release waits for a request for places")
        jobs = consumer._pass_on(consumer._held.all())
    thread.join(TIMEOUT_S)
    assert numbers(jobs) == [1]
    assert consumer.settle(acks(jobs)).outcomes == [SettleOutcome.OK]
