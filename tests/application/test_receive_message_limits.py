"""``receive_message`` returns a job only if its place is free and its turn has come."""

from collections.abc import Iterator, Sequence
from typing import Any

import pytest

from conditions import eventually
from mindtrace.jobs import Consumer, JobInput, JobSchema, Limit, LocalClient, Orchestrator, Rate
from mindtrace.jobs.application.api import receiving
from mindtrace.jobs.domain.errors import BackendUnavailable
from mindtrace.jobs.ports import Ack, Message, Place, Settled, Settlement, SettleOutcome


class Frame(JobInput):
    camera: int = 0
    n: int = 0


class Queue:
    """A queue of frames, and who has its places."""

    def __init__(self, **limits: Any) -> None:
        self.schema = JobSchema("frames", Frame, **limits)
        self.client = LocalClient()
        self.orchestrator = Orchestrator(self.client)
        self.orchestrator.register(self.schema)

    def publish(self, *cameras: int) -> None:
        self.orchestrator.publish_batch("frames", [Frame(camera=c, n=n) for n, c in enumerate(cameras)])

    def receive(self) -> int | None:
        job = self.orchestrator.receive_message(self.schema)
        return None if job is None else job.payload.n

    def take_place(self, camera: int, holder: str = "another") -> None:
        place = Place(f"limits/frames/camera/[{camera}]", self.limit, holder)
        assert self.client.coordination.take_places([place], ttl_s=60.0) == [True]

    def leave_place(self, camera: int, holder: str = "another") -> None:
        place = Place(f"limits/frames/camera/[{camera}]", self.limit, holder)
        self.client.coordination.leave_places([place])

    @property
    def limit(self) -> int:
        assert self.schema.concurrency_limit is not None
        return self.schema.concurrency_limit.count


@pytest.fixture
def queue(request: pytest.FixtureRequest) -> Iterator[Queue]:
    made = Queue(**request.param)
    yield made
    made.orchestrator.close()
    made.client.close()


def limits(**limits: Any) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("queue", [limits], indirect=True)


@limits(concurrency_limit=Limit(1, by="camera"))
def test_a_job_without_a_free_place_is_passed_over_and_keeps_its_position(queue: Queue) -> None:
    """It spends no attempt, and the jobs of its key come in their order once the place is free."""
    queue.publish(0, 0, 1)
    queue.take_place(0)

    assert [queue.receive(), queue.receive()] == [2, None]
    counts = queue.orchestrator.counts("frames")
    assert (counts.ready, counts.delayed, counts.in_flight) == (2, 0, 0)

    queue.leave_place(0)
    first = queue.orchestrator.receive_message(queue.schema)
    assert first is not None
    assert (first.payload.n, first.attempt) == (0, 1)
    assert [queue.receive(), queue.receive()] == [1, None]


@limits(concurrency_limit=Limit(1, by="camera"))
def test_the_place_is_free_again_when_the_call_returns(queue: Queue) -> None:
    queue.publish(0)

    assert queue.receive() == 0
    queue.take_place(0)


@limits(concurrency_limit=Limit(1, by="camera"))
def test_a_call_in_vain_leaves_the_line(queue: Queue) -> None:
    """Else the next place would stay empty for a job that nobody has."""
    queue.publish(0)
    queue.take_place(0)

    assert queue.receive() is None
    queue.leave_place(0)
    queue.take_place(0, "a third")


@limits(concurrency_limit=Limit(1, by="camera"))
def test_a_call_looks_behind_a_few_jobs_and_leaves_a_long_backlog_alone(queue: Queue) -> None:
    queue.publish(*[0] * 100, 1)
    queue.take_place(0)

    assert queue.receive() is None
    counts = queue.orchestrator.counts("frames")
    assert (counts.ready, counts.delayed, counts.in_flight) == (101, 0, 0)


@limits(rate=Rate(1, per_s=3600))
def test_a_call_takes_a_turn(queue: Queue) -> None:
    queue.publish(0, 0)

    assert [queue.receive(), queue.receive()] == [0, None]
    counts = queue.orchestrator.counts("frames")
    assert (counts.ready, counts.delayed, counts.in_flight) == (1, 0, 0)


@limits(rate=Rate(1, per_s=3600, by="camera"))
def test_a_key_without_a_turn_holds_up_no_other(queue: Queue) -> None:
    """Nor is a job delayed for it, however far away its turn is."""
    queue.publish(0, 0, 0, 1, 1)

    assert [queue.receive(), queue.receive(), queue.receive()] == [0, 3, None]
    counts = queue.orchestrator.counts("frames")
    assert (counts.ready, counts.delayed, counts.in_flight) == (3, 0, 0)


@limits(rate=Rate(100, per_s=1, by="camera"), concurrency_limit=Limit(1, by="camera"))
def test_a_job_has_its_place_and_its_turn(queue: Queue) -> None:
    """And a job that waits for its turn keeps no place."""
    queue.publish(0, 0, 0, 1)
    queue.take_place(1)

    received: list[int] = []

    def all_but_one() -> bool:
        n = queue.receive()
        received.extend([] if n is None else [n])
        return len(received) == 3

    eventually(all_but_one, "three jobs have had their turns")
    assert received == [0, 1, 2]
    assert queue.receive() is None
    queue.take_place(0)


@limits(concurrency_limit=Limit(1))
def test_a_job_that_runs_in_a_consumer_has_the_place(queue: Queue) -> None:
    queue.publish(0, 0)
    received: list[int | None] = []

    class Frames(Consumer[Frame]):
        schema = queue.schema

        def run(self, job: Any) -> None:
            received.append(queue.receive())

    with Frames() as consumer:
        consumer.connect(queue.orchestrator)
        consumer.consume(1)
    assert received == [None]
    assert queue.receive() == 1


@limits(concurrency_limit=Limit(1, by="camera"))
def test_nobody_is_asked_to_tell_of_places(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    """It would take a connection, or a thread, for each call."""
    queue.publish(0)
    monkeypatch.setattr(queue.client.coordination, "watch_places", None)
    assert queue.receive() == 0


@limits(concurrency_limit=Limit(1, by="camera"))
def test_releases_that_the_broker_missed_are_sent_with_the_next_call(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Else their leases would have to end, and each would count a crash."""
    queue.publish(0)
    queue.take_place(0)
    assert queue.receive() is None  # opens the consumer
    ((_, idle),) = queue.client.idle_consumers._idle
    consumer = idle.backend
    settle, away = consumer.settle, [True]

    def broken_settle(*args: Any, **options: Any) -> Any:
        if away:
            raise BackendUnavailable("the line broke")
        return settle(*args, **options)

    monkeypatch.setattr(consumer, "settle", broken_settle)
    assert queue.receive() is None
    assert queue.orchestrator.counts("frames").in_flight == 1
    away.clear()
    queue.leave_place(0)
    job = queue.orchestrator.receive_message(queue.schema)
    assert job is not None
    assert job.attempt == 1
    assert queue.orchestrator.counts("frames").in_flight == 0


@pytest.mark.parametrize(("when", "seen"), [("wait", [None]), ("run", [0])])
def test_if_the_store_is_away_the_limit_says_whether_jobs_run(
    when: Any, seen: list[int | None], monkeypatch: pytest.MonkeyPatch
) -> None:
    queue = Queue(concurrency_limit=Limit(1, by="camera", when_store_is_away=when))
    queue.publish(0)

    def away(*args: Any, **options: Any) -> Any:
        raise BackendUnavailable("the store is away")

    monkeypatch.setattr(queue.client.coordination, "take_places", away)
    assert [queue.receive()] == seen
    queue.orchestrator.close()
    queue.client.close()


@limits(concurrency_limit=Limit(1, by="camera"))
def test_a_limit_that_was_changed_counts_as_changed(queue: Queue) -> None:
    queue.publish(0, 0)
    queue.take_place(0)
    assert queue.receive() is None

    queue.orchestrator.change_limit("frames", 2)
    assert queue.receive() == 0
    queue.orchestrator.reset_limit("frames")
    assert queue.receive() is None


def alarmed(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> list[bool]:
    """Have the broker defer releases, as it takes no messages; return a list to empty once it does again."""
    (idle,) = [each for _, each in queue.client.idle_consumers._idle]
    settle, alarm = idle.backend.settle, [True]

    def settle_acks(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
        done = [each for each in settlements if isinstance(each, Ack) or not alarm]
        outcomes = iter(settle(done, take=take).outcomes)
        return Settled(
            [next(outcomes) if each in done else SettleOutcome.DEFERRED for each in settlements], []
        )

    monkeypatch.setattr(idle.backend, "settle", settle_acks)
    return alarm


@limits(concurrency_limit=Limit(1, by="camera"))
def test_jobs_that_the_broker_cannot_take_back_are_those_of_the_next_call(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each call took more, and none of them could run before the alarm was over."""
    queue.publish(*[0] * 100)
    queue.take_place(0)
    assert queue.receive() is None  # opens the consumer
    alarm = alarmed(queue, monkeypatch)
    for _ in range(5):
        assert queue.receive() is None
    assert queue.orchestrator.counts("frames").in_flight <= 32

    queue.leave_place(0)
    assert sorted(queue.receive() or 0 for _ in range(100)) == list(range(100))
    assert queue.receive() is None
    alarm.clear()


@limits(concurrency_limit=Limit(1, by="camera"))
def test_they_go_back_once_the_broker_takes_them(queue: Queue, monkeypatch: pytest.MonkeyPatch) -> None:
    queue.publish(*[0] * 10)
    queue.take_place(0)
    assert queue.receive() is None
    alarm = alarmed(queue, monkeypatch)
    assert queue.receive() is None
    assert queue.orchestrator.counts("frames").in_flight == 10
    alarm.clear()
    assert queue.receive() is None
    assert queue.orchestrator.counts("frames").in_flight == 0


@limits()
def test_so_many_jobs_that_cannot_be_read_wait_here_and_a_call_takes_no_more(
    queue: Queue, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Each is to become a dead letter, which the broker can't write."""
    monkeypatch.setattr(receiving, "MOST_DEFERRED", 3)
    assert queue.receive() is None  # opens the consumer
    alarm = alarmed(queue, monkeypatch)
    queue.client.publish("frames", [Message(f"bad{n}", b"{") for n in range(10)])
    queue.publish(0)
    with pytest.raises(BackendUnavailable, match="3 jobs that can't be read"):
        queue.receive()
    assert queue.orchestrator.counts("frames").in_flight == 3

    alarm.clear()
    assert queue.receive() == 0
    assert queue.orchestrator.counts("frames").dead == 10
