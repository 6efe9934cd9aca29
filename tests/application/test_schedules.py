"""Schedules: how they are defined and changed, and the scheduler that publishes their jobs."""

import asyncio
import json
import logging
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from itertools import count
from typing import Any

import pytest

from mindtrace.jobs import (
    AsyncOrchestrator,
    Capabilities,
    Consumer,
    Cron,
    Every,
    Job,
    JobInput,
    JobSchema,
    LocalClient,
    Orchestrator,
    Schedule,
    Scheduler,
    errors,
    job_handler,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.local.coordination import LocalCoordinationStore
from mindtrace.jobs.ports import Guard, Message, PublishOutcome, PublishStatus

START = datetime.fromtimestamp(ManualClock().now(), UTC)
"""The broker's time when a test begins: 22:13:20 in UTC."""
HOUR = timedelta(hours=1)


class Wait:
    """Has a thread stand still before a guarded publish, as a machine that sleeps does."""

    def __init__(self) -> None:
        self.entered, self.leave = threading.Event(), threading.Event()


class ScheduledClient(LocalClient):
    """Queues in memory whose guarded publish may fail, or take long."""

    fails_with: Exception | None = None
    waits: Wait | None = None
    loses_answers = 0

    def publish_guarded(self, queue: str, message: Message, guard: Guard) -> PublishOutcome | None:
        if (waits := self.waits) is not None:
            self.waits = None
            waits.entered.set()
            assert waits.leave.wait(60)
        if self.fails_with is not None:
            raise self.fails_with
        outcome = super().publish_guarded(queue, message, guard)
        if outcome is not None and self.loses_answers:
            self.loses_answers -= 1
            return PublishOutcome(message.id, PublishStatus.UNKNOWN)
        return outcome


@pytest.fixture
def broker(clock: ManualClock) -> Iterator[ScheduledClient]:
    with ScheduledClient(clock=clock) as client:
        yield client


@pytest.fixture
def jobs(broker: ScheduledClient, schema: JobSchema[Any, Any]) -> Orchestrator:
    orchestrator = Orchestrator(broker)
    orchestrator.register(schema)
    return orchestrator


@pytest.fixture
def start(jobs: Orchestrator, eventually: Any) -> Iterator[Callable[..., Scheduler]]:
    """Start a scheduler on a thread."""
    started: list[Scheduler] = []

    def make(**options: Any) -> Scheduler:
        scheduler = Scheduler(jobs, **{"poll_s": 0.001, **options})
        scheduler.__enter__()
        started.append(scheduler)
        return scheduler

    yield make
    for scheduler in started:
        scheduler.__exit__(None, None, None)


def ready(jobs: Orchestrator, queue: str = "points") -> list[Job[Any]]:
    return list(iter(lambda: jobs.receive_message(queue), None))


def one_pass(jobs: Orchestrator) -> float:
    """Have a scheduler look once, and return in how many seconds it would look again."""
    return Scheduler(jobs)._pass()


def passes(jobs: Orchestrator) -> None:
    """Have a scheduler look until nothing is due."""
    while one_pass(jobs) == 0:
        pass


# -- definitions -----------------------------------------------------------------------------------


def test_a_schedule_is_defined_and_listed(jobs: Orchestrator, schema: JobSchema[Any, Any]) -> None:
    defined = jobs.schedule("nightly", schema, {"x": 1}, cron="0 3 * * *", timezone="Europe/Vienna")
    jobs.schedule("hourly", "points", every=HOUR, misfire="all")

    hourly, nightly = jobs.schedules.list()
    assert nightly == defined
    assert nightly == Schedule(
        name="nightly",
        queue="points",
        schema_name="points",
        payload={"x": 1.0, "y": 0.0},
        when=Cron("0 3 * * *", "Europe/Vienna"),
        next_slot=datetime(2023, 11, 15, 2, tzinfo=UTC),
    )
    assert (hourly.when, hourly.payload) == (Every(HOUR, misfire="all"), {"x": 0.0, "y": 0.0})
    assert hourly.last_job_id is None


def test_the_same_definition_again_changes_nothing(jobs: Orchestrator, broker: ScheduledClient) -> None:
    """Not even the version, so that it never comes between a scheduler and its slot."""
    first = jobs.schedule("hourly", "points", {"x": 1}, every=HOUR)
    version = broker.coordination.get(["schedules/hourly"])["schedules/hourly"].version

    assert jobs.schedule("hourly", "points", {"x": 1}, every=HOUR) == first
    assert broker.coordination.get(["schedules/hourly"])["schedules/hourly"].version == version


def test_another_payload_keeps_the_slots(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.schedule("hourly", "points", {"x": 1}, every=HOUR)
    passes(jobs)
    clock.advance(3000)
    changed = jobs.schedule("hourly", "points", {"x": 2}, every=HOUR, misfire="all")

    assert changed.next_slot == datetime(2023, 11, 14, 23, tzinfo=UTC)
    passes(jobs)
    assert [job.payload.x for job in ready(jobs)] == [2.0]
    assert jobs.schedules.list()[0].next_slot == datetime(2023, 11, 15, tzinfo=UTC)


def test_other_slots_begin_after_now(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.schedule("report", "points", every=HOUR)
    changed = jobs.schedule("report", "points", cron="30 22 * * *")

    assert changed.next_slot == datetime(2023, 11, 14, 22, 30, tzinfo=UTC)


def test_a_slot_that_is_due_is_not_lost_to_a_change(jobs: Orchestrator, clock: ManualClock) -> None:
    """Nor doubled: it is published once, and then the new slots are."""
    jobs.schedule("report", "points", {"x": 1}, every=HOUR)
    clock.advance(3600)
    changed = jobs.schedule("report", "points", {"x": 1}, cron="30 * * * *", misfire="all")
    assert changed.next_slot == datetime(2023, 11, 14, 23, tzinfo=UTC)

    passes(jobs)
    clock.advance(3600)
    passes(jobs)
    assert [job.id for job in ready(jobs)] == ["report.20231114T230000Z", "report.20231114T233000Z"]


DAY_1, DAY_2 = "2023-11-15T03:00", "2023-11-16T03:00"
"""The first slots of :func:`nightly`."""


def nightly(jobs: Orchestrator, misfire: Any = "latest", grace_s: float = 60.0) -> Schedule:
    return jobs.schedule("report", "points", cron="0 3 * * *", misfire=misfire, grace_s=grace_s)


def to(clock: ManualClock, moment: str) -> None:
    """Let time go by until then, in UTC."""
    clock.advance(datetime.fromisoformat(f"{moment}Z").timestamp() - clock.now())


def slots(jobs: Orchestrator) -> list[str]:
    """Have a scheduler publish what is due, and return its slots."""
    passes(jobs)
    return [job.headers["slot"][:16] for job in ready(jobs)]


@pytest.mark.parametrize("new", ["skip", "latest", "all"])
@pytest.mark.parametrize(
    ("old", "due"),
    [("skip", []), ("latest", [DAY_2]), ("all", [DAY_1, DAY_2])],
)
def test_what_is_due_is_published_as_the_old_policy_says_and_no_new_slot_that_passed(
    jobs: Orchestrator, clock: ManualClock, old: Any, new: Any, due: list[str]
) -> None:
    nightly(jobs, old)
    to(clock, "2023-11-16T06:00:30")
    jobs.schedule("report", "points", every=timedelta(minutes=1), misfire=new)
    assert slots(jobs) == due
    assert jobs.schedules.list()[0].next_slot == datetime(2023, 11, 16, 6, 1, tzinfo=UTC)

    to(clock, "2023-11-16T06:01")
    assert slots(jobs) == ["2023-11-16T06:01"]


@pytest.mark.parametrize(("at", "due"), [("03:09", [DAY_1]), ("03:11", [])])
def test_a_slot_that_is_skipped_when_it_is_late_is_so_after_another_definition(
    jobs: Orchestrator, clock: ManualClock, at: str, due: list[str]
) -> None:
    nightly(jobs, "skip", grace_s=600)
    to(clock, "2023-11-15T03:05")
    jobs.schedule("report", "points", every=HOUR)
    to(clock, f"2023-11-15T{at}")

    assert slots(jobs) == due
    assert jobs.schedules.list()[0].next_slot == datetime(2023, 11, 15, 4, tzinfo=UTC)


def test_slots_that_both_definitions_have_missed_come_as_each_says(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    """Those of each from the moment on at which it was made."""
    nightly(jobs, "latest")
    to(clock, "2023-11-16T06:30")
    jobs.schedule("report", "points", every=HOUR, misfire="all")
    to(clock, "2023-11-16T09:30")

    assert slots(jobs) == [DAY_2, *(f"2023-11-16T0{hour}:00" for hour in (7, 8, 9))]


@pytest.mark.parametrize(("old", "due"), [("skip", []), ("latest", [DAY_2]), ("all", [DAY_1, DAY_2])])
def test_a_definition_that_another_replaced_before_a_scheduler_came_has_no_slots(
    jobs: Orchestrator, clock: ManualClock, old: Any, due: list[str]
) -> None:
    """What was due before it is still published."""
    nightly(jobs, old)
    to(clock, "2023-11-15T06:00")
    jobs.schedule("report", "points", every=timedelta(minutes=1), misfire="all")
    to(clock, "2023-11-16T06:30")
    jobs.schedule("report", "points", every=HOUR, misfire="all")

    assert slots(jobs) == due
    assert jobs.schedules.list()[0].next_slot == datetime(2023, 11, 16, 7, tzinfo=UTC)


def test_what_is_due_outlives_the_same_definition_and_another_payload(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock
) -> None:
    nightly(jobs)
    to(clock, "2023-11-15T06:30")
    defined = jobs.schedule("report", "points", every=HOUR)
    version = broker.coordination.get(["schedules/report"])["schedules/report"].version
    to(clock, "2023-11-15T07:30")
    assert jobs.schedule("report", "points", every=HOUR) == defined == jobs.schedules.list()[0]
    assert broker.coordination.get(["schedules/report"])["schedules/report"].version == version

    jobs.schedule("report", "points", {"x": 2}, every=HOUR, misfire="all")
    assert slots(jobs) == [DAY_1, "2023-11-15T07:00"]


@pytest.mark.parametrize(
    ("misfire", "due"), [("skip", []), ("latest", []), ("all", [DAY_1, "2023-11-15T07:00"])]
)
def test_what_is_due_of_the_old_definition_passes_in_a_pause_as_other_slots(
    jobs: Orchestrator, clock: ManualClock, misfire: Any, due: list[str]
) -> None:
    nightly(jobs)
    to(clock, "2023-11-15T06:30")
    jobs.schedule("report", "points", every=HOUR, misfire=misfire)
    jobs.schedules.pause("report")
    to(clock, "2023-11-15T07:30")
    jobs.schedules.run("report")
    assert [dict(job.headers) for job in ready(jobs)] == [{"schedule": "report"}]
    jobs.schedules.resume("report")
    assert slots(jobs) == due

    to(clock, "2023-11-15T08:00")
    assert slots(jobs) == ["2023-11-15T08:00"]


def test_a_record_says_what_came_before_only_until_that_was_published(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock
) -> None:
    """Older releases pass over the field, and what they write lacks it."""

    def fields() -> dict[str, Any]:
        record = broker.coordination.get(["schedules/report"])["schedules/report"]
        found: dict[str, Any] = json.loads(record.value)
        return found

    nightly(jobs)
    before = fields()
    to(clock, "2023-11-15T06:30")
    jobs.schedule("report", "points", every=HOUR)
    assert fields().keys() == {"every_s", "earlier"} | before.keys() - {"cron", "timezone"}

    passes(jobs)
    assert "earlier" not in fields()


def test_many_workers_define_it_at_once(jobs: Orchestrator, background: Any) -> None:
    barrier = threading.Barrier(8)

    def define() -> Schedule:
        barrier.wait(60)
        return jobs.schedule("hourly", "points", {"x": 1}, every=HOUR)

    defined = [future.result(60) for future in [background(define) for _ in range(8)]]
    assert defined == [jobs.schedules.list()[0]] * 8


def test_a_payload_is_validated_when_it_is_scheduled(jobs: Orchestrator) -> None:
    with pytest.raises(errors.InvalidPayload, match="x"):
        jobs.schedule("hourly", "points", {"x": "far"}, every=HOUR)
    with pytest.raises(errors.InvalidPayload, match="z"):
        jobs.schedule("hourly", "points", {"z": 1}, every=HOUR)
    assert jobs.schedules.list() == ()


class Text(JobInput):
    text: str


@pytest.mark.parametrize(
    ("arguments", "error", "remedy"),
    [
        ({}, errors.InvalidInput, "give either cron= or every="),
        ({"cron": "0 3 * * *", "every": HOUR}, errors.InvalidInput, "give either cron= or every="),
        ({"every": HOUR, "timezone": "Europe/Vienna"}, errors.InvalidInput, "timezone= goes with cron="),
        ({"name": "a b", "every": HOUR}, errors.InvalidName, "schedule name"),
        ({"name": "a" * 101, "every": HOUR}, errors.InvalidName, "at most 100 characters"),
        ({"queue_name": "nowhere", "every": HOUR}, errors.QueueNotFound, "register its schema"),
        ({"every": HOUR, "priority": 3}, errors.InvalidJob, 'queue_type="priority"'),
        ({"every": HOUR, "payload": {"text": "a" * 60_000}}, errors.BodyTooLarge, "60,000 are the most"),
    ],
    ids=["nothing", "both", "zone", "name", "long name", "no queue", "priority", "too large"],
)
def test_what_cannot_be_scheduled_is_refused(
    jobs: Orchestrator, arguments: dict[str, Any], error: type[Exception], remedy: str
) -> None:
    jobs.register(JobSchema("texts", Text))
    with pytest.raises(error, match=remedy):
        jobs.schedule(**{"name": "it", "queue_name": "texts", "payload": {"text": "a"}, **arguments})


def test_a_backend_without_a_store_is_refused(schema: JobSchema[Any, Any]) -> None:
    class Storeless(LocalClient):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, coordination=False, guarded_publish=False)

    with Storeless() as client:
        jobs = Orchestrator(client)
        jobs.register(schema)
        with pytest.raises(errors.UnsupportedCapability, match="schedules need a coordination store"):
            jobs.schedule("hourly", schema, every=HOUR)
        with pytest.raises(errors.UnsupportedCapability, match="schedules need a coordination store"):
            Scheduler(jobs)


def test_coroutines_do_the_same(jobs: Orchestrator) -> None:
    async def work() -> None:
        async with AsyncOrchestrator(jobs) as awaited:
            defined = await awaited.schedule("hourly", "points", {"x": 1}, every=HOUR, misfire="all")
            assert await awaited.schedules.list() == (defined,)
            assert (await awaited.schedules.pause("hourly")).paused
            assert not (await awaited.schedules.resume("hourly")).paused
            job_id = await awaited.schedules.run("hourly")
            assert [job.id for job in ready(jobs)] == [job_id]
            await awaited.schedules.remove("hourly")
            with pytest.raises(errors.ScheduleNotFound):
                await awaited.schedules.pause("hourly")

    asyncio.run(work())


# -- pause, resume, run, remove --------------------------------------------------------------------


def test_a_paused_schedule_publishes_nothing(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.schedule("hourly", "points", every=HOUR)
    assert jobs.schedules.pause("hourly").paused
    clock.advance(2 * 3600)
    passes(jobs)

    assert ready(jobs) == []
    assert jobs.schedule("hourly", "points", {"x": 1}, every=HOUR).paused, "a new definition ended the pause"


@pytest.mark.parametrize(("misfire", "count"), [("skip", 0), ("latest", 0), ("all", 2)])
def test_what_passed_in_a_pause_is_published_only_if_all_are_wanted(
    jobs: Orchestrator, clock: ManualClock, misfire: Any, count: int
) -> None:
    jobs.schedule("hourly", "points", every=HOUR, misfire=misfire)
    jobs.schedules.pause("hourly")
    clock.advance(2 * 3600)
    jobs.schedules.resume("hourly")
    passes(jobs)
    assert len(ready(jobs)) == count

    clock.advance(2800)
    passes(jobs)
    assert [job.id for job in ready(jobs)] == ["hourly.20231115T010000Z"]


def test_resuming_what_is_not_paused_changes_nothing(jobs: Orchestrator, clock: ManualClock) -> None:
    """Not even a slot that is due."""
    before = jobs.schedule("hourly", "points", every=HOUR)
    clock.advance(3600)

    assert jobs.schedules.resume("hourly") == before


def test_a_job_is_run_now_beside_the_slots(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.schedule("hourly", "points", {"x": 3}, every=HOUR)
    jobs.schedules.pause("hourly")
    job_id = jobs.schedules.run("hourly")
    before = jobs.schedules.list()

    (job,) = ready(jobs)
    assert (job.id, job.payload.x, dict(job.headers)) == (job_id, 3.0, {"schedule": "hourly"})
    assert jobs.schedules.list() == before


def test_a_removed_schedule_publishes_nothing(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.schedule("hourly", "points", every=HOUR)
    jobs.schedules.remove("hourly")
    clock.advance(3600)
    passes(jobs)

    assert ready(jobs) == []
    assert jobs.schedules.list() == ()


@pytest.mark.parametrize("method", ["pause", "resume", "run", "remove"])
def test_what_is_not_defined_is_not_found(jobs: Orchestrator, method: str) -> None:
    with pytest.raises(errors.ScheduleNotFound, match="schedule 'nightly': not defined"):
        getattr(jobs.schedules, method)("nightly")


def test_a_change_is_made_though_others_change_it_meanwhile(
    jobs: Orchestrator, broker: ScheduledClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    jobs.schedule("hourly", "points", {"x": 1}, every=HOUR)
    store = broker.coordination
    put, others = store.put, [lambda: jobs.schedule("hourly", "points", {"x": 2}, every=HOUR)]

    def put_late(*arguments: Any, **options: Any) -> int | None:
        if others:
            others.pop()()
        return put(*arguments, **options)

    monkeypatch.setattr(type(store), "put", lambda _, *arguments, **options: put_late(*arguments, **options))
    paused = jobs.schedules.pause("hourly")
    assert (paused.paused, paused.payload["x"]) == (True, 2.0)


# -- on the class ----------------------------------------------------------------------------------


class Tick(JobInput):
    size: int = 5


def test_a_consumer_brings_its_schedule(jobs: Orchestrator, clock: ManualClock) -> None:
    """Its jobs have the defaults of the model."""
    seen: list[Job[Tick]] = []

    class Ticker(Consumer):
        schema = JobSchema("ticks", Tick)
        schedule = Every(HOUR)

        def run(self, job: Job[Tick]) -> None:
            seen.append(job)

    with Ticker() as one, Ticker() as other:
        one.connect(jobs)
        other.connect(jobs)
        clock.advance(3600)
        passes(jobs)
        one.consume_until_empty()

    (job,) = seen
    assert job.payload == Tick(size=5)
    assert dict(job.headers) == {"schedule": "ticks", "slot": "2023-11-14T23:00:00+00:00"}


def test_who_defines_a_schedule_is_told_who_publishes_it(
    jobs: Orchestrator, caplog: pytest.LogCaptureFixture
) -> None:
    """Unless a scheduler was made here, as by a worker with ``--schedules``."""
    caplog.set_level(logging.INFO)
    jobs.schedule("hourly", "points", every=HOUR)
    assert caplog.messages[-1].endswith("mindtrace-jobs scheduler publishes it, or a worker with --schedules")

    Scheduler(jobs)
    jobs.schedule("hourly", "points", every=HOUR)
    assert caplog.messages[-1] == "schedule hourly: its next job is due at 2023-11-14T23:00:00+00:00"


def test_a_function_brings_its_schedule(jobs: Orchestrator) -> None:
    @job_handler(JobSchema("ticks", Tick), schedule=Cron("0 3 * * *"))
    def tick(job: Job[Tick]) -> None: ...

    with tick.consumer(queue="other") as consumer:
        consumer.connect(jobs)

    (schedule,) = jobs.schedules.list()
    assert (schedule.name, schedule.queue, schedule.schema_name) == ("other", "other", "ticks")


def test_a_class_whose_model_needs_values_cannot_have_one(jobs: Orchestrator) -> None:
    class Reader(Consumer):
        schema = JobSchema("texts", Text)
        schedule = Every(HOUR)

        def run(self, job: Job[Text]) -> None: ...

    remedy = r"no payload was given, .*\(text: Field required\); pass one: orchestrator.schedule\("
    with Reader() as reader, pytest.raises(errors.InvalidPayload, match=remedy):
        reader.connect(jobs)


# -- the scheduler ---------------------------------------------------------------------------------


def test_a_job_is_published_at_its_slot_and_not_before(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.schedule("hourly", "points", {"x": 1}, every=HOUR)
    clock.advance((datetime(2023, 11, 14, 23, tzinfo=UTC) - START).total_seconds() - 0.5)
    assert one_pass(jobs) == pytest.approx(0.5)
    assert ready(jobs) == []

    clock.advance(0.5)
    passes(jobs)
    (job,) = ready(jobs)
    assert (job.id, job.payload.x) == ("hourly.20231114T230000Z", 1.0)
    (schedule,) = jobs.schedules.list()
    assert schedule.last_slot == datetime(2023, 11, 14, 23, tzinfo=UTC)
    assert schedule.next_slot == datetime(2023, 11, 15, 0, tzinfo=UTC)
    assert schedule.last_job_id == job.id


def test_a_scheduler_looks_every_second_at_least(jobs: Orchestrator) -> None:
    """To see what others have changed."""
    assert one_pass(jobs) == 1.0
    jobs.schedule("hourly", "points", every=HOUR)
    assert one_pass(jobs) == 1.0


@pytest.mark.parametrize(
    ("misfire", "published"),
    [
        ("latest", ["hourly.20231115T020000Z"]),
        (
            "all",
            [f"hourly.20231114T{hour}0000Z" for hour in (23,)]
            + [f"hourly.20231115T0{n}0000Z" for n in range(3)],
        ),
        ("skip", []),
    ],
)
def test_what_was_missed_is_published_as_the_policy_says(
    jobs: Orchestrator, clock: ManualClock, misfire: Any, published: list[str]
) -> None:
    """After four slots without a scheduler, twenty minutes before the fifth."""
    jobs.schedule("hourly", "points", every=HOUR, misfire=misfire)
    clock.advance(4 * 3600 + 1600)
    passes(jobs)
    assert [job.id for job in ready(jobs)] == published

    clock.advance(1200)
    passes(jobs)
    assert [job.id for job in ready(jobs)] == ["hourly.20231115T030000Z"]


def test_missed_slots_are_caught_up_without_a_look_at_all_schedules_for_each(
    jobs: Orchestrator, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A thousand others would have to be read for each slot. In one look each schedule gets its turn."""
    monkeypatch.setattr("mindtrace.jobs.application.schedules.scheduler._CATCH_UP_S", 3600.0)
    for name in ("a", "b"):
        jobs.schedule(name, "points", every=HOUR, misfire="all")
    jobs.schedule("latest", "points", every=HOUR)
    clock.advance(3 * 3600)
    scan, looks = LocalCoordinationStore.scan, []

    def look(store: LocalCoordinationStore, prefix: str) -> Any:
        looks.append(prefix)
        return scan(store, prefix)

    monkeypatch.setattr(LocalCoordinationStore, "scan", look)
    assert one_pass(jobs) == 0
    assert looks == ["schedules/"]
    published = [(job.headers["schedule"], job.headers["slot"][11:16]) for job in ready(jobs)]
    assert published == [
        *(("a", "23:00"), ("b", "23:00"), ("latest", "01:00")),
        *(("a", "00:00"), ("b", "00:00"), ("a", "01:00"), ("b", "01:00")),
    ]


def test_a_long_backlog_of_one_schedule_lets_others_be_looked_at(
    jobs: Orchestrator, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("mindtrace.jobs.application.schedules.scheduler._CATCH_UP_S", 0.0)
    jobs.schedule("all", "points", every=HOUR, misfire="all")
    clock.advance(3 * 3600)
    assert one_pass(jobs) == 0
    assert len(ready(jobs)) == 1


def test_a_scheduler_that_stood_still_for_an_hour_doubles_nothing(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock, background: Any
) -> None:
    """Between reading what is due and publishing it."""
    jobs.schedule("hourly", "points", every=HOUR)
    clock.advance(3600)
    waits = broker.waits = Wait()
    late = background(one_pass, jobs)
    assert waits.entered.wait(60)

    passes(jobs)
    clock.advance(3600)
    passes(jobs)
    waits.leave.set()
    assert late.result(60) > 0
    assert [job.id for job in ready(jobs)] == ["hourly.20231114T230000Z", "hourly.20231115T000000Z"]


def test_of_two_schedulers_one_publishes_what_is_due_of_the_old_definition(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock, background: Any
) -> None:
    """One stands still with the record before the other definition, another with the one after it."""
    nightly(jobs, "all")
    to(clock, "2023-11-16T06:30")
    late = []
    for define in (lambda: jobs.schedule("report", "points", every=HOUR / 60, misfire="all"), lambda: None):
        waits = broker.waits = Wait()
        late.append((waits, background(one_pass, jobs)))
        assert waits.entered.wait(60)
        define()
    assert slots(jobs) == [DAY_1, DAY_2]

    for waits, ended in late:
        waits.leave.set()
        ended.result(60)
    assert slots(jobs) == []
    assert jobs.schedules.list()[0].next_slot == datetime(2023, 11, 16, 6, 31, tzinfo=UTC)


@pytest.mark.parametrize("change", ["pause", "remove"])
def test_a_scheduler_that_stood_still_publishes_nothing_that_was_paused_or_removed(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock, background: Any, change: str
) -> None:
    jobs.schedule("hourly", "points", every=HOUR)
    clock.advance(3600)
    waits = broker.waits = Wait()
    late = background(one_pass, jobs)
    assert waits.entered.wait(60)
    getattr(jobs.schedules, change)("hourly")

    waits.leave.set()
    late.result(60)
    assert ready(jobs) == []


class Beside(LocalClient):
    """A broker whose records are in another system. ``during`` happens while it publishes."""

    during: Callable[[], object] | None = None

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, guarded_publish=False, dedupe=False)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        during, self.during = self.during, None
        if during is not None:
            during()
        again = [message._replace(id=f"{message.id}.{next(self._numbers)}") for message in messages]
        return super().publish(queue, again)

    _numbers = count()


@pytest.mark.parametrize("change", ["define", "pause", "remove"])
def test_a_slot_has_one_job_also_if_its_schedule_is_changed_meanwhile_in_another_system(
    clock: ManualClock, schema: JobSchema[Any, Any], change: str
) -> None:
    with Beside(clock=clock) as broker:
        jobs = Orchestrator(broker)
        jobs.register(schema)
        jobs.schedule("hourly", "points", {"x": 1}, every=HOUR)
        clock.advance(3600)
        broker.during = {
            "define": lambda: jobs.schedule("hourly", "points", {"x": 2}, every=HOUR),
            "pause": lambda: jobs.schedules.pause("hourly"),
            "remove": lambda: jobs.schedules.remove("hourly"),
        }[change]
        passes(jobs)
        if change == "pause":
            jobs.schedules.resume("hourly")
            passes(jobs)
        assert jobs.counts("points").ready == 1
        clock.advance(3600)
        passes(jobs)
        assert jobs.counts("points").ready == (1 if change == "remove" else 2)


@pytest.mark.parametrize(("old", "due"), [("latest", [DAY_2]), ("all", [DAY_1, DAY_2])])
@pytest.mark.parametrize("meanwhile", [False, True], ids=["before", "meanwhile"])
def test_no_new_slot_that_passed_is_published_where_the_records_are_in_another_system(
    clock: ManualClock, schema: JobSchema[Any, Any], old: Any, due: list[str], meanwhile: bool
) -> None:
    """Whether the other definition comes before the slot is published, or meanwhile."""
    with Beside(clock=clock) as broker:
        jobs = Orchestrator(broker)
        jobs.register(schema)
        nightly(jobs, old)
        to(clock, "2023-11-16T06:00:30")

        def redefine() -> None:
            jobs.schedule("report", "points", every=timedelta(minutes=1), misfire="all")

        if meanwhile:
            broker.during = redefine
        else:
            redefine()
        assert slots(jobs) == due
        assert jobs.schedules.list()[0].next_slot == datetime(2023, 11, 16, 6, 1, tzinfo=UTC)


def test_a_slot_that_was_published_before_its_schedule_has_other_slots_has_one_job(
    clock: ManualClock, schema: JobSchema[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    """Though the other definition began a second before the slot, and has the same one."""
    with Beside(clock=clock) as broker:
        jobs = Orchestrator(broker)
        jobs.register(schema)
        jobs.schedule("report", "points", every=HOUR)
        to(clock, "2023-11-15T00:00")

        def redefine() -> None:
            with monkeypatch.context() as patched:
                patched.setattr(LocalCoordinationStore, "now", lambda _: clock.now() - 1)
                jobs.schedule("report", "points", every=HOUR / 2)

        broker.during = redefine
        assert slots(jobs) == ["2023-11-15T00:00"]


def test_a_slot_that_is_published_during_another_definition_is_not_published_again(
    clock: ManualClock, schema: JobSchema[Any, Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    with Beside(clock=clock) as broker:
        jobs = Orchestrator(broker)
        jobs.register(schema)
        jobs.schedule("often", "points", every=HOUR)
        get = LocalCoordinationStore.get

        def late(store: LocalCoordinationStore, keys: Sequence[str]) -> Any:
            monkeypatch.setattr(LocalCoordinationStore, "get", get)
            clock.advance(3600)
            passes(jobs)
            return get(store, keys)

        monkeypatch.setattr(LocalCoordinationStore, "get", late)
        jobs.schedule("often", "points", every=HOUR / 2)
        passes(jobs)
        assert [job.headers["slot"][11:16] for job in ready(jobs)] == ["23:00"]


def test_it_waits_while_the_store_is_away(
    jobs: Orchestrator,
    broker: ScheduledClient,
    clock: ManualClock,
    start: Any,
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """Nothing is published meanwhile. It says so once, and goes on by itself."""
    jobs.schedule("hourly", "points", every=HOUR)
    broker.fails_with = errors.BackendUnavailable("the store is away")
    clock.advance(3600)
    scheduler = start()
    eventually(lambda: scheduler._failures >= 2)
    assert jobs.counts("points").ready == 0

    broker.fails_with = None
    eventually(lambda: jobs.counts("points").ready == 1)
    eventually(lambda: "is back" in caplog.text)
    assert [record.levelname for record in caplog.records if "unavailable" in record.message] == ["WARNING"]


def test_a_publish_whose_answer_was_lost_is_not_repeated(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock, caplog: pytest.LogCaptureFixture
) -> None:
    """The store tells that it happened."""
    jobs.schedule("hourly", "points", every=HOUR)
    clock.advance(3600)
    broker.loses_answers = 1
    assert one_pass(jobs) == 1.0
    assert "was published; the store will tell" in caplog.text

    passes(jobs)
    assert [job.id for job in ready(jobs)] == ["hourly.20231114T230000Z"]


def test_an_error_of_its_own_does_not_end_it(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock, start: Any, eventually: Any
) -> None:
    jobs.schedule("hourly", "points", every=HOUR)
    broker.fails_with = RuntimeError("a bug")
    clock.advance(3600)
    scheduler = start(logger=logging.getLogger("tests.quiet"))
    eventually(lambda: scheduler._problems != {})

    broker.fails_with = None
    eventually(lambda: jobs.counts("points").ready == 1)


def test_an_error_of_one_schedule_stops_no_other_and_is_told_with_its_name(
    jobs: Orchestrator, clock: ManualClock, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    """Also one that no part of the library raises on purpose."""
    due = Every.due

    def fails(when: Every, slot: datetime, now: datetime) -> Any:
        if when.interval == 2 * HOUR:
            raise ZeroDivisionError("a bug")
        return due(when, slot, now)

    monkeypatch.setattr(Every, "due", fails)
    jobs.schedule("broken", "points", every=2 * HOUR)
    jobs.schedule("hourly", "points", every=HOUR)
    clock.advance(7200)
    scheduler = Scheduler(jobs)
    while scheduler._pass() == 0:
        pass
    assert [job.headers["schedule"] for job in ready(jobs)] == ["hourly"]
    (told,) = [record for record in caplog.records if record.levelname == "ERROR"]
    assert told.getMessage() == "schedule broken can't be run: ZeroDivisionError: a bug"
    assert told.exc_info is not None


def test_an_error_that_lasts_is_told_once(
    jobs: Orchestrator,
    monkeypatch: pytest.MonkeyPatch,
    start: Any,
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """A wrong password of the store would fill the log with tracebacks."""

    def denies(store: LocalCoordinationStore) -> float:
        raise errors.AccessDenied("the store denies access")

    monkeypatch.setattr(LocalCoordinationStore, "now", denies)
    scheduler = start()
    eventually(lambda: scheduler._failures >= 3)
    (told,) = [record for record in caplog.records if "denies access" in record.getMessage()]
    assert (told.levelname, told.exc_info) == ("ERROR", None)


@pytest.mark.parametrize(
    ("damage", "said"),
    [
        (b"not JSON", "its record is damaged"),
        (b"{}", "its record is damaged"),
        (b"7", "its record is damaged"),
        (
            b'{"v":1,"queue":"points","schema":"point","payload":{},"every_s":60,"misfire":"latest","grace_s":60,'
            b'"priority":0,"paused":false,"next":1e300,"last":null}',
            "its record is damaged",
        ),
        (b'{"v":2}', "this release reads version 1: update mindtrace-jobs"),
    ],
)
def test_a_record_that_cannot_be_read_stops_no_other(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock, damage: bytes, said: str, caplog: Any
) -> None:
    """It is told once."""
    broker.coordination.put("schedules/broken", damage)
    jobs.schedule("hourly", "points", every=HOUR)
    clock.advance(3600)
    scheduler = Scheduler(jobs)
    while scheduler._pass() == 0:
        pass

    assert len(ready(jobs)) == 1
    assert [record.message for record in caplog.records if "can't be run" in record.message] == [
        next(record.message for record in caplog.records if said in record.message)
    ]
    with pytest.raises(errors.InvalidInput, match="schedule 'broken'"):
        jobs.schedules.list()
    jobs.schedules.remove("broken")
    assert len(jobs.schedules.list()) == 1


def test_a_queue_that_was_deleted_stops_no_other_schedule(
    jobs: Orchestrator, clock: ManualClock, caplog: Any
) -> None:
    """Its slot waits for the queue."""
    jobs.register(JobSchema("ticks", Tick))
    jobs.schedule("gone", "ticks", every=HOUR)
    jobs.schedule("hourly", "points", every=HOUR)
    jobs.delete_queue("ticks")
    clock.advance(3600)
    scheduler = Scheduler(jobs)
    while scheduler._pass() == 0:
        pass
    assert scheduler._pass() == 1.0

    assert len(ready(jobs)) == 1
    assert [record.message for record in caplog.records if "gone can't be run" in record.message] != []
    jobs.register(JobSchema("ticks", Tick))
    passes(jobs)
    assert [job.id for job in ready(jobs, "ticks")] == ["gone.20231114T230000Z"]


def test_it_tells_what_it_publishes(jobs: Orchestrator, clock: ManualClock, caplog: Any) -> None:
    caplog.set_level(logging.INFO)
    jobs.schedule("hourly", "points", every=HOUR)
    clock.advance((datetime(2023, 11, 14, 23, tzinfo=UTC) - START).total_seconds() + 2.5)
    passes(jobs)

    (record,) = [record for record in caplog.records if "published" in record.message]
    assert record.message == (
        "schedule hourly: published its slot 2023-11-14T23:00:00+00:00 as job hourly.20231114T230000Z of "
        "points, 2.500 s late"
    )
    assert record.job == {
        "id": "hourly.20231114T230000Z",
        "queue": "points",
        "schedule": "hourly",
        "slot": "2023-11-14T23:00:00+00:00",
        "late_s": 2.5,
    }


def test_it_stops_after_the_slot_that_it_publishes(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock, background: Any, eventually: Any
) -> None:
    """Those after it are left to others."""
    jobs.schedule("hourly", "points", every=HOUR, misfire="all")
    clock.advance(3 * 3600)
    waits = broker.waits = Wait()
    scheduler = Scheduler(jobs)
    running = background(scheduler.run)
    assert waits.entered.wait(60)
    scheduler.stop()
    waits.leave.set()
    running.result(60)

    assert [job.id for job in ready(jobs)] == ["hourly.20231114T230000Z"]


def test_it_ends_with_its_backend(schema: JobSchema[Any, Any], background: Any) -> None:
    client = LocalClient()
    scheduler = Scheduler(Orchestrator(client), poll_s=0.001)
    running = background(scheduler.run)
    client.close()

    running.result(60)


def test_jobs_of_a_priority_queue_have_their_priority(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.register(JobSchema("urgent", Tick), "priority")
    jobs.schedule("hourly", "urgent", every=HOUR, priority=7)
    clock.advance(3600)
    passes(jobs)

    assert [job.priority for job in ready(jobs, "urgent")] == [7]


def test_it_needs_no_schema_of_the_jobs(
    jobs: Orchestrator, broker: ScheduledClient, clock: ManualClock
) -> None:
    """So a scheduler that imports nothing of a program's runs its schedules."""
    jobs.schedule("hourly", "points", {"x": 1.5}, every=HOUR)
    clock.advance(3600)
    passes(Orchestrator(broker))

    assert [job.payload.x for job in ready(jobs)] == [1.5]
