"""What a consumer of many jobs at once tells a broker that sends jobs ahead."""

import threading
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import Consumer, Job, JobInput, JobOutput, JobSchema, Limit, LocalClient, Orchestrator
from mindtrace.jobs.application.consuming import concurrent_loop
from mindtrace.jobs.ports import ConsumerBackend, Delivery, Settled, Settlement, SettleOutcome


class Number(JobInput):
    x: int = 0


class Nothing(JobOutput):
    pass


class Sender(ConsumerBackend):
    """Notes what the consumer allows, and how many jobs it takes."""

    def __init__(self, inner: ConsumerBackend, prefetch: int | None) -> None:
        super().__init__()
        self.inner = inner
        self.said: list[tuple[str, int]] = []
        self.before_empty: Callable[[], object] = lambda: None
        """Called before the answer that there are no more jobs."""
        self._prefetch = prefetch

    @property
    def lease_s(self) -> float | None:
        return self.inner.lease_s

    @property
    def prefetch(self) -> int | None:
        return self._prefetch

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        self.said.append(("take", max_jobs))
        return self.inner.receive(max_jobs, timeout_s)

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        if take:
            self.said.append(("take", take))
        answer = self.inner.settle(settlements, take=take)
        if take and not answer.deliveries:
            self.before_empty()
        return answer

    def extend(self, receipts: Sequence[str]) -> list[SettleOutcome]:
        return self.inner.extend(receipts)

    def allow_ahead(self, limit: int) -> None:
        self.said.append(("allow", limit))

    def release_ahead(self) -> None:
        self.said.append(("release", 0))

    def interrupt(self) -> None:
        self.inner.interrupt()

    def close(self) -> None:
        self.inner.close()


class SendingClient(LocalClient):
    def __init__(self, prefetch: int | None) -> None:
        super().__init__()
        self.prefetch = prefetch
        self.opened: list[Sender] = []

    def open_consumer(self, queue: str, **settings: Any) -> Sender:
        self.opened.append(Sender(super().open_consumer(queue, **settings), self.prefetch))
        return self.opened[-1]


class Run(Consumer[Number, Nothing]):
    schema = JobSchema(name="numbers", input=Number, output=Nothing)

    def __init__(self) -> None:
        super().__init__()
        self.ran = 0

    def run(self, job: Job[Number]) -> None:
        self.ran += 1


@pytest.fixture
def client() -> SendingClient:
    return SendingClient(prefetch=1)


@pytest.fixture
def jobs(client: SendingClient) -> Iterator[Orchestrator]:
    with Orchestrator(client) as made:
        made.register(Run.schema)
        yield made


def test_a_consumer_of_many_at_once_allows_as_many_as_may_run(
    jobs: Orchestrator, client: SendingClient
) -> None:
    """Before it takes any, and takes that back when it ends."""
    jobs.publish_batch("numbers", [Number(x=x) for x in range(50)])
    with Run() as consumer:
        consumer.connect(jobs, concurrency=8)
        assert consumer.consume_until_empty() == 50
        said = client.opened[0].said
    assert said[0][0] == "allow"
    assert all(limit >= 8 for what, limit in said if what == "allow")
    assert said[-1][0] == "release"


def test_a_consumer_of_one_at_a_time_allows_none(jobs: Orchestrator, client: SendingClient) -> None:
    """What is sent ahead would wait behind the job that runs."""
    jobs.publish_batch("numbers", [Number(x=x) for x in range(5)])
    with Run() as consumer:
        consumer.connect(jobs, concurrency=1)
        assert consumer.consume_until_empty() == 5
        assert "allow" not in {what for what, _ in client.opened[0].said}


def test_the_last_jobs_of_a_bounded_run_are_asked_for_one_by_one(
    jobs: Orchestrator, client: SendingClient
) -> None:
    """None is sent that won't be run."""
    jobs.publish_batch("numbers", [Number(x=x) for x in range(50)])
    with Run() as consumer:
        consumer.connect(jobs, concurrency=8)
        assert consumer.consume(5) == 5
        said = client.opened[0].said
        assert "allow" not in {what for what, _ in said}
        assert said.index(("release", 0)) < said.index(("take", 5))
        assert consumer.consume(20) == 20
        last = max(place for place, (what, _) in enumerate(said) if what == "allow")
        assert ("release", 0) in said[last:]
    assert jobs.counts("numbers").ready == 25


@pytest.mark.parametrize(
    ("backends", "own", "adapts", "size"),
    [(None, None, True, 1), (1, None, True, 1), (8, None, False, 8), (20, None, False, 20), (1, 3, False, 3)],
)
def test_a_backends_prefetch_below_the_concurrency_adapts(
    backends: int | None, own: int | None, adapts: bool, size: int
) -> None:
    """It is a default for one job at a time; what the consumer itself sets wins."""
    with Orchestrator(SendingClient(backends)) as jobs, Run() as consumer:
        consumer.connect(jobs, concurrency=8, prefetch=own)
        assert consumer._connection is not None
        sizer = consumer._connection.loop._sizer
        assert (sizer.adapts, sizer.size) == (adapts, size)


def test_what_finishes_while_more_is_taken_is_settled_before_the_consumer_waits(
    jobs: Orchestrator, client: SendingClient, eventually: Any
) -> None:
    """Even if nothing runs any more, so that nothing else would make it settle."""
    jobs.publish("numbers", {})
    with Run() as consumer:
        consumer.connect(jobs, concurrency=8, poll_timeout_s=LIMIT_S)
        assert consumer._connection is not None
        in_flight = consumer._connection.loop._in_flight
        client.opened[0].before_empty = lambda: eventually(lambda: not in_flight.held)
        consuming = threading.Thread(target=consumer.consume)
        consuming.start()
        try:
            eventually(lambda: consumer.stats.done)
        finally:
            consumer.stop()
            consuming.join()


def test_jobs_that_are_sent_ahead_go_to_others_while_all_places_are_slow(
    jobs: Orchestrator, client: SendingClient, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the consumer knows of none: they are on their way, or wait for a limit."""
    monkeypatch.setattr(concurrent_loop, "SLOW_S", 0.01)
    go_on = threading.Event()

    class Slow(Run):
        def run(self, job: Job[Number]) -> None:
            assert go_on.wait(LIMIT_S)

    jobs.publish_batch("numbers", [{}, {}])
    with Slow() as consumer:
        consumer.connect(jobs, concurrency=2)
        consuming = threading.Thread(target=consumer.consume)
        consuming.start()
        try:
            eventually(lambda: ("release", 0) in client.opened[0].said)
        finally:
            go_on.set()
            consumer.stop()
            consuming.join()


class Keeper(Sender):
    """Has no more jobs than were allowed, as a broker that sends a job for each that is settled."""

    allowed = 0
    unsettled = 0

    def allow_ahead(self, limit: int) -> None:
        self.allowed = limit

    def receive(self, max_jobs: int, timeout_s: float) -> list[Delivery]:
        room = min(max_jobs, self.allowed - self.unsettled) if self.allowed else max_jobs
        if room <= 0:
            return []
        deliveries = super().receive(room, timeout_s)
        self.unsettled += len(deliveries)
        return deliveries

    def settle(self, settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        self.unsettled -= len(settlements)
        outcomes = super().settle(settlements).outcomes
        return Settled(outcomes, self.receive(take, 0.0) if take else [])


class KeepingClient(SendingClient):
    def open_consumer(self, queue: str, **settings: Any) -> Sender:
        return Keeper(LocalClient.open_consumer(self, queue, **settings), self.prefetch)


class Photo(JobInput):
    camera: str


def test_jobs_that_wait_for_places_keep_none_away_that_may_run() -> None:
    """Those that are held count towards what a broker sends ahead, and must not use it up."""
    other_ran = threading.Event()

    class Develop(Consumer[Photo]):
        schema = JobSchema("photos", Photo, concurrency_limit=Limit(1, by="camera"))

        def run(self, job: Job[Photo]) -> None:
            if job.payload.camera == "other":
                other_ran.set()
            assert other_ran.wait(LIMIT_S)

    with Orchestrator(KeepingClient(prefetch=1)) as jobs, Develop() as consumer:
        jobs.register(Develop.schema)
        jobs.publish_batch("photos", [*[Photo(camera="one")] * 8, Photo(camera="other")])
        consumer.connect(jobs, concurrency=4)
        assert consumer.consume_until_empty() == 9
        assert consumer.stats.done == 9
