"""Places that a consumer passes on from job to job while a limit isn't reached."""

import random
from collections import Counter
from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import pytest

from mindtrace.jobs import Limit
from mindtrace.jobs.application.limits.places import ConsumerPlace
from mindtrace.jobs.ports import Ack, Delivery, Place, Release, Retry

from .test_limits import LEASE_S, Broker, StoreAway, acks, gate_of, numbers, places_of

KEY = "limits/frames//"


class Requests:
    """Counts the requests for places."""

    def __init__(self, broker: Broker, monkeypatch: pytest.MonkeyPatch) -> None:
        self.made: list[str] = []
        for name in ("take_places", "leave_places"):
            monkeypatch.setattr(broker.store, name, self._counted(name, getattr(broker.store, name)))

    def _counted(self, name: str, request: Any) -> Any:
        def counted(places: Sequence[Place], **options: Any) -> Any:
            self.made.append(name)
            return request(places, **options)

        return counted


@pytest.fixture
def broker() -> Any:
    made = Broker(limit=Limit(100))
    yield made
    made.client.close()


def held(broker: Broker, count: int, key: str = KEY) -> int:
    """How many of ``count`` places are taken."""
    broker.clock.advance(0.002)  # the place that a look took has ended
    probes = [Place(key, count, f"probe-{number}") for number in range(count)]
    free = sum(broker.store.take_places(probes, ttl_s=1.0))
    broker.store.leave_places(probes)
    return count - free


def test_from_the_second_batch_on_a_limit_that_is_not_reached_costs_no_request(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    """But for a look once in 50 ms whether it is reached."""
    broker.publish(*range(200))
    consumer = broker.consumer()
    jobs = consumer.receive(10, 0.0)
    jobs = consumer.settle(acks(jobs), take=10).deliveries
    requests = Requests(broker, monkeypatch)
    ran = 20
    while ran < 200:
        jobs = consumer.settle(acks(jobs), take=10).deliveries
        ran += len(jobs)
        broker.clock.advance(0.01)
    assert requests.made == ["take_places"] * 3


def test_a_place_that_no_job_gets_is_given_back_at_once(broker: Broker) -> None:
    broker.publish(*range(14))
    consumer = broker.consumer()
    jobs = consumer.settle(acks(consumer.receive(5, 0.0)), take=5).deliveries
    assert held(broker, 100) == 5
    jobs = consumer.settle(acks(jobs), take=5).deliveries
    assert len(jobs) == 4
    assert held(broker, 100) == 4
    consumer.settle(acks(jobs), take=5)
    assert held(broker, 100) == 0


def test_a_batch_that_grows_asks_for_the_places_that_are_missing(broker: Broker) -> None:
    broker.publish(*range(40))
    consumer = broker.consumer()
    jobs = consumer.receive(2, 0.0)
    for size in (2, 4, 8, 16):
        jobs = consumer.settle(acks(jobs), take=size).deliveries
        assert len(jobs) == held(broker, 100) == size
    assert numbers(jobs) == list(range(16, 32)), "in their order"


def test_what_is_missing_is_asked_for_at_once_and_also_of_keys_that_are_new(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """However the keys of the next jobs are mixed, the others keep the places that are passed on."""
    broker = Broker(limit=Limit(10, by="camera"))
    broker.publish(*[0, 1], *[0, 0, 1, 2], *[2, 1, 0, 0])
    consumer = broker.consumer()
    jobs = consumer.settle(acks(consumer.receive(2, 0.0)), take=4).deliveries
    assert [camera(job) for job in jobs] == ["0", "0", "1", "2"]
    requests = Requests(broker, monkeypatch)
    jobs = consumer.settle(acks(jobs), take=4).deliveries
    assert requests.made == ["take_places"], "a look, as the same places are needed"
    assert [camera(job) for job in jobs] == ["2", "1", "0", "0"]
    assert all(isinstance(place, ConsumerPlace) for place in places_of(consumer))
    broker.client.close()


def test_who_is_refused_more_places_leaves_the_line_for_its_jobs() -> None:
    """Or a place that no job waits for would stand before them."""
    broker = Broker(limit=Limit(3))
    broker.publish(*range(12))
    consumer, other = broker.consumer(at_once=3), broker.consumer(at_once=3)
    jobs = consumer.settle(acks(consumer.receive(1, 0.0)), take=1).deliveries
    jobs = consumer.settle(acks(jobs), take=1).deliveries  # it looks, and the limit isn't reached
    broker.clock.advance(0.002)  # the place that the look took has ended
    theirs = other.receive(2, 0.0)
    jobs = consumer.settle(acks(jobs), take=4).deliveries
    assert (len(theirs), len(jobs)) == (2, 1)
    waiting = consumer._held.all()
    assert {job.place and job.place.holder for job in waiting} == {
        f"{job.delivery.id}/1/0" for job in waiting
    }
    assert len(waiting) == 3
    other.settle(acks(theirs))
    broker.clock.advance(0.1)
    assert len(consumer.receive(3, 0.0)) == 2
    broker.client.close()


def test_places_that_are_not_passed_on_are_given_back_before_the_settlement(broker: Broker) -> None:
    broker.publish(*range(10))
    consumer = broker.consumer()
    jobs = consumer.settle(acks(consumer.receive(5, 0.0)), take=5).deliveries
    consumer.settle(acks(jobs))
    assert held(broker, 100) == 0


def test_a_place_is_not_passed_on_when_it_would_end_before_the_lease(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish(*range(20))
    consumer = broker.consumer()
    jobs = consumer.settle(acks(consumer.receive(5, 0.0)), take=5).deliveries
    broker.clock.advance(LEASE_S / 9)
    requests = Requests(broker, monkeypatch)
    jobs = consumer.settle(acks(jobs), take=5).deliveries
    assert requests.made[-2:] == ["leave_places", "take_places"]
    assert held(broker, 100) == 5


def test_a_place_that_was_extended_may_be_passed_on_again(
    broker: Broker, monkeypatch: pytest.MonkeyPatch
) -> None:
    broker.publish(*range(20))
    consumer = broker.consumer()
    jobs = consumer.settle(acks(consumer.receive(5, 0.0)), take=5).deliveries
    broker.clock.advance(LEASE_S / 9)
    consumer.extend([job.receipt for job in jobs])
    requests = Requests(broker, monkeypatch)
    consumer.settle(acks(jobs), take=5)
    assert requests.made == ["take_places"], "a look, and no more"


def test_who_waits_for_a_place_has_it_soon_though_another_goes_from_job_to_job() -> None:
    """Also if the limit was far from reached when that one last looked."""
    broker = Broker(limit=Limit(10))
    broker.publish(*range(200))
    busy, other = broker.consumer(), broker.consumer()
    jobs = busy.settle(acks(busy.receive(5, 0.0)), take=5).deliveries
    jobs = busy.settle(acks(jobs), take=5).deliveries
    broker.store.take_places([Place(KEY, 10, f"third-{number}") for number in range(5)], ttl_s=1000.0)
    assert other.receive(1, 0.0) == []
    waited_s, got = 0.0, []
    while not got:
        jobs = busy.settle(acks(jobs), take=5).deliveries
        broker.clock.advance(0.01)
        waited_s += 0.01
        got = other.receive(1, 0.0)
    assert waited_s <= 0.12
    broker.client.close()


def test_with_one_place_no_place_is_passed_on() -> None:
    broker = Broker(limit=Limit(1))
    broker.publish(*range(6))
    busy, other = broker.consumer(), broker.consumer()
    order = []
    first = busy.receive(1, 0.0)
    assert other.receive(1, 0.0) == []  # it waits with the second
    second = busy.settle(acks(first), take=1).deliveries
    broker.clock.advance(0.05)
    order += numbers(first) + numbers(second) + numbers(other.receive(1, 0.0))
    assert order == [0, 1]
    broker.client.close()


def test_a_job_that_is_refused_waits_in_its_own_name() -> None:
    """So that its position in line goes where the job goes."""
    broker = Broker(limit=Limit(3))
    broker.publish(*range(8))
    consumer = broker.consumer(at_once=4)
    jobs = consumer.settle(acks(consumer.receive(1, 0.0)), take=4).deliveries
    assert numbers(jobs) == [1, 2, 3]
    (waiting,) = consumer._held.all()
    assert waiting.place is not None
    assert waiting.place.holder == f"{waiting.delivery.id}/1/0"
    assert held(broker, 3) == 3
    broker.client.close()


def test_a_job_that_is_released_gives_back_the_place_of_its_consumer(broker: Broker) -> None:
    broker.publish(*range(10))
    consumer = broker.consumer()
    jobs = consumer.settle(acks(consumer.receive(2, 0.0)), take=4).deliveries
    assert all(isinstance(place, ConsumerPlace) for place in places_of(consumer))
    consumer.settle([Release(job.receipt) for job in jobs])
    assert held(broker, 100) == 0


def test_a_store_that_is_away_for_the_look_passes_nothing_on_and_loses_no_job(broker: Broker) -> None:
    broker.publish(*range(20))
    consumer = broker.consumer()
    jobs = consumer.settle(acks(consumer.receive(5, 0.0)), take=5).deliveries
    places = gate_of(consumer).places
    store, places._store = places._store, StoreAway()
    assert consumer.settle(acks(jobs), take=5).deliveries == []
    places._store = store
    broker.clock.advance(1.0)
    assert len(consumer.receive(5, 0.0)) == 5
    assert held(broker, 100) == 5


def test_a_place_that_the_store_never_gave_is_not_passed_on() -> None:
    """Jobs that run uncounted while it is away have none."""
    broker = Broker(limit=Limit(100, when_store_is_away="run"))
    broker.publish(*range(20))
    consumer = broker.consumer()
    jobs = consumer.receive(5, 0.0)
    places = gate_of(consumer).places
    store, places._store = places._store, StoreAway()
    jobs = consumer.settle(acks(jobs), take=5).deliveries
    assert len(jobs) == 5
    places._store = store
    broker.clock.advance(10.0)
    jobs = consumer.settle(acks(jobs), take=5).deliveries
    assert held(broker, 100) == 5
    broker.client.close()


@pytest.mark.parametrize("seed", range(20))
def test_no_key_ever_has_more_jobs_than_its_limit_whatever_its_consumers_do(seed: int) -> None:
    """Three consumers receive, settle in any way, extend or die, in any order."""
    chance, limit = random.Random(seed), 4
    broker = Broker(limit=Limit(limit, by="camera"))
    broker.publish(*(chance.randrange(3) for _ in range(150)))
    consumers = [broker.consumer(at_once=chance.randint(1, 4)) for _ in range(3)]
    running: list[list[Delivery]] = [[] for _ in consumers]
    most: Counter[str] = Counter()
    for _ in range(400):
        number = chance.randrange(3)
        consumer, mine = consumers[number], running[number]
        chance.shuffle(mine)
        match chance.choices(("receive", "settle", "wait", "die"), (3, 8, 4, 0.1))[0]:
            case "receive":
                mine += consumer.receive(chance.randint(1, 4), 0.0)
            case "settle":
                those, running[number] = mine[:3], mine[3:]
                hows = (Ack, Ack, Ack, lambda receipt: Retry(receipt, 0.0, ""), Release)
                settlements = [chance.choice(hows)(job.receipt) for job in those]
                running[number] += consumer.settle(settlements, take=chance.randint(0, 4)).deliveries
            case "wait":
                broker.clock.advance(chance.choice((0.001, 0.02, 0.06, 1.0)))
                for each, jobs in zip(consumers, running, strict=True):
                    each.extend([job.receipt for job in jobs])
            case "die":  # what ran has its place until that ends with the lease, and stops before
                broker.clock.advance(0.01)
                consumers[number], running[number] = broker.consumer(at_once=2), []
        at_once = Counter(camera(job) for jobs in running for job in jobs)
        most |= at_once
        assert max(at_once.values(), default=0) <= limit
    assert max(most.values()) == limit, "they do run side by side"
    broker.client.close()


def camera(job: Delivery) -> str:
    return job.body.partition(b'"camera":')[2][:1].decode()


def test_jobs_of_a_key_start_in_their_order_while_places_are_passed_on(broker: Broker) -> None:
    broker.publish(*range(60))
    consumer = broker.consumer()
    jobs = consumer.receive(3, 0.0)
    order = numbers(jobs)
    while jobs:
        jobs = consumer.settle(acks(jobs), take=7).deliveries
        order += numbers(jobs)
    assert len(order) == 60
    assert all(before < after for before, after in pairwise(order))
