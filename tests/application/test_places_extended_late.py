"""A request that extends places, and reaches the store after some of them were given back."""

import threading
from collections.abc import Callable, Sequence
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import Limit
from mindtrace.jobs.ports import Place

from .test_freed_places import publish_one, taken
from .test_limits import Broker, acks, numbers


class LateRequest:
    """Holds up the next request of another thread to take places until it is let go."""

    def __init__(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.has_come, self._may_go = threading.Event(), threading.Event()
        self._take = broker.store.take_places
        monkeypatch.setattr(broker.store, "take_places", self._held_up)

    def _held_up(self, places: Sequence[Place], **options: Any) -> list[bool]:
        if threading.current_thread() is not threading.main_thread() and not self.has_come.is_set():
            self.has_come.set()
            assert self._may_go.wait(LIMIT_S)
        return self._take(places, **options)

    def around(self, request: Callable[[], object], act: Callable[[], object]) -> None:
        """Act while ``request``, on another thread, is held up; then let it go, and wait for its end."""
        thread = threading.Thread(target=request)
        thread.start()
        assert self.has_come.wait(LIMIT_S)
        act()
        self._may_go.set()
        thread.join(LIMIT_S)


@pytest.fixture
def broker() -> Any:
    made = Broker(limit=Limit(1, by="camera"))
    yield made
    made.client.close()


def test_a_place_that_is_given_back_meanwhile_is_not_taken_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish(0)
    consumer = broker.consumer()
    running = consumer.receive(1, 0.0)
    late = LateRequest(broker, monkeypatch)
    late.around(
        lambda: consumer.extend([job.receipt for job in running]), lambda: consumer.settle(acks(running))
    )
    assert taken(broker) == 0


def test_a_job_that_has_ended_meanwhile_does_not_stand_in_line(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish(0, 0, 0)
    one, other = broker.consumer(), broker.consumer()
    running, after = one.receive(1, 0.0), list[Any]()
    late = LateRequest(broker, monkeypatch)

    def end_and_begin_the_next() -> None:
        one.settle(acks(running))
        after.extend(other.receive(1, 0.0))

    late.around(lambda: one.extend([job.receipt for job in running]), end_and_begin_the_next)
    assert numbers(after) == [1]
    other.settle(acks(after))
    assert numbers(other.receive(1, 0.0)) == [2]


def test_a_job_that_is_cancelled_while_its_place_is_asked_for_has_none(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    consumer, id_ = broker.consumer(), publish_one(broker)
    late = LateRequest(broker, monkeypatch)

    def cancel() -> None:
        broker.orchestrator.cancel("frames", id_)
        consumer.extend([])
        assert consumer.held_back == 0

    late.around(lambda: consumer.receive(1, 0.0), cancel)
    assert taken(broker) == 0
