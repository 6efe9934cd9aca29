"""A limit by a key fills its places while jobs of its keys wait, counted on a clock that the test moves."""

import random
from collections import Counter
from itertools import count
from typing import Any

import pytest

from mindtrace.jobs import Limit
from mindtrace.jobs.application.limits.consumer_backend import LimitedConsumerBackend
from mindtrace.jobs.ports import Ack, CoordinationStore, Delivery

from .test_limits import Broker, Frame

STEP_S = 0.005
"""How far the clock moves each time: consumers look as often, so a place is empty for that long at least."""
BACKLOG = 600


class Work:
    """Consumers whose jobs take a while, and the number of jobs that ran."""

    def __init__(self, broker: Broker, *, consumers: int, at_once: int, job_s: float) -> None:
        self.broker = broker
        self.at_once, self.job_s = at_once, job_s
        self.consumers = [broker.consumer(at_once) for _ in range(consumers)]
        self.running: dict[LimitedConsumerBackend, list[tuple[float, Delivery]]] = {
            consumer: [] for consumer in self.consumers
        }
        self.started: list[Delivery] = []
        self._numbers = count()

    def publish(self, *cameras: int) -> None:
        frames = [Frame(camera=camera, n=next(self._numbers)) for camera in cameras]
        self.broker.orchestrator.publish_batch("frames", frames)

    def go_on(self, seconds: float) -> None:
        """Let the clock go on for so long, and the consumers do what there is to do."""
        for _ in range(round(seconds / STEP_S)):
            for consumer in self.consumers:
                self._settle(consumer)
                self._receive(consumer)
            self.broker.clock.advance(STEP_S)

    def _settle(self, consumer: LimitedConsumerBackend) -> None:
        now, running = self.broker.clock.now(), self.running[consumer]
        ended = [delivery for ends_s, delivery in running if ends_s <= now]
        self.running[consumer] = [(ends_s, delivery) for ends_s, delivery in running if ends_s > now]
        consumer.settle([Ack(delivery.receipt) for delivery in ended])

    def _receive(self, consumer: LimitedConsumerBackend) -> None:
        ends_s = self.broker.clock.now() + self.job_s
        while room := self.at_once - len(self.running[consumer]):
            came = consumer.receive(room, 0.0)
            if not came:
                break
            self.started += came
            self.running[consumer] += [(ends_s, delivery) for delivery in came]


def camera_of(delivery: Delivery) -> int:
    return frame_of(delivery).camera


def frame_of(delivery: Delivery) -> Frame:
    return Frame.model_validate_json(delivery.body.partition(b'"payload":')[2][:-1])


@pytest.mark.parametrize("consumers", [1, 2])
@pytest.mark.parametrize(
    ("cameras", "limit", "at_once"),
    [(1, 4, 8), (1, 1, 1000), (5, 2, 5), (8, 1, 8), (8, 4, 32), (30, 1, 32), (30, 4, 8), (30, 4, 1000)],
)
def test_the_places_of_a_limit_are_full_while_jobs_wait(
    cameras: int, limit: int, at_once: int, consumers: int
) -> None:
    """With many more waiting jobs than a consumer keeps. The backlog never ends."""
    broker, draw = Broker(limit=Limit(limit, by="camera")), random.Random(3)
    work = Work(broker, consumers=consumers, at_once=at_once, job_s=0.2)
    seconds = 6
    allowed = min(cameras * limit, at_once * consumers) / work.job_s * seconds
    with broker.client:
        for _ in range(seconds):
            work.publish(*[draw.randrange(cameras) for _ in range(BACKLOG)])
            work.go_on(1.0)
        assert len(work.started) >= 0.9 * allowed
        assert all(delivery.attempt == 1 and delivery.crashes == 0 for delivery in work.started)


@pytest.mark.parametrize(
    ("cameras", "limit", "consumers"), [(1, 1, 4), (2, 4, 12), (3, 1, 12), (8, 1, 4), (8, 4, 12), (30, 1, 12)]
)
def test_the_places_are_full_though_each_consumer_runs_one_job(
    cameras: int, limit: int, consumers: int
) -> None:
    """With more consumers than places, or fewer; with as many, some have only jobs of keys that are full."""
    broker, draw = Broker(limit=Limit(limit, by="camera")), random.Random(3)
    work = Work(broker, consumers=consumers, at_once=1, job_s=0.5)
    with broker.client:
        work.publish(*[draw.randrange(cameras) for _ in range(BACKLOG)])
        work.go_on(6.0)
    assert len(work.started) >= 0.95 * min(cameras * limit, consumers) / work.job_s * 6.0


@pytest.mark.parametrize(
    ("cameras", "limit", "consumers", "allowed_s"),
    [
        ([0, 1] * 24, 4, 12, 3.0),
        ([0, 1, 2, 3] * 10, 1, 8, 5.0),
        ([0] * 60 + list(range(1, 41)), 4, 8, 7.5),
    ],
    ids=["more consumers than places", "twice as many", "behind a backlog of one camera"],
)
def test_no_consumer_keeps_jobs_that_another_could_run(
    cameras: list[int], limit: int, consumers: int, allowed_s: float
) -> None:
    """Who had to wait has taken all other jobs, and runs one at a time."""
    broker = Broker(limit=Limit(limit, by="camera"))
    work = Work(broker, consumers=consumers, at_once=1, job_s=0.5)
    with broker.client:
        work.publish(*cameras)
        work.go_on(1.2 * allowed_s)
    assert len(work.started) == len(cameras)
    assert all(delivery.attempt == 1 and delivery.crashes == 0 for delivery in work.started)


def test_jobs_that_go_back_are_there_again_before_those_that_stay_have_run() -> None:
    """A consumer of many jobs at once takes the whole backlog before it knows how long a job takes."""
    broker = Broker(limit=Limit(4, by="camera"))
    work = Work(broker, consumers=1, at_once=1000, job_s=0.05)
    with broker.client:
        work.publish(*[0] * 900)
        work.go_on(3.0)
    assert len(work.started) >= 0.9 * 4 / 0.05 * 3.0


def test_a_job_that_goes_back_with_a_delay_leaves_the_line() -> None:
    """Else its position keeps a place empty until it is there again."""
    broker = Broker(limit=Limit(1, by="camera"))
    work = Work(broker, consumers=1, at_once=2, job_s=1.0)
    with broker.client:
        work.publish(*[0] * 100)
        for _ in range(200):
            work.go_on(STEP_S)
            if broker.client.counts("frames").delayed:
                break
        else:
            pytest.fail("no more jobs were taken than a consumer keeps")
        (line,) = broker.client._namespace.coordination._lines.values()
        kept = {job.place.holder for job in work.consumers[0]._held.all() if job.place is not None}
        assert set(line._waiting) <= kept


def test_a_key_behind_a_long_backlog_of_another_gets_its_places() -> None:
    broker = Broker(limit=Limit(2, by="camera"))
    work = Work(broker, consumers=1, at_once=8, job_s=0.5)
    with broker.client:
        work.publish(*[0] * 500, *[1] * 20)
        work.go_on(15.0)
        started = Counter(map(camera_of, work.started))
    assert started[1] == 20, "of the 60 that its places had room for"
    assert started[0] >= 0.9 * 60


def test_jobs_of_a_key_that_never_went_back_start_in_their_order() -> None:
    broker = Broker(limit=Limit(2, by="camera"))
    work = Work(broker, consumers=2, at_once=8, job_s=0.1)
    with broker.client:
        work.publish(*[0, 1, 2] * 8)
        work.go_on(5.0)
    for camera in range(3):
        started = [frame_of(one).n for one in work.started if camera_of(one) == camera]
        assert started == sorted(started)
        assert len(started) == 8


class Counted:
    """A store that counts its requests for places.

    Args:
        store: What it asks.
        tells: Whether it tells who is next in line for a place.
    """

    def __init__(self, store: CoordinationStore, *, tells: bool = True) -> None:
        self._store = store
        self.tells_freed_places = tells
        self.requests = 0

    def take_places(self, places: Any, **settings: Any) -> list[bool]:
        self.requests += 1
        return self._store.take_places(places, **settings)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._store, name)


@pytest.mark.parametrize(
    ("who", "tells", "at_most"),
    [("the one whose jobs run", True, 1.1), ("another", True, 1.1), ("another", False, 25)],
    ids=["running", "waiting", "waiting for a store that tells nobody"],
)
def test_a_consumer_asks_for_places_only_as_often_as_one_may_get_free(
    who: str, tells: bool, at_most: float
) -> None:
    """Of a consumer whose jobs have all places, nobody else can give one back; else the store tells it."""
    broker = Broker(limit=Limit(2, by="camera"))
    store = Counted(broker.store, tells=tells)
    broker.store = store  # type: ignore[assignment]
    with broker.client:
        work = Work(broker, consumers=1, at_once=4, job_s=60.0)
        work.publish(*[0] * 20)
        work.go_on(5.0)
        if who == "another":
            work.publish(*[0] * 20)
            work = Work(broker, consumers=1, at_once=4, job_s=60.0)
            work.go_on(5.0)
        store.requests = 0
        work.go_on(10.0)
    assert 0 < store.requests <= at_most * 10
