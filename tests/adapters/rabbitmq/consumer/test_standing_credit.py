"""How many jobs RabbitMQ may keep a consumer of many at once at, and by which words."""

from collections.abc import Callable, Iterator
from typing import Any, cast

import pytest

from mindtrace.jobs.adapters.rabbitmq.consumer import credit as credit_module
from mindtrace.jobs.adapters.rabbitmq.consumer.channel import Arrival, ConsumerChannel
from mindtrace.jobs.adapters.rabbitmq.consumer.credit import Credit
from mindtrace.jobs.adapters.rabbitmq.topology import Names
from mindtrace.jobs.adapters.rabbitmq.transport.broker import Broker
from mindtrace.jobs.adapters.rabbitmq.transport.connection import State
from mindtrace.jobs.adapters.rabbitmq.transport.frames import Properties


class NoHeartbeat:
    def register(self, loop: object) -> None:
        pass

    unregister = register


class NoBroker:
    heartbeat = NoHeartbeat()
    servers = ()
    retry_timeout_s = 5.0


class FakeBroker:
    """A channel with its connection: notes what is said, and sends what credit allows, without end."""

    def __init__(self) -> None:
        self.connection = self
        self.said: list[str] = []
        self.unanswered: list[Callable[[Any], None]] = []
        self.answers = True
        self._consumers: dict[str, Callable[..., None]] = {}
        self._credit: dict[str, int] = {}
        self._sent: dict[int, str] = {}

    def consume(
        self, channel: object, queue: str, tag: str, prefetch: int, on_delivery: Any, callback: Any
    ) -> None:
        self.said.append(f"consume {prefetch}")
        self._consumers[tag], self._credit[tag] = on_delivery, prefetch
        callback(None)

    def cancel(self, channel: object, tag: str, callback: Any) -> None:
        self.said.append("cancel")
        del self._consumers[tag]
        self.unanswered.append(callback)
        if self.answers:
            self.answer()

    def answer(self) -> None:
        self.unanswered.pop(0)(None)

    def acknowledge(self, channel: object, tag: int, *, multiple: bool = False) -> None:
        for settled in [sent for sent in self._sent if sent == tag or (multiple and sent < tag)]:
            self._credit[self._sent.pop(settled)] += 1

    def send(self, most: int = 10**6) -> None:
        """Deliver as many jobs as may come, but no more than ``most``."""
        for tag, on_delivery in list(self._consumers.items()):
            while self._credit[tag] and most:
                self._credit[tag] -= 1
                most -= 1
                number = len(self._sent) + 1 if not self._sent else max(self._sent) + 1
                self._sent[number] = tag
                on_delivery(number, False, Properties("job", None), b"{}")


@pytest.fixture
def broker() -> FakeBroker:
    return FakeBroker()


@pytest.fixture
def channel(broker: FakeBroker) -> Iterator[ConsumerChannel]:
    """An open channel over the fake one."""
    made = ConsumerChannel(cast(Broker, NoBroker()), Names("n", "q"))
    made.state, made._channel = State.OPEN, cast(Any, broker)
    yield made
    made.loop.close()


@pytest.fixture
def credit(channel: ConsumerChannel) -> Credit:
    return Credit(channel, None, 5.0)


def taken(channel: ConsumerChannel, most: int = 10**6) -> list[Arrival]:
    return [channel.arrivals.popleft() for _ in range(min(most, len(channel.arrivals)))]


def standing_at(jobs: int, credit: Credit, broker: FakeBroker, channel: ConsumerChannel) -> list[Arrival]:
    """Have the broker keep the consumer at so many jobs, and return those that came."""
    credit.allow(jobs)
    credit.stand(credit.limit)
    broker.send()
    came = taken(channel)
    assert len(came) == jobs
    return came


def test_what_is_settled_makes_room_without_a_word(
    credit: Credit, broker: FakeBroker, channel: ConsumerChannel
) -> None:
    """One subscription serves however many settlements."""
    held = standing_at(100, credit, broker, channel)
    for settled in (1, 40, 100):
        channel.settle(held[:settled], [], None, enough=0)
        broker.send()
        held = held[settled:] + taken(channel)
        assert len(held) == 100
    assert broker.said == ["consume 100"]


def test_a_consumer_that_wants_more_gets_another_subscription_for_the_difference(
    credit: Credit, broker: FakeBroker, channel: ConsumerChannel
) -> None:
    """The first one stays, so that nothing is under way to a subscription that is cancelled."""
    held = standing_at(100, credit, broker, channel)
    credit.allow(150)
    credit.stand(credit.limit)
    broker.send()
    assert len(held) + len(taken(channel)) == 150
    assert broker.said == ["consume 100", "consume 50"]


def test_less_is_wanted_by_a_cancellation_when_nothing_can_cross_it(
    credit: Credit, broker: FakeBroker, channel: ConsumerChannel
) -> None:
    """As long as jobs may come, nothing is cancelled: RabbitMQ counts what it takes back as a crash."""
    held = standing_at(100, credit, broker, channel)
    channel.settle(held[:60], [], None, enough=0)
    credit.allow(20)
    credit.cut()
    assert broker.said == ["consume 100"]
    broker.send()
    held = held[60:] + taken(channel)
    credit.cut()
    assert broker.said == ["consume 100", "cancel"]
    channel.settle(held[:90], [], None, enough=0)
    broker.send()
    assert len(held[90:]) + len(taken(channel)) == 20


def test_jobs_of_a_cancelled_subscription_count_until_they_are_settled(
    credit: Credit, broker: FakeBroker, channel: ConsumerChannel
) -> None:
    """They make no room by themselves, so that the consumer asks for as many when they are settled."""
    held = standing_at(10, credit, broker, channel)
    channel.request(channel.cancel, 5.0)
    credit.stand(10)
    assert channel.credit == 0
    for settled in (4, 1, 5):
        channel.settle(held[:settled], [], None, enough=0)
        broker.send()
        held = held[settled:] + taken(channel)
        assert len(held) == 10
    assert broker.said == ["consume 10", "cancel", "consume 4", "consume 1", "consume 5"]


def test_however_jobs_are_settled_one_by_one_there_are_few_subscriptions(
    credit: Credit, broker: FakeBroker, channel: ConsumerChannel
) -> None:
    """A few places stay empty meanwhile, and none at the end."""
    held = standing_at(1000, credit, broker, channel)
    channel.request(channel.cancel, 5.0)
    credit.stand(1000)
    for _ in range(1000):
        channel.settle(held[:1], [], None, enough=0)
        broker.send()
        held = held[1:] + taken(channel)
        assert len(held) >= 1000 - 1000 // 16
    assert len(held) == 1000
    assert len(broker.said) < 100


def test_subscriptions_are_cancelled_one_after_the_other(
    credit: Credit, broker: FakeBroker, channel: ConsumerChannel
) -> None:
    """As pika takes the answer to one for the answer to all, and settlements would overtake the others."""
    standing_at(100, credit, broker, channel)
    credit.allow(150)
    credit.stand(credit.limit)
    broker.answers = False
    replies: list[object] = []
    channel.loop.call(lambda: channel.cancel(cast(Any, broker), replies.append))
    assert (broker.said.count("cancel"), replies) == (1, [])
    broker.answer()
    assert (broker.said.count("cancel"), replies) == (2, [])
    broker.answer()
    assert replies == [None]


def test_a_small_difference_is_told_only_once_it_lasts(
    credit: Credit, monkeypatch: pytest.MonkeyPatch
) -> None:
    """How many jobs a consumer wants changes with each measurement of their speed."""
    now = 100.0
    monkeypatch.setattr(credit_module, "monotonic", lambda: now)
    limits = []
    for passed_s, wanted in [
        (0, 100),
        (0, 110),
        (0.5, 90),
        (0.4, 60),
        (0.5, 100),
        (0.9, 60),
        (0.2, 60),
        (0, 76),
        (0, 37),
        (0, 36),
    ]:
        now += passed_s
        credit.allow(wanted)
        limits.append(credit.limit)
    assert limits == [100, 100, 100, 100, 100, 100, 60, 76, 37, 37]
