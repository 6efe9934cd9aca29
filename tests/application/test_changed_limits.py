"""Limits while jobs run: what is seen of them, and what consumers do that learn of a change."""

import asyncio
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncOrchestrator,
    Consumer,
    Job,
    JobInput,
    JobSchema,
    KeyUse,
    Limit,
    LimitUse,
    Orchestrator,
    Rate,
    RateTerms,
    RateUse,
)
from mindtrace.jobs.application.limits.changes import identity
from mindtrace.jobs.application.pausing import watch
from mindtrace.jobs.errors import InvalidInput, InvalidName, LimitNotFound

NEVER_S = 86_400.0
"""So far apart are the turns of a rate of which no second job starts."""


class Frame(JobInput):
    camera: int = 0


class Running:
    """Handlers that end when a test says so, each when it is its turn."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self.started: list[Frame] = []
        self._ends: list[threading.Event] = []
        self.is_over = False

    def run(self, job: Job[Any]) -> None:
        with self._lock:
            end = threading.Event()
            self.started.append(job.payload)
            self._ends.append(end)
            if self.is_over:
                end.set()
        assert end.wait(LIMIT_S)

    def end(self, number: int) -> None:
        """Have the first jobs end that run."""
        with self._lock:
            ends, self._ends = self._ends[:number], self._ends[number:]
        for each in ends:
            each.set()

    def end_all(self) -> None:
        """Have all end, and those that come."""
        with self._lock:
            self.is_over = True
        self.end(len(self._ends))


@pytest.fixture(autouse=True)
def often(monkeypatch: pytest.MonkeyPatch) -> None:
    """Look for changes often, and have no job start before the first look."""
    monkeypatch.setattr(watch, "LOOK_S", 0.005)
    monkeypatch.setattr(watch, "_FIRST_LOOK_S", LIMIT_S)


@pytest.fixture
def running() -> Iterator[Running]:
    made = Running()
    yield made
    made.end_all()


Start = Callable[..., Consumer]


@pytest.fixture
def start(orchestrator: Orchestrator, running: Running) -> Iterator[Start]:
    """Starts a consumer of a schema with eight threads; it ends with the test."""
    threads: list[threading.Thread] = []
    consumers: list[Consumer] = []

    def start_one(schema: JobSchema[Any, Any], on: Orchestrator = orchestrator, slots: int = 8) -> Consumer:
        kind = type("Work", (Consumer,), {"schema": schema, "run": lambda self, job: running.run(job)})
        consumer: Consumer = kind()
        consumer.connect(on, concurrency=slots, poll_timeout_s=0.05)
        consumers.append(consumer)
        thread = threading.Thread(target=consumer.consume)
        thread.start()
        threads.append(thread)
        return consumer

    yield start_one
    running.end_all()
    for consumer in consumers:
        consumer.stop()
    for thread in threads:
        thread.join(LIMIT_S)
    for consumer in consumers:
        consumer.close()


def use_of(orchestrator: Orchestrator, name: str) -> Any:
    (found,) = [each for each in orchestrator.limits() if each.name == name]
    return found


def frames(orchestrator: Orchestrator, queue: str, *cameras: int) -> None:
    orchestrator.publish_batch(queue, [Frame(camera=camera) for camera in cameras])


# -- what is seen ---------------------------------------------------------------------------------


def test_limits_that_are_declared_are_seen_before_a_job_runs(orchestrator: Orchestrator) -> None:
    gpu = Limit(4, name="gpu")
    orchestrator.register(JobSchema("a", Frame, concurrency_limit=gpu))
    orchestrator.register(JobSchema("b", Frame, concurrency_limit=gpu, rate=Rate(6, per_s=60)))
    orchestrator.register(JobSchema("c", Frame, concurrency_limit=Limit(2, by="camera")))
    orchestrator.register(JobSchema("d", Frame, rate=Rate(6, per_s=60, burst=3, by="camera")))
    orchestrator.register(JobSchema("free", Frame))
    six = RateTerms(6, 60.0, 1)

    assert orchestrator.limits() == [
        RateUse("b", False, ("b",), (), six, six, None, 0.0),
        LimitUse("c", False, ("c",), ("camera",), 2, 2, None, 0, 0, 0, ()),
        RateUse("d", False, ("d",), ("camera",), RateTerms(6, 60.0, 3), RateTerms(6, 60.0, 3), None, None),
        LimitUse("gpu", True, ("a", "b"), (), 4, 4, None, 0, 0, 0, ()),
    ]
    assert six.interval_s == 10.0


def test_places_in_use_are_seen_and_the_busiest_keys(
    orchestrator: Orchestrator, running: Running, start: Start, eventually: Any
) -> None:
    schema = JobSchema("frames", Frame, concurrency_limit=Limit(2, by="camera"))
    orchestrator.register(schema)
    frames(orchestrator, "frames", 1, 1, 1, 2, 3, 3)
    start(schema)
    eventually(lambda: len(running.started) == 5)
    eventually(lambda: use_of(orchestrator, "frames").waiting == 1)
    use = use_of(orchestrator, "frames")

    assert (use.used, use.waiting, use.keys) == (5, 1, 3)
    assert use.busiest == (KeyUse("[1]", 2, 1), KeyUse("[3]", 2, 0), KeyUse("[2]", 1, 0))
    (few,) = orchestrator.limits(busiest=1)
    assert isinstance(few, LimitUse)
    assert (few.used, few.keys, few.busiest) == (5, 3, (KeyUse("[1]", 2, 1),))
    running.end_all()
    eventually(lambda: use_of(orchestrator, "frames").used == 0)


def test_one_without_the_code_sees_what_running_consumers_declare(
    start: Start, orchestrator: Orchestrator, eventually: Any
) -> None:
    """Of a process that registered no schema, such as the command line."""
    start(JobSchema("frames", Frame, concurrency_limit=Limit(2, name="gpu"), rate=Rate(5, per_s=1, burst=2)))
    other = Orchestrator(orchestrator.backend)
    eventually(lambda: len(other.limits()) == 2)
    rate, limit = other.limits()

    assert isinstance(limit, LimitUse)
    assert (limit.name, limit.is_named, limit.queues, limit.declared) == ("gpu", True, ("frames",), 2)
    assert isinstance(rate, RateUse)
    assert (rate.name, rate.declared) == ("frames", RateTerms(5, 1.0, 2))
    other.change_limit("gpu", 3)
    assert use_of(orchestrator, "gpu").allowed == 3


def test_a_look_at_a_rate_takes_no_turn(orchestrator: Orchestrator) -> None:
    orchestrator.register(JobSchema("frames", Frame, rate=Rate(2, per_s=2 * NEVER_S, burst=2)))
    assert [use_of(orchestrator, "frames").next_turn_s for _ in range(5)] == [0.0] * 5


# -- a limit is changed ---------------------------------------------------------------------------


@pytest.mark.parametrize("limit", [Limit(1), Limit(1, name="gpu"), Limit(1, by="camera")], ids=repr)
def test_running_consumers_obey_a_limit_that_is_raised_and_lowered(
    orchestrator: Orchestrator, running: Running, start: Start, eventually: Any, limit: Limit
) -> None:
    schema, name = JobSchema("frames", Frame, concurrency_limit=limit), limit.name or "frames"
    orchestrator.register(schema)
    frames(orchestrator, "frames", *[0] * 20)
    start(schema)
    start(schema)
    eventually(lambda: len(running.started) == 1)
    orchestrator.change_limit(name, 5)
    eventually(lambda: len(running.started) == 5)
    eventually(lambda: use_of(orchestrator, name).used == 5)

    change = orchestrator.change_limit(name, 2)
    wait_until_all_know(orchestrator, eventually, 2)
    running.end(3)
    eventually(lambda: use_of(orchestrator, name).used == 2)
    assert len(running.started) == 5, "two still run, which is what is allowed"
    running.end(1)
    eventually(lambda: len(running.started) == 6)
    use = use_of(orchestrator, name)
    assert (use.declared, use.allowed, use.used, use.change) == (1, 2, 2, change)

    assert orchestrator.reset_limit(name)
    assert not orchestrator.reset_limit(name)
    wait_until_all_know(orchestrator, eventually, 1)
    running.end(1)
    eventually(lambda: use_of(orchestrator, name).used == 1)
    assert len(running.started) == 6
    assert use_of(orchestrator, name).change is None


def wait_until_all_know(orchestrator: Orchestrator, eventually: Any, count: int) -> None:
    """Wait until all consumers of an orchestrator obey a limit of so many places."""
    pauses = orchestrator.pause_watch
    assert pauses is not None
    members = pauses._members

    eventually(lambda: all(limit.present.count == count for member in members for limit in member.limits))


def test_a_consumer_that_waited_for_jobs_obeys_a_change_with_the_first_that_come(
    orchestrator: Orchestrator,
    running: Running,
    start: Start,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Idle consumers hardly look: they look once jobs have come, before they ask for places."""
    schema = JobSchema("frames", Frame, concurrency_limit=Limit(6))
    consumer = start(schema)
    eventually(lambda: consumer._connected().loop.is_empty)
    other = Orchestrator(orchestrator.backend)
    eventually(other.limits)
    monkeypatch.setattr(watch, "_IDLE_LOOK_S", NEVER_S)
    other.change_limit("frames", 2)
    time.sleep(2 * watch.LOOK_S)  # for so long, what was seen before it may stand
    frames(orchestrator, "frames", *[0] * 6)
    eventually(lambda: use_of(orchestrator, "frames").used == 2)
    eventually(lambda: use_of(orchestrator, "frames").waiting == 4)
    eventually(lambda: len(running.started) == 2)


def test_a_consumer_that_starts_after_a_change_obeys_it_at_once(
    orchestrator: Orchestrator, running: Running, start: Start, eventually: Any
) -> None:
    schema = JobSchema("frames", Frame, concurrency_limit=Limit(1, name="gpu"))
    orchestrator.register(schema)
    orchestrator.change_limit("gpu", 3)
    frames(orchestrator, "frames", *[0] * 5)
    start(schema)
    eventually(lambda: len(running.started) == 3)
    eventually(lambda: use_of(orchestrator, "gpu").waiting == 2)

    assert len(running.started) == 3


def test_a_limit_of_several_queues_is_changed_for_all(
    orchestrator: Orchestrator, running: Running, start: Start, eventually: Any
) -> None:
    for queue in ("frames", "shots"):
        schema = JobSchema(queue, Frame, concurrency_limit=Limit(1, name="gpu"))
        start(schema)
        frames(orchestrator, queue, 0, 0, 0)
    eventually(lambda: len(running.started) == 1)
    orchestrator.change_limit("gpu", 6)
    eventually(lambda: len(running.started) == 6)


# -- a rate is changed ----------------------------------------------------------------------------


@pytest.mark.parametrize("by", [None, "camera"])
def test_running_consumers_obey_a_rate_that_is_changed(
    orchestrator: Orchestrator, running: Running, start: Start, eventually: Any, by: str | None
) -> None:
    schema = JobSchema("frames", Frame, rate=Rate(1, per_s=NEVER_S, by=by))
    orchestrator.register(schema)
    frames(orchestrator, "frames", 0)
    start(schema)
    eventually(lambda: len(running.started) == 1)
    change = orchestrator.change_rate("frames", 4, per_s=8 * NEVER_S, burst=3)
    frames(orchestrator, "frames", 0, 0, 0)  # of the former rate, these had no turn for a day
    eventually(lambda: len(running.started) == 4)
    use = use_of(orchestrator, "frames")
    assert (use.declared, use.allowed) == (RateTerms(1, NEVER_S, 1), RateTerms(4, 8 * NEVER_S, 3))
    assert use.change == change
    if by is None:
        assert 0 < use.next_turn_s <= 2 * NEVER_S

    orchestrator.change_rate("frames", 1_000_000, per_s=1.0)
    frames(orchestrator, "frames", 0, 0)
    eventually(lambda: len(running.started) == 6)
    assert use_of(orchestrator, "frames").allowed == RateTerms(1_000_000, 1.0, 1)
    assert orchestrator.reset_rate("frames")
    assert use_of(orchestrator, "frames").allowed == RateTerms(1, NEVER_S, 1)


def test_what_a_change_of_a_rate_leaves_open_is_as_declared(orchestrator: Orchestrator) -> None:
    orchestrator.register(JobSchema("frames", Frame, rate=Rate(100, per_s=60, burst=20)))
    orchestrator.change_rate("frames", 200)
    assert use_of(orchestrator, "frames").allowed == RateTerms(200, 60.0, 20)
    orchestrator.change_rate("frames", 10)
    assert use_of(orchestrator, "frames").allowed == RateTerms(10, 60.0, 10)


# -- what is refused, and what is left ------------------------------------------------------------


def test_a_change_that_cannot_be_is_refused_and_the_error_says_how_to_correct_it(
    orchestrator: Orchestrator,
) -> None:
    gpu, rate_of_six = Limit(4, name="gpu"), Rate(6, per_s=60)
    orchestrator.register(JobSchema("frames", Frame, concurrency_limit=gpu, rate=rate_of_six))
    with pytest.raises(LimitNotFound, match="limit 'gpus': not declared; did you mean 'gpu'"):
        orchestrator.change_limit("gpus", 8)
    with pytest.raises(LimitNotFound, match="rate 'gpu': not declared; declared: 'frames'"):
        orchestrator.change_rate("gpu", 8)
    with pytest.raises(LimitNotFound, match="limit 'frames'"):
        orchestrator.reset_limit("frames")
    with pytest.raises(InvalidInput, match="limit count 0"):
        orchestrator.change_limit("gpu", 0)
    with pytest.raises(InvalidInput, match="per_s 0"):
        orchestrator.change_rate("frames", 8, per_s=0)
    with pytest.raises(InvalidInput, match="burst 9"):
        orchestrator.change_rate("frames", 8, burst=9)
    with pytest.raises(InvalidName):
        orchestrator.change_limit("no name", 8)
    with pytest.raises(InvalidInput, match="busiest"):
        orchestrator.limits(busiest=-1)
    assert all(each.change is None for each in orchestrator.limits())


def test_a_change_of_what_no_code_declares_any_more_is_seen_and_can_be_reset(
    orchestrator: Orchestrator,
) -> None:
    gpu, rate_of_six = Limit(4, name="gpu"), Rate(6, per_s=60)
    orchestrator.register(JobSchema("frames", Frame, concurrency_limit=gpu, rate=rate_of_six))
    orchestrator.change_limit("gpu", 8)
    orchestrator.change_rate("frames", 8)
    later = Orchestrator(orchestrator.backend)

    rate, limit = later.limits()
    assert isinstance(limit, LimitUse)
    assert (limit.declared, limit.allowed, limit.queues) == (None, 8, ())
    assert isinstance(rate, RateUse)
    assert (rate.declared, rate.allowed) == (None, RateTerms(8, 60.0, 1))
    assert later.reset_limit("gpu")
    assert later.reset_rate("frames")
    assert later.limits() == []


def test_a_record_that_is_damaged_changes_nothing(
    orchestrator: Orchestrator, running: Running, start: Start, eventually: Any
) -> None:
    limit, damaged = Limit(2, name="gpu"), [b"", b"[]", b"{", b'{"count": 0}', b'{"count": "x", "per_s": 1}']
    schema = JobSchema("frames", Frame, concurrency_limit=limit)
    for value in damaged:
        orchestrator.backend.coordination.put(identity("frames", limit).key, value)
    orchestrator.register(schema)
    frames(orchestrator, "frames", 0, 0, 0)
    start(schema)
    eventually(lambda: len(running.started) == 2)
    eventually(lambda: use_of(orchestrator, "gpu").waiting == 1)

    assert (use_of(orchestrator, "gpu").allowed, len(running.started)) == (2, 2)


def test_a_queue_that_is_deleted_takes_its_own_limits_along(orchestrator: Orchestrator) -> None:
    schema = JobSchema("frames", Frame, concurrency_limit=Limit(1), rate=Rate(1, per_s=1))
    orchestrator.register(schema)
    orchestrator.change_limit("frames", 8)
    orchestrator.change_rate("frames", 8)
    orchestrator.delete_queue("frames")
    assert orchestrator.limits() == []
    orchestrator.register(schema)
    assert {each.change for each in orchestrator.limits()} == {None}


def test_a_named_limit_comes_before_a_queue_of_its_name(orchestrator: Orchestrator) -> None:
    orchestrator.register(JobSchema("gpu", Frame, concurrency_limit=Limit(1)))
    orchestrator.register(JobSchema("frames", Frame, concurrency_limit=Limit(1, name="gpu")))
    orchestrator.change_limit("gpu", 8)
    found = {each.is_named: each.allowed for each in orchestrator.limits()}

    assert found == {True: 8, False: 1}


def test_coroutines_see_and_change_limits(orchestrator: Orchestrator) -> None:
    orchestrator.register(JobSchema("frames", Frame, concurrency_limit=Limit(1), rate=Rate(1, per_s=1)))

    async def main() -> None:
        async with AsyncOrchestrator(orchestrator) as jobs:
            assert (await jobs.change_limit("frames", 2)).count == 2
            assert (await jobs.change_rate("frames", 3, per_s=2.0, burst=2)).per_s == 2.0
            allowed = {each.kind: each.allowed for each in await jobs.limits(busiest=0)}
            assert allowed == {"limit": 2, "rate": RateTerms(3, 2.0, 2)}
            assert await jobs.reset_limit("frames")
            assert await jobs.reset_rate("frames")

    asyncio.run(main())
    assert {each.change for each in orchestrator.limits()} == {None}
