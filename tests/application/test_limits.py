"""Limits of rate and concurrency, one consumer backend at a time, on a clock that a test moves."""

import threading
from collections import Counter
from collections.abc import Iterator, Sequence
from itertools import pairwise
from logging import getLogger
from typing import Any

import pytest
from pydantic import create_model

from mindtrace.jobs import JobInput, JobSchema, Limit, LocalClient, Orchestrator, Rate
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.limits.consumer_backend import LimitedConsumerBackend
from mindtrace.jobs.application.limits.in_force import InForce
from mindtrace.jobs.application.limits.keyed_turns import KeyedTurns, turns_of
from mindtrace.jobs.application.limits.keys import Keys, prefix_of
from mindtrace.jobs.application.limits.place_gate import PlaceGate
from mindtrace.jobs.application.limits.places import Places
from mindtrace.jobs.application.limits.turns import Turns
from mindtrace.jobs.errors import BackendUnavailable, Closed
from mindtrace.jobs.ports import (
    Ack,
    CoordinationStore,
    Delivery,
    Message,
    Place,
    Release,
    Reservation,
    Retry,
    SettleOutcome,
)
from mindtrace.jobs.ports.coordination import MAX_KEY_CHARS

LEASE_S = 30.0


class Frame(JobInput):
    camera: int = 0
    n: int = 0


class Broker:
    """A queue of frames in memory, and consumers with limits on its clock."""

    def __init__(self, *, limit: Limit | None = None, rate: Rate | None = None) -> None:
        self.clock = ManualClock()
        self.schema = JobSchema("frames", Frame, concurrency_limit=limit, rate=rate)
        self.client = LocalClient(clock=self.clock)
        self.orchestrator = Orchestrator(self.client)
        self.orchestrator.register(self.schema)
        self.store: CoordinationStore = self.client.coordination

    def publish(self, *cameras: int) -> None:
        frames = [Frame(camera=camera, n=n) for n, camera in enumerate(cameras)]
        self.orchestrator.publish_batch("frames", frames)

    def consumer(self, at_once: int = 1) -> LimitedConsumerBackend:
        schema, clock = self.schema, self.clock.now
        places = turns = None
        if schema.concurrency_limit is not None:
            places = Places(
                self.store,
                "frames",
                schema,
                InForce(schema.name, schema.concurrency_limit),
                lease_s=LEASE_S,
                max_body_bytes=10_000,
                clock=clock,
            )
        if schema.rate is not None:
            turns = turns_of(
                self.store,
                "frames",
                schema,
                InForce(schema.name, schema.rate),
                slots=at_once,
                lease_s=LEASE_S,
                max_body_bytes=10_000,
                clock=clock,
            )
        inner = self.client.open_consumer("frames", lease_s=LEASE_S)
        return LimitedConsumerBackend(inner, places, turns, at_once, getLogger("limits"), clock)


@pytest.fixture
def broker(request: pytest.FixtureRequest) -> Iterator[Broker]:
    made = Broker(**request.param)
    yield made
    made.client.close()


def limited(*args: Any, **settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("broker", [{"limit": Limit(*args, **settings)}], indirect=True)


def rated(*args: Any, **settings: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("broker", [{"rate": Rate(*args, **settings)}], indirect=True)


def numbers(deliveries: Sequence[Delivery]) -> list[int]:
    return [Frame.model_validate_json(one.body.partition(b'"payload":')[2][:-1]).n for one in deliveries]


def places_of(consumer: LimitedConsumerBackend) -> list[Place]:
    """Return the places of the jobs that it has passed on."""
    return list(gate_of(consumer).passed_on._by_receipt.values())


def gate_of(consumer: LimitedConsumerBackend) -> PlaceGate:
    assert isinstance(consumer._places, PlaceGate)
    return consumer._places


def acks(deliveries: Sequence[Delivery]) -> list[Ack]:
    return [Ack(one.receipt) for one in deliveries]


# -- places ---------------------------------------------------------------------------------------


@limited(1, by="camera")
def test_a_long_backlog_of_one_key_hides_no_other_for_long(broker: Broker) -> None:
    """Behind 500 jobs that must wait, one that may run starts within seconds."""
    broker.publish(*[0] * 500, 1)
    consumer = broker.consumer(at_once=2)
    assert len(consumer.receive(1, 0.0)) == 1
    waited_s = 0.0
    while not (came := consumer.receive(1, 0.0)):
        broker.clock.advance(0.05)
        waited_s += 0.05
        assert waited_s < 10.0
    assert b'"camera":1' in came[0].body


@limited(2, by="camera")
def test_no_more_jobs_of_a_key_are_handed_out_than_may_run(broker: Broker) -> None:
    broker.publish(0, 0, 0, 1)
    one, other = broker.consumer(), broker.consumer()

    first = one.receive(4, 0.0)
    assert numbers(first) == [0, 1, 3]
    assert other.receive(4, 0.0) == []

    settled = one.settle(acks(first[:1]), take=4)
    assert numbers(settled.deliveries) == [2]


@limited(1)
def test_without_fields_the_whole_queue_is_limited_and_one_waiting_job_is_enough(broker: Broker) -> None:
    broker.publish(0, 1, 2, 3)
    one, other = broker.consumer(), broker.consumer()

    assert numbers(one.receive(1, 0.0)) == [0]
    for _ in range(5):
        assert other.receive(1, 0.0) == []
        broker.clock.advance(0.2)
    assert other.held_back == 1
    assert broker.client.counts("frames").ready == 2


@limited(1, by="camera")
def test_jobs_of_a_key_start_in_their_order_whoever_runs_them(broker: Broker) -> None:
    broker.publish(*[0, 1] * 10)
    consumers = [broker.consumer() for _ in range(3)]
    started: list[int] = []
    for _ in range(200):
        for consumer in consumers:
            batch = consumer.receive(1, 0.0)
            started += numbers(batch)
            consumer.settle(acks(batch))
        broker.clock.advance(0.05)

    assert started[0] == 0
    for parity in (0, 1):
        assert [n for n in started if n % 2 == parity] == list(range(parity, 20, 2))


@limited(1, by="camera")
def test_a_job_behind_others_that_wait_is_found(broker: Broker) -> None:
    """Also behind more of one camera than a consumer holds; what is too much goes back for later."""
    broker.publish(*[0] * 400, 1)
    holder, seeker = broker.consumer(), broker.consumer()
    (running,) = holder.receive(1, 0.0)

    found: list[int] = []
    most = 0
    for _ in range(100):
        found += numbers(seeker.receive(1, 0.0))
        most = max(most, seeker.held_back)
        if found:
            break
        broker.clock.advance(1.0)
        holder.extend([running.receipt])

    assert found == [400]
    assert most <= 32 + 8
    assert broker.client.counts("frames").delayed > 0


@limited(1)
def test_the_place_of_a_consumer_that_died_comes_back_with_the_lease(broker: Broker) -> None:
    broker.publish(0, 1)
    dead, other = broker.consumer(), broker.consumer()
    assert numbers(dead.receive(1, 0.0)) == [0]

    assert other.receive(1, 0.0) == []
    for _ in range(6):  # the other stays alive meanwhile
        broker.clock.advance(LEASE_S / 6)
        assert other.receive(1, 0.0) == []
    broker.clock.advance(LEASE_S / 6)
    assert numbers(other.receive(1, 0.0)) == [1]


@limited(1)
def test_a_consumer_that_lost_its_job_cannot_give_back_the_place_of_the_next(broker: Broker) -> None:
    broker.publish(0)
    stale, fresh, third = (broker.consumer() for _ in range(3))
    (lost,) = stale.receive(1, 0.0)
    broker.clock.advance(2 * LEASE_S)
    (taken,) = fresh.receive(1, 0.0)
    assert taken.crashes == 1

    assert stale.settle([Ack(lost.receipt)]).outcomes == [SettleOutcome.LOST]
    broker.publish(1)
    assert third.receive(1, 0.0) == []
    assert fresh.settle([Ack(taken.receipt)]).outcomes == [SettleOutcome.OK]
    broker.clock.advance(0.1)
    assert len(third.receive(1, 0.0)) == 1


@limited(1)
def test_a_job_that_is_released_keeps_its_place_for_who_receives_it_next(broker: Broker) -> None:
    broker.publish(0, 1)
    one, other, third = (broker.consumer() for _ in range(3))
    (job,) = one.receive(1, 0.0)
    assert third.receive(1, 0.0) == []  # it holds the next one

    one.settle([Release(job.receipt)])
    broker.clock.advance(0.1)
    assert third.receive(1, 0.0) == []
    (again,) = other.receive(1, 0.0)
    assert (again.id, again.attempt, again.crashes) == (job.id, 1, 0)


@limited(2)
def test_the_places_of_a_consumer_that_was_closed_end_with_its_leases(broker: Broker) -> None:
    """Also while its handlers still run, and its leases are still to be extended."""
    broker.publish(0, 1, 2)
    consumer = broker.consumer(at_once=3)
    jobs = consumer.receive(2, 0.0)
    (key,) = {place.key for place in places_of(consumer)}
    assert consumer.receive(1, 0.0) == []
    consumer.close()

    for _ in range(6):
        broker.clock.advance(LEASE_S / 6)
        with pytest.raises(Closed):
            consumer.extend([job.receipt for job in jobs])
    others = [Place(key, 2, f"another-{number}") for number in range(2)]
    assert broker.store.take_places(others, ttl_s=1000) == [True, True]


@limited(1)
def test_a_job_that_is_released_by_a_close_has_its_place_with_who_receives_it_next(broker: Broker) -> None:
    broker.publish(0, 1)
    consumer, other = broker.consumer(), broker.consumer()
    consumer.receive(1, 0.0)
    consumer.close()
    assert numbers(other.receive(2, 0.0)) == [0]
    consumer.close()
    assert other.receive(1, 0.0) == [], "a second close changes nothing"


@limited(1)
def test_a_job_that_failed_gives_its_place_to_the_next(broker: Broker) -> None:
    broker.publish(0, 1)
    consumer = broker.consumer()
    (job,) = consumer.receive(1, 0.0)

    settled = consumer.settle([Retry(job.receipt, 0.0, "")], take=1)
    assert numbers(settled.deliveries) == [1]


@limited(1, by="camera")
def test_a_body_that_is_no_job_needs_no_place(broker: Broker) -> None:
    broker.client.publish("frames", [Message("torn", b"no job"), Message("odd", b"{}")])

    assert len(broker.consumer().receive(2, 0.0)) == 2


@limited(1)
def test_leases_and_places_are_extended_together_also_of_jobs_that_wait(broker: Broker) -> None:
    broker.publish(0, 1)
    consumer, other = broker.consumer(at_once=2), broker.consumer()
    (job,) = consumer.receive(2, 0.0)
    assert consumer.receive(2, 0.0) == []
    assert consumer.held_back == 1
    for _ in range(20):
        broker.clock.advance(LEASE_S / 3)
        assert consumer.extend([job.receipt]) == [SettleOutcome.OK]
        assert other.receive(1, 0.0) == []

    assert numbers(consumer.settle(acks([job]), take=1).deliveries) == [1]


@limited(1)
def test_a_job_that_lost_its_place_is_lost(broker: Broker) -> None:
    """Its lease isn't extended either, so both end."""
    broker.publish(0)
    consumer = broker.consumer()
    (job,) = consumer.receive(1, 0.0)
    (place,) = places_of(consumer)
    broker.store.leave_places([place])
    broker.store.take_places([Place(place.key, 1, "another")], ttl_s=1000)

    assert consumer.extend([job.receipt]) == [SettleOutcome.LOST]


@limited(2)
def test_a_job_that_is_cancelled_as_its_consumer_releases_it_leaves_its_place(broker: Broker) -> None:
    """Nobody runs it again, who would give the place back; another job that was released keeps its own."""
    broker.publish(0, 1, 2)
    consumer = broker.consumer()
    jobs = consumer.receive(2, 0.0)
    places = places_of(consumer)
    broker.orchestrator.cancel("frames", jobs[0].id)
    consumer.settle([Release(job.receipt) for job in jobs])
    others = [Place(places[0].key, 2, f"another-{number}") for number in range(2)]
    assert broker.store.take_places(others, ttl_s=1000) == [True, False]


@limited(1)
def test_a_place_that_this_consumer_gives_back_ends_its_wait(broker: Broker) -> None:
    """The clock stands still: no time passes after which it would ask again."""
    broker.publish(0, 1)
    consumer = broker.consumer(at_once=2)
    first = consumer.receive(1, 0.0)
    assert consumer.receive(1, 0.0) == []
    received: list[list[Delivery]] = []
    waiting = threading.Thread(target=lambda: received.append(consumer.receive(1, 60.0)))
    waiting.start()
    consumer.settle(acks(first))
    waiting.join(60)

    assert list(map(numbers, received)) == [[1]]


@limited(1)
def test_an_interrupt_ends_the_wait_for_a_place(broker: Broker) -> None:
    broker.publish(0, 1)
    broker.consumer().receive(1, 0.0)
    consumer = broker.consumer()
    waiting = threading.Thread(target=consumer.receive, args=(1, 60.0))
    waiting.start()
    consumer.interrupt()
    waiting.join(60)
    assert not waiting.is_alive()


@limited(1)
def test_jobs_that_wait_are_released_without_an_attempt(broker: Broker) -> None:
    broker.publish(0, 1)
    broker.consumer().receive(1, 0.0)
    consumer = broker.consumer()
    assert consumer.receive(1, 0.0) == []
    assert broker.client.counts("frames").in_flight == 2

    consumer.release_ahead()
    assert broker.client.counts("frames").ready == 1
    assert consumer.held_back == 0
    (delivery,) = broker.client.open_consumer("frames").receive(1, 0.0)
    assert (delivery.attempt, delivery.crashes) == (1, 0)


# -- turns ----------------------------------------------------------------------------------------


@rated(10, per_s=10)
def test_jobs_start_one_interval_apart_over_all_consumers(broker: Broker) -> None:
    broker.publish(*range(10))
    consumers = [broker.consumer() for _ in range(3)]
    began = broker.clock.now()
    starts: list[float] = []
    for _ in range(80):
        for consumer in consumers:
            if batch := consumer.receive(5, 0.0):
                starts += [broker.clock.now() - began] * len(batch)
                consumer.settle(acks(batch))
        broker.clock.advance(0.125)

    assert starts == list(range(10))


@rated(10, per_s=10, burst=3)
def test_a_burst_comes_at_once_and_an_idle_consumer_uses_no_turns(broker: Broker) -> None:
    consumer = broker.consumer()
    for _ in range(100):
        assert consumer.receive(5, 0.0) == []
        broker.clock.advance(1.0)
    broker.publish(*range(10))

    assert len(consumer.receive(10, 0.0)) == 3
    assert consumer.receive(10, 0.0) == []
    broker.clock.advance(1.0)
    assert len(consumer.receive(10, 0.0)) == 1


@rated(1, per_s=600)
def test_a_job_whose_turn_is_far_away_goes_back_and_its_consumer_takes_none_till_then(broker: Broker) -> None:
    broker.publish(0, 1)
    consumer = broker.consumer()
    first = consumer.receive(1, 0.0)
    consumer.settle(acks(first))
    assert consumer.receive(1, 0.0) == []

    counts = broker.client.counts("frames")
    assert (counts.ready, counts.in_flight) == (1, 0)
    broker.clock.advance(30)
    assert consumer.receive(1, 0.0) == []
    assert consumer.held_back == 0
    broker.clock.advance(570)
    (job,) = consumer.receive(1, 0.0)
    assert (job.attempt, job.crashes) == (1, 0)


@rated(10, per_s=10)
def test_a_turn_that_was_missed_is_lost(broker: Broker) -> None:
    """Else a consumer that stood still would start its job together with another's."""
    broker.publish(0, 1)
    consumer = broker.consumer()
    consumer.settle(acks(consumer.receive(1, 0.0)))
    waiting = threading.Thread(target=consumer.receive, args=(1, 60.0))
    waiting.start()
    while not any(job.turn_s is not None for job in consumer._held.all()):
        assert waiting.is_alive()
    consumer.interrupt()
    waiting.join(60)
    broker.store.reserve("rates/1.000000/frames//", 1, interval_s=1.0, max_wait_s=5.0)  # another's, at 2.0

    broker.clock.advance(1.5)
    assert consumer.receive(1, 0.0) == [], "its turn was at 1.0"
    broker.clock.advance(1.5)
    assert len(consumer.receive(1, 0.0)) == 1


@rated(1, per_s=86_400)
def test_a_rate_that_was_changed_does_not_wait_for_the_turns_of_the_one_before(broker: Broker) -> None:
    broker.publish(0, 1)
    one = broker.consumer()
    one.settle(acks(one.receive(2, 0.0)))
    one.close()

    broker.schema = JobSchema("frames", Frame, rate=Rate(100, per_s=1))
    assert len(broker.consumer().receive(1, 0.0)) == 1


def test_the_key_of_a_place_is_short_however_many_fields_it_is_by() -> None:
    names = tuple(f"a_long_name_of_field_{number}" for number in range(100))
    model = create_model("Wide", __base__=JobInput, **dict.fromkeys(names, (str, "value")))  # type: ignore[call-overload]
    schema = JobSchema("q" * 128, model, concurrency_limit=Limit(1, by=names))
    with Orchestrator(LocalClient()) as orchestrator:
        orchestrator.register(schema)
        orchestrator.publish(schema, model())
        consumer = orchestrator.backend.open_consumer(schema.name)
        (delivery,) = consumer.receive(1, 0.0)
        assert schema.concurrency_limit is not None
        prefix = prefix_of(schema.name, schema.concurrency_limit)
        keys = Keys(prefix, schema, schema.concurrency_limit, max_body_bytes=100_000)
        (key,) = keys.of([delivery])
    assert key is not None
    assert len(key) + len("mtj:/") + 96 <= MAX_KEY_CHARS, "with a namespace of RabbitMQ in front"


# -- rates by key ---------------------------------------------------------------------------------

BY_CAMERA_EACH_SECOND = [{"rate": Rate(1, per_s=1, by="camera")}]


def run_for(
    broker: Broker, consumers: Sequence[LimitedConsumerBackend], seconds: float
) -> list[tuple[float, int]]:
    """Let consumers run jobs that take no time, each 10 ms of the clock; return what started when."""
    began = broker.clock.now()
    starts = []
    while broker.clock.now() < began + seconds:
        for consumer in consumers:
            came = consumer.receive(2, 0.0)
            starts += [(broker.clock.now() - began, camera_of(each)) for each in came]
            consumer.settle(acks(came))
        broker.clock.advance(0.01)
    return starts


def camera_of(delivery: Delivery) -> int:
    return Frame.model_validate_json(delivery.body.partition(b'"payload":')[2][:-1]).camera


@pytest.mark.parametrize("broker", BY_CAMERA_EACH_SECOND, indirect=True)
def test_each_key_has_turns_of_its_own(broker: Broker) -> None:
    broker.publish(0, 0, 1, 1, 2)
    assert len(broker.consumer(at_once=5).receive(5, 0.0)) == 3


@pytest.mark.parametrize("broker", BY_CAMERA_EACH_SECOND, indirect=True)
def test_a_long_backlog_of_a_key_without_a_turn_hides_no_other_for_long(broker: Broker) -> None:
    """Behind 2,000 jobs of a key that starts one each second, one of another key starts within seconds."""
    broker.publish(*[0] * 2000, 1)
    starts = run_for(broker, [broker.consumer(at_once=2)], 20.0)
    (moment,) = [moment for moment, camera in starts if camera == 1]
    assert moment < 10.0
    assert 19 <= sum(camera == 0 for _, camera in starts) <= 20


@pytest.mark.parametrize("broker", BY_CAMERA_EACH_SECOND, indirect=True)
def test_every_key_starts_at_its_rate_over_several_consumers(broker: Broker) -> None:
    """100 keys, three consumers, and more jobs of each key than it can start."""
    broker.publish(*[n % 100 for n in range(3000)])
    starts = run_for(broker, [broker.consumer(at_once=50) for _ in range(3)], 20.0)
    counts = Counter(camera for _, camera in starts)
    assert set(counts.values()) <= {19, 20}
    assert len(counts) == 100
    for camera in range(100):
        moments = [moment for moment, each in starts if each == camera]
        gaps = [later - sooner for sooner, later in pairwise(moments)]
        assert min(gaps) >= 0.9, "a job starts a tenth of its interval after its turn at most"


@pytest.mark.parametrize("broker", [{"rate": Rate(1, per_s=10, by="camera")}], indirect=True)
def test_a_job_that_went_back_is_there_when_its_turn_comes(broker: Broker) -> None:
    """Also if it went back again, behind another of its key: more turns are near than jobs can be held."""
    broker.publish(*[n % 600 for n in range(1800)])
    starts = run_for(broker, [broker.consumer(at_once=2)], 40.0)
    for camera in range(600):
        moments = [moment for moment, each in starts if each == camera]
        assert len(moments) == 3
        assert max(later - sooner for sooner, later in pairwise(moments)) < 15.0


@pytest.mark.parametrize("broker", [{"rate": Rate(1, per_s=60, by="camera")}], indirect=True)
def test_jobs_of_a_key_go_back_until_their_turns(broker: Broker) -> None:
    """They come one after another, so that none is moved for nothing each second."""
    broker.publish(*[0] * 50)
    consumer = broker.consumer(at_once=2)
    moves = 0
    release = consumer._release

    def counting(releases: list[Release], *, keep_places: bool) -> None:
        nonlocal moves
        moves += len(releases)
        release(releases, keep_places=keep_places)

    consumer._release = counting  # type: ignore[method-assign]
    starts = run_for(broker, [consumer], 180.0)
    assert [round(moment) for moment, _ in starts] == [0, 60, 120]
    assert moves <= 50 * 180 / 60 * 2


@pytest.mark.parametrize("broker", BY_CAMERA_EACH_SECOND, indirect=True)
def test_jobs_of_all_keys_start_though_one_slot_is_too_few_for_their_rates(broker: Broker) -> None:
    """A new key comes with each job that ends, and yet the oldest waiting job has the next slot."""
    broker.publish(0, 0, 0)
    consumer, ran = broker.consumer(), list[int]()
    for number in range(1, 200):
        broker.publish(number)
        if came := consumer.receive(1, 0.0):
            broker.clock.advance(0.5)  # the handler
            ran += map(camera_of, came)
            consumer.settle(acks(came))
        broker.clock.advance(0.01)
    assert ran[:20].count(0) == 3


@pytest.mark.parametrize(
    "broker", [{"limit": Limit(1), "rate": Rate(1, per_s=10, by="camera")}], indirect=True
)
def test_a_job_that_waits_for_its_turn_has_no_place(broker: Broker) -> None:
    broker.publish(0, 0, 0, 1)
    one, other = broker.consumer(), broker.consumer()
    ran = run_for(broker, [one, other], 5.0)
    assert sorted(camera for _, camera in ran) == [0, 1]


@pytest.mark.parametrize("broker", [{"rate": Rate(100, per_s=1, by="camera")}], indirect=True)
def test_the_turns_of_idle_keys_are_forgotten(broker: Broker) -> None:
    """By the store, and by the consumer."""
    consumer = broker.consumer(at_once=100)
    for first in range(0, 10_000, 100):
        broker.publish(*range(first, first + 100))
        came = consumer.receive(100, 0.0)
        assert len(came) == 100
        consumer.settle(acks(came))
        broker.clock.advance(1.0)
    assert isinstance(consumer._turns, KeyedTurns)
    assert len(consumer._turns._not_before_s) <= 4096
    broker.publish(0)
    consumer.receive(1, 0.0)
    assert len(broker.client.coordination._open()._next_turn) <= 200  # type: ignore[attr-defined]


# -- a store that is away -------------------------------------------------------------------------


class StoreAway(CoordinationStore):
    """A store that nobody can reach."""

    def now(self) -> float:
        raise BackendUnavailable("away")

    def get(self, keys: Any) -> Any:
        self.now()

    def scan(self, prefix: str) -> Any:
        self.now()

    def put(self, key: str, value: bytes, **settings: Any) -> Any:
        self.now()

    def delete(self, key: str, **settings: Any) -> Any:
        self.now()

    def take_places(self, places: Any, **settings: Any) -> list[bool]:
        raise BackendUnavailable("away")

    def leave_places(self, places: Any) -> None:
        self.now()

    def count_places(self, prefixes: Any, **settings: Any) -> Any:
        self.now()

    def reserve(self, key: str, count: int, **settings: Any) -> Reservation:
        raise BackendUnavailable("away")

    def close(self) -> None:
        pass


BOTH = {"limit": Limit(1), "rate": Rate(1, per_s=100)}
BOTH_RUN = {
    "limit": Limit(1, when_store_is_away="run"),
    "rate": Rate(1, per_s=100, when_store_is_away="run"),
}


@pytest.mark.parametrize("broker", [{"limit": Limit(1)}, {"rate": Rate(5, per_s=1)}, BOTH], indirect=True)
def test_jobs_wait_while_the_store_is_away_and_run_when_it_is_back(
    broker: Broker, caplog: pytest.LogCaptureFixture
) -> None:
    store, broker.store = broker.store, StoreAway()
    broker.publish(0)
    consumer = broker.consumer()
    for _ in range(5):
        assert consumer.receive(1, 0.0) == []
        broker.clock.advance(0.5)
    assert caplog.text.count("away") == 2, "one message, which names the error"

    for part in (getattr(consumer._places, "places", None), consumer._turns):
        if hasattr(part, "_store"):
            part._store = store
    broker.clock.advance(1.0)
    assert len(consumer.receive(1, 0.0)) == 1


@pytest.mark.parametrize("broker", [BOTH_RUN], indirect=True)
def test_jobs_run_while_the_store_is_away_if_that_is_wanted(broker: Broker) -> None:
    store, broker.store = broker.store, StoreAway()
    broker.publish(0, 1, 2)
    consumer = broker.consumer()
    batch = consumer.receive(3, 0.0)
    while more := consumer.receive(3, 0.0):
        batch += more

    assert len(batch) == 3
    assert consumer.extend([one.receipt for one in batch]) == [SettleOutcome.OK] * 3
    assert isinstance(consumer._turns, Turns)
    gate_of(consumer).places._store = consumer._turns._store = store
    assert consumer.extend([one.receipt for one in batch]) == [SettleOutcome.OK] * 3, "uncounted, not lost"


@pytest.mark.parametrize("broker", [BOTH_RUN], indirect=True)
def test_a_store_that_is_away_is_asked_rarely_while_jobs_run(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each request waits for the store for seconds, and so do the jobs."""
    asked: list[str] = []

    def away(name: str) -> Any:
        def request(*_: Any, **__: Any) -> Any:
            asked.append(name)
            raise BackendUnavailable("away")

        return request

    broker.store = StoreAway()
    for name in ("take_places", "leave_places", "reserve"):
        monkeypatch.setattr(StoreAway, name, away(name))
    broker.publish(*range(20))
    consumer = broker.consumer()
    for _ in range(10):
        consumer.settle(acks(consumer.receive(1, 0.0)))
        broker.clock.advance(0.1)
    assert broker.client.counts("frames").waiting == 10
    assert len(asked) == 1


@limited(1)
def test_the_places_of_jobs_that_ended_while_the_store_was_away_are_given_back(broker: Broker) -> None:
    broker.publish(0, 1)
    consumer = broker.consumer()
    job = consumer.receive(1, 0.0)
    places = gate_of(consumer).places
    store, places._store = places._store, StoreAway()
    consumer.settle(acks(job))
    places._store = store
    broker.clock.advance(1.0)
    assert len(consumer.receive(1, 0.0)) == 1


@limited(1)
def test_no_lease_is_extended_if_its_place_can_not_be(broker: Broker) -> None:
    broker.publish(0)
    consumer = broker.consumer()
    (job,) = consumer.receive(1, 0.0)
    gate_of(consumer).places._store = StoreAway()

    with pytest.raises(BackendUnavailable):
        consumer.extend([job.receipt])
    broker.clock.advance(LEASE_S)
    assert broker.client.counts("frames").ready == 1
    assert consumer.settle(acks([job])).outcomes == [SettleOutcome.LOST]
