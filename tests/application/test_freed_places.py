"""Who learns that a place of a limit is free: the next in line that has a slot for its job, and at once.

The clock stands still when a place gets free: nothing is found by asking again later.
"""

import threading
from typing import NamedTuple
from unittest.mock import Mock

import pytest

from mindtrace.jobs import Limit
from mindtrace.jobs.application.limits.consumer_backend import LimitedConsumerBackend
from mindtrace.jobs.application.limits.next_request import NextRequest
from mindtrace.jobs.errors import BackendUnavailable
from mindtrace.jobs.ports import Delivery, SettleOutcome

from .test_limits import Broker, Frame, acks, gate_of, numbers

TIMEOUT_S = 60.0
LOOK_S = 0.2
"""After how long a consumer looks again behind the jobs that wait; for places it would ask after a second."""


@pytest.fixture
def broker() -> Broker:
    return Broker(limit=Limit(1, by="camera"))


def taken(broker: Broker) -> int:
    """How many places are taken, of all cameras."""
    return sum(len(line._holders) for line in broker.client._namespace.coordination._lines.values())


def publish_one(broker: Broker) -> str:
    """Publish one more job of the first camera, and return its id."""
    return broker.orchestrator.publish("frames", Frame(camera=0, n=99))


class Waits(NamedTuple):
    """Three consumers: two run a job each, and the second holds one that waits for the place of the first."""

    one: LimitedConsumerBackend
    running: list[Delivery]
    busy: LimitedConsumerBackend
    busy_with: list[Delivery]
    idle: LimitedConsumerBackend


def one_waits_with_a_busy_consumer(broker: Broker) -> Waits:
    broker.publish(0, 0, 1)
    one, busy, idle = (broker.consumer() for _ in range(3))
    running = one.receive(1, 0.0)
    assert busy.receive(1, 0.0) == []
    broker.clock.advance(LOOK_S)
    busy_with = busy.receive(1, 0.0)
    assert numbers(busy_with) == [2]
    return Waits(one, running, busy, busy_with, idle)


def test_a_place_goes_to_the_next_consumer_at_once(broker: Broker) -> None:
    broker.publish(0, 0, 0)
    one, other = broker.consumer(), broker.consumer()
    running = one.receive(1, 0.0)
    assert other.receive(1, 0.0) == []
    one.settle(acks(running))
    assert numbers(other.receive(1, 0.0)) == [1]
    broker.client.close()


def test_the_wait_of_the_next_consumer_ends_when_a_place_gets_free(broker: Broker) -> None:
    broker.publish(0, 0)
    one, other = broker.consumer(), broker.consumer()
    running = one.receive(1, 0.0)
    assert other.receive(1, 0.0) == []
    came: list[int] = []
    thread = threading.Thread(target=lambda: came.extend(numbers(other.receive(1, TIMEOUT_S))))
    thread.start()
    one.settle(acks(running))
    thread.join(TIMEOUT_S)
    assert came == [1]
    broker.client.close()


def test_a_place_that_gets_free_as_a_request_begins_is_asked_for_by_it(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Between the look at whether it is time to ask for all, and that at what was freed."""
    broker.publish(0, 0)
    one, other = broker.consumer(), broker.consumer()
    running = one.receive(1, 0.0)
    assert other.receive(1, 0.0) == []

    def is_due(request: NextRequest) -> bool:
        answer = was_due(request)
        if settlements := acks(running):
            running.clear()
            one.settle(settlements)
        return answer

    was_due = NextRequest.is_due.fget  # type: ignore[attr-defined]
    monkeypatch.setattr(NextRequest, "is_due", property(is_due))
    assert numbers(other.receive(1, 0.0)) == [1]
    assert not running, "the place got free in between"
    broker.client.close()


def test_a_consumer_without_a_free_slot_passes_its_position_on(broker: Broker) -> None:
    """Both jobs that wait are of the first camera; the one in front is with a consumer that is busy."""
    one, running, busy, busy_with, idle = one_waits_with_a_busy_consumer(broker)
    last = publish_one(broker)
    assert idle.receive(1, 0.0) == []
    one.settle(acks(running))
    got = idle.receive(1, 0.0)
    assert [job.id for job in got] == [last]
    busy.settle(acks(busy_with))
    assert busy.receive(1, 0.0) == []
    idle.settle(acks(got))
    assert numbers(busy.receive(1, 0.0)) == [1], "it stands in line again once a slot is free"
    broker.client.close()


def test_a_consumer_has_no_more_places_than_free_slots(broker: Broker) -> None:
    """Of three jobs that could start, it has a slot for one: the places of the others are free."""
    broker.publish(0, 0, 1, 2, 3)
    one, other = broker.consumer(), broker.consumer()
    one.receive(1, 0.0)
    assert other.receive(1, 0.0) == []
    broker.clock.advance(LOOK_S)
    assert numbers(other.receive(1, 0.0)) == [2]
    assert taken(broker) == 2
    broker.client.close()


def test_a_job_of_a_busy_consumer_goes_to_one_with_a_free_slot(broker: Broker) -> None:
    """Nobody else has a job of that camera, so that nobody else would learn that its place is free."""
    one, running, _, _, idle = one_waits_with_a_busy_consumer(broker)
    assert idle.receive(1, 0.0) == []
    one.settle(acks(running))
    assert numbers(idle.receive(1, 0.0)) == [1]
    broker.client.close()


def test_of_what_a_consumer_looked_at_others_get_what_it_has_no_slot_for(broker: Broker) -> None:
    """But for one job, which it starts next."""
    broker.publish(0, 0, 1, 2, 3)
    one, other, idle = (broker.consumer() for _ in range(3))
    one.receive(1, 0.0)
    assert other.receive(1, 0.0) == []
    broker.clock.advance(LOOK_S)
    started = other.receive(1, 0.0)
    assert numbers(started) == [2]
    assert numbers(idle.receive(1, 0.0)) == [4]
    assert idle.receive(1, 0.0) == []
    other.settle(acks(started))
    assert numbers(other.receive(1, 0.0)) == [3]
    broker.client.close()


def test_no_job_is_lost_when_the_broker_is_away_as_one_goes_back(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It goes back with the next settlement."""
    one, running, busy, busy_with, idle = one_waits_with_a_busy_consumer(broker)
    with monkeypatch.context() as patch:
        patch.setattr(busy._inner, "settle", Mock(side_effect=BackendUnavailable("away")))
        assert one.settle(acks(running)).outcomes == [SettleOutcome.OK]
    assert idle.receive(1, 0.0) == []
    assert busy.settle(acks(busy_with)).outcomes == [SettleOutcome.OK]
    assert numbers(idle.receive(1, 0.0)) == [1]
    broker.client.close()


def test_jobs_of_a_consumer_that_passed_a_position_on_keep_their_order(broker: Broker) -> None:
    broker.publish(0, 0, 0, 1)
    one, busy = broker.consumer(), broker.consumer(at_once=2)
    running = one.receive(1, 0.0)
    assert busy.receive(2, 0.0) == []
    broker.clock.advance(LOOK_S)
    others = busy.receive(2, 0.0)
    assert numbers(others) == [3]
    broker.publish(1)  # no room for its place
    one.settle(acks(running))
    order: list[int] = []
    for _ in range(4):
        came = busy.receive(2, 0.0)
        order += numbers(came)
        busy.settle(acks([*came, *others]))
        others = []
    assert order[:2] == [1, 2]
    broker.client.close()


def test_reports_that_were_lost_have_the_consumer_ask_for_all(broker: Broker) -> None:
    broker.publish(0, 0)
    one, other = broker.consumer(), broker.consumer()
    running = one.receive(1, 0.0)
    assert other.receive(1, 0.0) == []
    broker.client._namespace.coordination._watches.clear()
    one.settle(acks(running))
    assert other.receive(1, 0.0) == []
    gate_of(other)._hear_of_place(None)
    assert numbers(other.receive(1, 0.0)) == [1]
    broker.client.close()


def test_a_consumer_that_is_closed_is_told_no_more(broker: Broker) -> None:
    broker.publish(0, 0)
    one, other = broker.consumer(), broker.consumer()
    one.receive(1, 0.0)
    other.receive(1, 0.0)
    one.close()
    other.close()
    assert not broker.client._namespace.coordination._watches
    broker.client.close()
