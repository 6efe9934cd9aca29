"""Jobs that RabbitMQ sends ahead: never more than a consumer asked for, and none that it leaves is lost."""

import time
from collections.abc import Iterator, Sequence
from random import Random
from typing import Any

import pytest

from background import Background
from brokers.rabbitmq_server import Address
from conditions import LIMIT_S, eventually
from mindtrace.jobs import ConsumerBackend, RabbitMQClient, RabbitMQConsumerBackend
from mindtrace.jobs.adapters.rabbitmq.consumer import credit
from mindtrace.jobs.adapters.rabbitmq.consumer.channel import ConsumerChannel
from mindtrace.jobs.domain import Queue, QueueKind
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Ack, Delivery, Message, SettleOutcome

from .rabbitmq_jobs import QUEUE, cut, receive

TAKE = 200
"""How many jobs are taken at once: so many that they come by halves."""


@pytest.fixture
def client(rabbitmq_address: Address) -> Iterator[RabbitMQClient]:
    with rabbitmq_address.client(f"t{time.monotonic_ns()}", retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made
        made.delete(QUEUE)


def test_an_idle_consumer_asks_for_one_job_and_leaves_the_rest_to_others(client: RabbitMQClient) -> None:
    """The first of a burst is run at once, without a word to the broker about the rest."""
    burst = [Message(f"job-{number}", b"{}") for number in range(5)]
    with (
        client.open_consumer(QUEUE) as idle,
        client.open_consumer(QUEUE) as other,
        Background() as threads,
    ):
        waiting = threads.submit(idle.receive, 10, LIMIT_S)
        eventually(lambda: idle._channel.credit == 1, "it has asked for one")
        client.publish(QUEUE, burst)
        first = waiting.result()
        rest = receive(other, len(burst) - len(first))

        assert [delivery.id for delivery in (*first, *rest)] == [message.id for message in burst]
        assert len(first) == 1
        assert set(idle.settle([Ack(first[0].receipt)]).outcomes) == {SettleOutcome.OK}
        assert set(other.settle([Ack(each.receipt) for each in rest]).outcomes) == {SettleOutcome.OK}


@pytest.fixture
def wait_for_arrivals(monkeypatch: pytest.MonkeyPatch) -> None:
    """Consumers wait for what the broker is about to send, however long a busy machine takes."""
    for name in ("_GRACE_S", "_LULL_S"):
        monkeypatch.setattr(credit, name, LIMIT_S)


@pytest.fixture
def adaptive(rabbitmq_address: Address, wait_for_arrivals: None) -> Iterator[RabbitMQClient]:
    """A client whose consumers take as many jobs as they ask for."""
    with rabbitmq_address.client(f"t{time.monotonic_ns()}", prefetch=None, retry_timeout_s=LIMIT_S) as made:
        made.declare(Queue(QUEUE))
        yield made
        made.delete(QUEUE)


def filled(client: RabbitMQClient, count: int, *, body: bytes = b"{}") -> list[str]:
    ids = [f"job-{number:04}" for number in range(count)]
    client.publish(QUEUE, [Message(id_, body) for id_ in ids])
    return ids


def first_half(consumer: ConsumerBackend) -> list[Delivery]:
    """Take and settle so many jobs, and return the first half of the next, while the other is on its way."""
    taken = consumer.receive(TAKE, LIMIT_S)
    half = consumer.settle([Ack(one.receipt) for one in taken], take=TAKE).deliveries
    assert (len(taken), len(half)) == (TAKE, TAKE // 2)
    return half


def test_a_large_take_comes_by_halves_in_order_to_the_last(adaptive: RabbitMQClient) -> None:
    """And with the consumer there are never more than it asked for (RCV-1, ORD-1)."""
    ids = filled(adaptive, 8 * TAKE + 17)
    seen: list[str] = []
    sizes = []
    with adaptive.open_consumer(QUEUE) as consumer:
        came = consumer.receive(TAKE, LIMIT_S)
        while came:
            assert len(ids) - len(seen) - adaptive.counts(QUEUE).ready <= TAKE
            seen += [one.id for one in came]
            sizes.append(len(came))
            settled = consumer.settle([Ack(one.receipt) for one in came], take=TAKE)
            assert set(settled.outcomes) == {SettleOutcome.OK}
            came = settled.deliveries or consumer.receive(TAKE, 0.2 if len(seen) >= len(ids) else LIMIT_S)
    assert seen == ids
    assert sizes.count(TAKE // 2) >= 4


def test_what_is_on_its_way_is_released_to_others(adaptive: RabbitMQClient) -> None:
    """At once, in order, before most of the others, and with nothing counted against it (SET-4)."""
    ids = filled(adaptive, 6 * TAKE)
    with adaptive.open_consumer(QUEUE) as busy, adaptive.open_consumer(QUEUE) as other:
        half = first_half(busy)
        eventually(lambda: adaptive.counts(QUEUE).ready == 4 * TAKE, "the other half is on its way")
        busy.release_ahead()
        came = receive(other, 5 * TAKE - len(half))
        order = [one.id for one in came]
        assert sorted(order) == ids[TAKE + len(half) :]
        released = [id_ for id_ in order[:TAKE] if id_ < ids[2 * TAKE]]
        assert released == ids[TAKE + len(half) : 2 * TAKE]
        assert {(one.attempt, one.number, one.crashes) for one in came} == {(1, 1, 0)}
        assert set(busy.settle([Ack(one.receipt) for one in half]).outcomes) == {SettleOutcome.OK}
        assert busy.receive(TAKE, 0.0) == []


class Delayed:
    """Keeps what the broker has sent from a consumer, as a slow network does, but for the first so many."""

    def __init__(self, channel: ConsumerChannel, first: int) -> None:
        self.kept: list[tuple[Any, ...]] = []
        self._first = first
        self._channel = channel
        self._on_arrival = channel._on_arrival
        channel._on_arrival = self._arrive  # type: ignore[method-assign]

    def _arrive(self, *arrival: Any) -> None:
        if self._first:
            self._first -= 1
            self._on_arrival(*arrival)
        else:
            self.kept.append(arrival)

    def arrive(self) -> None:
        """Let it come now."""

        def arrive() -> None:
            self._first = 10**6
            for arrival in self.kept:
                self._on_arrival(*arrival)

        self._channel.loop.call(arrive)


def test_what_comes_while_others_are_settled_is_not_asked_for_twice(
    adaptive: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whichever thread reads it: never more are with the consumer than it asked for (RCV-1, RTY-3)."""
    ids = filled(adaptive, 6 * TAKE)
    with adaptive.open_consumer(QUEUE) as consumer:
        assert isinstance(consumer, RabbitMQConsumerBackend)
        channel = consumer._channel
        delayed = Delayed(channel, TAKE + TAKE // 2)
        half = first_half(consumer)
        assert not channel.arrivals
        settle = channel.settle

        def late(*words: Any, **more: Any) -> bool:
            assert channel.loop.wait(lambda: len(delayed.kept) == TAKE // 2, LIMIT_S)
            delayed.arrive()
            assert channel.loop.wait(lambda: len(channel.arrivals) == TAKE // 2, LIMIT_S)
            return settle(*words, **more)

        monkeypatch.setattr(channel, "settle", late)
        came = consumer.settle([Ack(one.receipt) for one in half], take=TAKE).deliveries
        monkeypatch.setattr(channel, "settle", settle)
        assert len(came) == TAKE // 2
        assert len(ids) - TAKE - len(half) - adaptive.counts(QUEUE).ready <= TAKE
        consumer.release_ahead()
        assert adaptive.counts(QUEUE).ready == len(ids) - TAKE - len(half) - len(came)


def test_a_crash_is_counted_though_the_job_is_released_on_its_way(
    rabbitmq_address: Address, wait_for_arrivals: None
) -> None:
    """By the adapter, where the queue can't count (RTY-3)."""
    with rabbitmq_address.client(f"t{time.monotonic_ns()}", prefetch=None, retry_timeout_s=LIMIT_S) as client:
        client.declare(Queue(QUEUE, QueueKind.PRIORITY))
        ids = filled(client, 6 * TAKE)
        with client.open_consumer(QUEUE) as doomed, client.open_consumer(QUEUE) as busy:
            receive(doomed, TAKE)
            half = first_half(busy)
            cut(doomed._channel)
            eventually(lambda: client.counts(QUEUE).ready == 4 * TAKE, "what the dead had is back")
            next_half = busy.settle([Ack(one.receipt) for one in half], take=TAKE).deliveries
            busy.release_ahead()
            with client.open_consumer(QUEUE) as other:
                came = receive(other, 4 * TAKE)
                crashed = {one.id for one in [*next_half, *came] if one.crashes}
        assert crashed == set(ids[:TAKE])
        client.delete(QUEUE)


def test_closing_releases_what_is_on_its_way(adaptive: RabbitMQClient) -> None:
    """As it does what is in hand (SET-4)."""
    ids = filled(adaptive, 6 * TAKE)
    with adaptive.open_consumer(QUEUE) as busy:
        first_half(busy)
    busy.release_ahead()  # as a consumer's other thread may, which learns then that its lease is lost
    with adaptive.open_consumer(QUEUE) as other:
        came = receive(other, 5 * TAKE)
        assert sorted(one.id for one in came) == ids[TAKE:]
        assert {one.crashes for one in came} == {0}


def test_jobs_that_cannot_be_released_are_given_back_after_one_attempt(
    client: RabbitMQClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    """As under an alarm, where each attempt takes as long as a publish may: none is lost (SET-4)."""
    ids = filled(client, TAKE)
    attempts: list[int] = []

    def refuse(_names: object, messages: Sequence[object]) -> None:
        attempts.append(len(messages))
        raise BackendUnavailable("an alarm")

    with client.open_consumer(QUEUE) as consumer:
        receive(consumer, TAKE)
        monkeypatch.setattr(consumer._settler._publisher, "offer", refuse)
    assert len(attempts) == 1
    assert attempts[0] < TAKE
    with client.open_consumer(QUEUE) as other:
        assert sorted(one.id for one in receive(other, TAKE)) == ids


def test_a_cut_releases_what_is_on_its_way(adaptive: RabbitMQClient) -> None:
    """And what was in hand is lost to the consumer; both count as with a consumer that died (RTY-3)."""
    ids = filled(adaptive, 6 * TAKE)
    with adaptive.open_consumer(QUEUE) as unlucky:
        half = first_half(unlucky)
        eventually(lambda: adaptive.counts(QUEUE).ready == 4 * TAKE, "the other half is on its way")
        cut(unlucky._channel)
        settled = unlucky.settle([Ack(one.receipt) for one in half], take=TAKE)
        assert set(settled.outcomes) == {SettleOutcome.LOST}
        came = settled.deliveries  # some, if it knew of the cut, and asked on a new connection
        came += receive(unlucky, 5 * TAKE - len(came))
        assert {one.id for one in came} == set(ids[TAKE:])
        assert {one.id for one in came if one.crashes} == set(ids[TAKE : 2 * TAKE])


@pytest.mark.parametrize("seed", range(8))
def test_whatever_is_asked_for_next_each_job_is_done_once(adaptive: RabbitMQClient, seed: int) -> None:
    """More, less, nothing, some settled and some not: every job once, and no more of them than asked for."""
    random = Random(seed)
    ids = filled(adaptive, 6 * TAKE)
    held: list[Delivery] = []
    done: list[str] = []
    allowed = 0
    with adaptive.open_consumer(QUEUE) as consumer:
        while len(done) < len(ids):
            take = random.choice([TAKE, TAKE, TAKE, TAKE + 50, TAKE // 2, 3, 0])
            match random.choice(["settle", "settle", "settle", "settle some", "receive", "release ahead"]):
                case "receive" if take:
                    came = consumer.receive(take, 0.05)
                    allowed = len(held) + take
                case "release ahead":
                    consumer.release_ahead()
                    came, allowed = [], len(held)
                case step:
                    keep = random.randrange(len(held) + 1) if step == "settle some" else 0
                    acked, held = held[keep:], held[:keep]
                    settled = consumer.settle([Ack(one.receipt) for one in acked], take=take)
                    assert settled.outcomes == [SettleOutcome.OK] * len(acked)
                    done += [one.id for one in acked]
                    came = settled.deliveries
                    allowed = len(held) + take if take else max(allowed, len(held))
            assert {one.crashes for one in came} <= {0}
            held += came
            assert len(ids) - len(done) - adaptive.counts(QUEUE).ready <= allowed
        assert sorted(done) == ids
