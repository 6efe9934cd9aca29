"""Jobs that waited for too long: they don't run, and end as expired (ADR 124)."""

import asyncio
import pickle
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any

import pytest

from mindtrace.jobs import (
    AsyncOrchestrator,
    Attempt,
    BatchConsumer,
    Consumer,
    ConsumeStats,
    Job,
    JobFailed,
    JobInput,
    JobOutput,
    JobSchema,
    JobStatus,
    LocalClient,
    Observer,
    Orchestrator,
    Outcome,
    Rate,
    RetryPolicy,
    Then,
    Unique,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.broker import broker_clock
from mindtrace.jobs.application.broker.broker_clock import BrokerClock
from mindtrace.jobs.domain.errors import BackendUnavailable, InvalidJob, InvalidSchema, JobExpired

LONG_S = 60.0


class Frame(JobInput):
    number: int = 0


class Seen(JobOutput):
    number: int


SCHEMA = JobSchema("frames", Frame, Seen, expires_s=10, retry=RetryPolicy(base_delay_s=0))
DEAD = JobSchema("frames", Frame, Seen, expires_s=10, on_expired="dead")


class Heard(Observer):
    """Records how attempts ended, and which were started."""

    def __init__(self) -> None:
        self.attempts: list[Attempt] = []
        self.begun: list[str] = []

    def started(self, queue: str, job: Job[Any]) -> None:
        self.begun.append(job.id)

    def ended(self, attempt: Attempt) -> None:
        self.attempts.append(attempt)


class Camera(Consumer[Frame, Seen]):
    """Notes which frames it was given."""

    schema = SCHEMA

    def __init__(self) -> None:
        super().__init__()
        self.ran: list[int] = []

    def run(self, job: Job[Frame]) -> Seen:
        self.ran.append(job.payload.number)
        return Seen(number=job.payload.number)


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture
def heard() -> Heard:
    return Heard()


@pytest.fixture
def jobs(clock: ManualClock, heard: Heard) -> Iterator[Orchestrator]:
    with LocalClient(clock=clock) as client:
        yield Orchestrator(client, observers=[heard])


def consumed(jobs: Orchestrator, consumer: Consumer[Any, Any]) -> ConsumeStats:
    with consumer:
        consumer.connect(jobs, poll_timeout_s=0.0)
        consumer.consume(block=False)
        return consumer.stats


def test_a_job_that_waited_for_longer_is_not_run(
    jobs: Orchestrator, clock: ManualClock, heard: Heard
) -> None:
    """It ends without an attempt, is counted apart, and is no dead letter; those in time run."""
    old = jobs.publish(SCHEMA, Frame(number=1))
    clock.advance(5)
    new = jobs.publish(SCHEMA, Frame(number=2))
    clock.advance(5)

    camera = Camera()
    stats = consumed(jobs, camera)
    assert camera.ran == [2]
    assert (stats.done, stats.expired, stats.dead) == (1, 1, 0)
    assert [(each.job_id, each.outcome, each.error) for each in heard.attempts] == [
        (old, Outcome.EXPIRED, None),
        (new, Outcome.DONE, None),
    ]
    assert heard.begun == [new]
    assert (jobs.counts(SCHEMA).dead, jobs.counts(SCHEMA).waiting) == (0, 0)
    assert jobs.status(SCHEMA, old) is JobStatus.EXPIRED
    assert jobs.status(SCHEMA, new) is JobStatus.DONE


def test_who_waits_for_an_expired_job_hears_so(jobs: Orchestrator, clock: ManualClock) -> None:
    """As an error of its own, from threads and coroutines, that survives pickling."""
    handle = jobs.queue(SCHEMA).publish(Frame())
    due = clock.now() + 10
    clock.advance(10)
    consumed(jobs, Camera())

    with pytest.raises(JobExpired, match=r"it expired at 2023-11-14 22:13:30 UTC, while it waited") as raised:
        handle.result()
    assert (raised.value.job_id, raised.value.expired_at.timestamp()) == (handle.id, due)
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.expired_at) == (str(raised.value), raised.value.expired_at)

    async def awaited() -> None:
        async with AsyncOrchestrator(jobs) as far:
            with pytest.raises(JobExpired):
                await far.result(SCHEMA, handle.id, timeout_s=LONG_S)

    asyncio.run(awaited())


def test_an_expired_job_is_dead_if_its_schema_asks_for_that(
    jobs: Orchestrator, clock: ManualClock, heard: Heard
) -> None:
    """It has a reason of its own, and its result raises the same error."""
    handle = jobs.queue(DEAD).publish(Frame())
    clock.advance(10)

    class Strict(Camera):
        schema = DEAD

    stats = consumed(jobs, Strict())
    assert (stats.dead, stats.expired) == (1, 0)
    (letter,) = jobs.dead_letters(DEAD)
    assert letter.reason == "expired"
    assert letter.error == "it expired at 2023-11-14 22:13:30 UTC, while it waited"
    assert [each.outcome for each in heard.attempts] == [Outcome.DEAD]
    assert handle.status() is JobStatus.FAILED
    with pytest.raises(JobExpired):
        handle.result()


def test_a_job_that_died_of_something_else_has_not_expired(jobs: Orchestrator) -> None:
    class Broken(Camera):
        def run(self, job: Job[Frame]) -> Seen:
            raise JobExpired("another", job.created_at)

        retry = RetryPolicy(max_attempts=1)

    handle = jobs.queue(SCHEMA).publish(Frame())
    consumed(jobs, Broken())
    with pytest.raises(JobFailed) as raised:
        handle.result()
    assert type(raised.value) is JobFailed


def test_the_time_begins_when_the_job_may_run(jobs: Orchestrator, clock: ManualClock) -> None:
    """A delay comes before it (DLY-1)."""
    jobs.publish(SCHEMA, Frame(number=1), delay_s=60)
    clock.advance(69)
    jobs.publish(SCHEMA, Frame(number=2), delay_s=60)
    camera = Camera()
    consumed(jobs, camera)
    clock.advance(70)
    consumed(jobs, camera)
    assert camera.ran == [1]


@pytest.mark.parametrize("seconds", [3, 30])
def test_a_publish_may_say_for_how_long(jobs: Orchestrator, clock: ManualClock, seconds: float) -> None:
    """In place of the schema, for one job or a batch; a job may also say when."""
    ids = [jobs.publish(SCHEMA, Frame(), expires_s=seconds)]
    ids += [handle.id for handle in jobs.publish_batch(SCHEMA, [Frame(), Frame()], expires_s=seconds)]
    clock.advance(seconds - 0.5)
    made = jobs.receive_message(SCHEMA)
    assert made is not None
    assert made.id == ids[0]
    jobs.publish(SCHEMA, made)  # which keeps its moment
    clock.advance(0.5)
    assert jobs.receive_message(SCHEMA) is None
    assert jobs.counts(SCHEMA).waiting == 0
    assert [jobs.status(SCHEMA, id_) for id_ in ids] == [JobStatus.EXPIRED] * 3


def test_from_coroutines_too(jobs: Orchestrator, clock: ManualClock) -> None:
    async def publish() -> list[str]:
        async with AsyncOrchestrator(jobs) as far:
            queue = await far.queue(SCHEMA)
            first = await queue.publish(Frame(), expires_s=3)
            return [first.id, *(each.id for each in await queue.publish_batch([Frame()], expires_s=3))]

    ids = asyncio.run(publish())
    clock.advance(3)
    assert jobs.receive_message(SCHEMA) is None
    assert [jobs.status(SCHEMA, id_) for id_ in ids] == [JobStatus.EXPIRED] * 2


def test_a_job_that_failed_is_not_run_again_once_it_has_expired(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    class Slow(Camera):
        def run(self, job: Job[Frame]) -> Seen:
            self.ran.append(job.attempt)
            clock.advance(4)
            raise ValueError("no")

        retry = RetryPolicy(max_attempts=10, base_delay_s=0)

    slow = Slow()
    handle = jobs.queue(SCHEMA).publish(Frame())
    consumed(jobs, slow)
    assert slow.ran == [1, 2, 3]
    with pytest.raises(JobExpired):
        handle.result()


def test_an_expired_job_of_a_batch_is_left_out(jobs: Orchestrator, clock: ManualClock) -> None:
    class Batches(BatchConsumer[Frame, Seen]):
        schema = SCHEMA
        batch_size = 10

        def run_batch(self, jobs: Sequence[Job[Frame]]) -> list[Seen]:
            numbers.append([job.payload.number for job in jobs])
            return [Seen(number=job.payload.number) for job in jobs]

    numbers: list[list[int]] = []
    jobs.publish_batch(SCHEMA, [Frame(number=1), Frame(number=2)])
    clock.advance(10)
    jobs.publish_batch(SCHEMA, [Frame(number=3), Frame(number=4)])
    stats = consumed(jobs, Batches())
    assert numbers == [[3, 4]]
    assert (stats.done, stats.expired) == (2, 2)


def test_next_jobs_expire_too(jobs: Orchestrator, clock: ManualClock) -> None:
    """By the moment when their handler returned them."""
    later = JobSchema("later", Frame, expires_s=10)

    class First(Camera):
        def run(self, job: Job[Frame]) -> Then[Seen]:  # type: ignore[override]
            return Then(later, Frame(), delay_s=5)

    jobs.register(later)
    jobs.publish(SCHEMA, Frame())
    consumed(jobs, First())
    clock.advance(14)
    job = jobs.receive_message(later)
    assert job is not None
    assert job.expires_at is not None
    assert job.expires_at.timestamp() == clock.now() + 1


def test_scheduled_jobs_expire_too(jobs: Orchestrator, clock: ManualClock) -> None:
    """From the moment when they are published."""
    jobs.register(SCHEMA)
    jobs.schedule("often", SCHEMA, every=timedelta(minutes=1))
    for waited_s, runs in ((9, True), (10, False)):
        jobs.schedules.run("often")
        clock.advance(waited_s)
        assert (jobs.receive_message(SCHEMA) is not None) is runs


def test_a_unique_job_that_has_expired_frees_its_key(jobs: Orchestrator, clock: ManualClock) -> None:
    class Once(Camera):
        schema = JobSchema("once", Frame, Seen, expires_s=10, unique=Unique())

    first = jobs.publish(Once.schema, Frame())
    assert jobs.publish(Once.schema, Frame()) == first
    clock.advance(10)
    assert consumed(jobs, Once()).expired == 1
    assert jobs.publish(Once.schema, Frame()) != first


def test_expired_jobs_use_up_no_turn_of_a_rate(jobs: Orchestrator, clock: ManualClock) -> None:
    """Or a backlog of them would keep those from running that are in time."""

    class Rated(Camera):
        schema = JobSchema("rated", Frame, Seen, expires_s=10, rate=Rate(1, per_s=3600))

    for number in range(50):
        jobs.publish(Rated.schema, Frame(number=number))
    clock.advance(10)
    jobs.publish(Rated.schema, Frame(number=50))
    camera = Rated()
    with camera:
        camera.connect(jobs)
        camera.consume(51)
        assert (camera.stats.expired, camera.stats.done) == (50, 1)
    assert camera.ran == [50]


@pytest.mark.parametrize("wrong", [0, -1, "10", timedelta(seconds=1), float("nan")])
def test_a_time_that_is_none_is_refused(jobs: Orchestrator, wrong: Any) -> None:
    with pytest.raises(InvalidSchema, match="expires_s"):
        JobSchema("frames", Frame, expires_s=wrong)
    with pytest.raises(InvalidJob, match="expires_s"):
        jobs.publish(SCHEMA, Frame(), expires_s=wrong)


def test_jobs_that_do_not_expire_ask_no_clock(jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch) -> None:
    """It may take a round trip."""

    class Plain(Camera):
        schema = JobSchema("plain", Frame, Seen)

    asked: list[int] = []
    monkeypatch.setattr(BrokerClock, "__call__", lambda _: asked.append(1) or 0.0)
    jobs.publish(Plain.schema, Frame())
    assert consumed(jobs, Plain()).done == 1
    assert not asked


# -- the clock ------------------------------------------------------------------------------------


class Store:
    """A store in another process, whose clock isn't this machine's."""

    def __init__(self) -> None:
        self.asked = 0
        self.is_away = False

    def now(self) -> float:
        self.asked += 1
        if self.is_away:
            raise BackendUnavailable("away")
        return 5_000.0


class Far:
    """The part of a backend that the clock sees."""

    def __init__(self, *, coordination: bool = True) -> None:
        from mindtrace.jobs.ports import Durability

        self.coordination = Store()
        self.capabilities = type("C", (), {"coordination": coordination, "durability": Durability.FSYNC})


@pytest.fixture
def machine(monkeypatch: pytest.MonkeyPatch) -> ManualClock:
    """The clocks of this machine, which the test moves together."""
    clock = ManualClock()
    monkeypatch.setattr(broker_clock, "monotonic", clock.now)
    monkeypatch.setattr(broker_clock, "time", clock.now)
    return clock


def test_the_broker_is_asked_now_and_then(machine: ManualClock) -> None:
    far = Far()
    clock = BrokerClock(far)  # type: ignore[arg-type]
    assert clock() == 5_000
    machine.advance(9)
    assert (clock(), far.coordination.asked) == (5_009, 1)
    machine.advance(1)
    assert (clock(), far.coordination.asked) == (5_000, 2)


def test_the_broker_is_asked_at_once_if_the_machine_slept(
    machine: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Then the steady clock stood still, or somebody set the other one."""
    far = Far()
    clock = BrokerClock(far)  # type: ignore[arg-type]
    clock()
    monkeypatch.setattr(broker_clock, "time", lambda: machine.now() + 2)
    assert (clock(), far.coordination.asked) == (5_000, 2)


def test_an_outage_of_the_store_changes_no_time(machine: ManualClock) -> None:
    """The last answer counts on, and it is asked again after as long."""
    far = Far()
    clock = BrokerClock(far)  # type: ignore[arg-type]
    far.coordination.is_away = True
    assert clock() == machine.now()
    far.coordination.is_away = False
    machine.advance(10)
    assert clock() == 5_000
    far.coordination.is_away = True
    machine.advance(15)
    assert (clock(), far.coordination.asked) == (5_015, 3)
    machine.advance(5)
    assert (clock(), far.coordination.asked) == (5_020, 3)


def test_without_a_store_the_time_is_the_machines(machine: ManualClock) -> None:
    far = Far(coordination=False)
    assert BrokerClock(far)() == machine.now()  # type: ignore[arg-type]
    assert far.coordination.asked == 0


def test_a_job_that_ran_has_failed_if_its_next_job_is_refused_after_it_would_expire(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    """It was in time. So it isn't acked as one that never ran, which would drop its next job unseen."""
    following = JobSchema("following", Frame)
    jobs.register(following)

    class Chains(Camera):
        schema = JobSchema("frames", Frame, Seen, expires_s=10, retry=RetryPolicy(max_attempts=1))

        def run(self, job: Job[Frame]) -> Any:
            jobs.backend.delete("following")
            clock.advance(20)
            return Then(following, Frame())

    jobs.publish(Chains.schema, Frame())
    stats = consumed(jobs, Chains())
    assert (stats.dead, stats.expired) == (1, 0)
    (letter,) = jobs.dead_letters("frames")
    assert "its next jobs couldn't be published" in letter.error
