"""Jobs that wait for a limit, and that the broker can't take back, as it takes no messages."""

from collections.abc import Sequence
from typing import Any

import pytest

from mindtrace.jobs import Limit, Rate
from mindtrace.jobs.application.limits.consumer_backend import LimitedConsumerBackend
from mindtrace.jobs.ports import Ack, Place, Release, Settled, Settlement, SettleOutcome

from .test_limits import Broker, acks, numbers


class Alarm:
    """A consumer of the broker that carries out acks alone, until the alarm is over; it tells of releases."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._patch = monkeypatch
        self.is_over = False
        self.released: list[Settlement] = []
        """What was to go back, whether the broker did that or not."""

    def begin(self, consumer: LimitedConsumerBackend) -> LimitedConsumerBackend:
        settle = consumer._inner.settle

        def settle_acks(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
            self.released += [each for each in settlements if isinstance(each, Release)]
            done = [each for each in settlements if self.is_over or isinstance(each, Ack)]
            answer = settle(done, take=take)
            outcomes = iter(answer.outcomes)
            return Settled(
                [next(outcomes) if each in done else SettleOutcome.DEFERRED for each in settlements],
                answer.deliveries,
            )

        self._patch.setattr(consumer._inner, "settle", settle_acks)
        return consumer


@pytest.fixture
def alarm(monkeypatch: pytest.MonkeyPatch) -> Alarm:
    return Alarm(monkeypatch)


def elsewhere(broker: Broker, camera: int) -> Place:
    """The place of a camera, with a job of another worker."""
    return Place(f"limits/frames/camera/[{camera}]", 1, "another")


def look(broker: Broker, consumer: LimitedConsumerBackend, times: int) -> list[Any]:
    """Ask for a job several times, half a second apart, and return those that came."""
    came = []
    for _ in range(times):
        came += consumer.receive(1, 0.0)
        broker.clock.advance(0.5)
    return came


def test_what_waits_is_bounded_and_other_keys_are_found(alarm: Alarm) -> None:
    """It took the whole queue, to find a job that may run."""
    broker = Broker(limit=Limit(1, by="camera"))
    broker.publish(*[0] * 50, 1, *[0] * 1000)
    broker.store.take_places([elsewhere(broker, 0)], ttl_s=600.0)
    consumer = alarm.begin(broker.consumer())

    assert numbers(look(broker, consumer, 60)) == [50]
    assert len(alarm.released) > 10
    assert 50 < consumer.held_back <= 64
    assert broker.client.counts("frames").in_flight == consumer.held_back + 1
    broker.client.close()


def test_it_runs_here_once_its_place_is_free(alarm: Alarm) -> None:
    """Those that were to go back waited for the end of the alarm, and nothing ran."""
    broker = Broker(limit=Limit(1, by="camera"))
    broker.publish(*[0] * 50)
    broker.store.take_places([elsewhere(broker, 0)], ttl_s=600.0)
    consumer = alarm.begin(broker.consumer())
    assert look(broker, consumer, 4) == []
    assert alarm.released

    broker.store.leave_places([elsewhere(broker, 0)])
    ran: list[int] = []
    for _ in range(500):
        came = consumer.receive(1, 0.0)
        ran += numbers(came)
        consumer.settle(acks(came))
        broker.clock.advance(0.1)
    assert sorted(ran) == list(range(50))
    broker.client.close()


def test_it_goes_back_once_the_alarm_is_over(alarm: Alarm) -> None:
    broker = Broker(limit=Limit(1, by="camera"))
    broker.publish(*[0] * 50)
    broker.store.take_places([elsewhere(broker, 0)], ttl_s=600.0)
    consumer = alarm.begin(broker.consumer())
    look(broker, consumer, 4)
    kept = consumer.held_back
    assert kept > 32

    alarm.is_over = True
    look(broker, consumer, 4)
    assert consumer.held_back == 32
    consumer.release_ahead()
    assert consumer.held_back == 0
    assert broker.client.counts("frames").in_flight == 0
    broker.client.close()


def test_what_was_to_wait_for_its_turn_elsewhere_has_it_here(alarm: Alarm) -> None:
    """And what goes back afterwards isn't put off for those that are here."""
    broker = Broker(rate=Rate(1, per_s=10, by="camera"))
    broker.publish(*[0] * 8)
    consumer = alarm.begin(broker.consumer())
    ran: list[int] = []
    for _ in range(2000):
        came = consumer.receive(1, 0.0)
        ran += numbers(came)
        consumer.settle(acks(came))
        broker.clock.advance(0.05)
    assert sorted(ran) == list(range(8))
    assert alarm.released
    broker.client.close()
