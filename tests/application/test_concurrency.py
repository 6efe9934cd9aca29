"""Many jobs at once in one consumer: as threads, and as tasks of one event loop."""

import asyncio
import inspect
import logging
import threading
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from typing import Any

import pytest

from mindtrace.jobs import Consumer, LocalClient, Orchestrator, Queue, Reject, RetryLater, RetryPolicy
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.application.consuming import isolation_wait
from mindtrace.jobs.application.consuming.in_flight import InFlight
from mindtrace.jobs.application.consuming.isolation_wait import IsolationWait
from mindtrace.jobs.application.process.graceful_stop import SecondSignal
from mindtrace.jobs.domain.errors import Closed, InvalidInput
from mindtrace.jobs.ports import Ack, Delivery, Release, Settlement

pytestmark = pytest.mark.timeout(120)

MakeConsumer = Callable[..., Consumer]
Handle = Callable[[Any], Any]

LONG_S = 60.0
"""How long a handler waits for what must happen."""


def as_thread(begin: Handle, go_on: threading.Event, end: Handle) -> Handle:
    """A plain handler that begins, waits, and ends."""

    def run(job: Any) -> Any:
        begin(job)
        assert go_on.wait(LONG_S)
        return end(job)

    return run


def as_task(begin: Handle, go_on: threading.Event, end: Handle) -> Handle:
    """The same as an ``async def``, which blocks no other."""

    async def run(job: Any) -> Any:
        begin(job)
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        return end(job)

    return run


@pytest.fixture(params=[as_thread, as_task])
def waiting(request: pytest.FixtureRequest) -> Callable[..., Handle]:
    """Make a handler of what it does before and after it waits for an event."""

    def make(
        go_on: threading.Event, begin: Handle = lambda job: None, end: Handle = lambda job: None
    ) -> Handle:
        handler: Handle = request.param(begin, go_on, end)
        return handler

    return make


@pytest.fixture
def make_concurrent(orchestrator: Orchestrator, background: Any) -> Iterator[MakeConsumer]:
    """Make a connected consumer of a plain or an async handler, closed before the threads are joined."""
    with ExitStack() as stack:

        def make(
            handler: Handle, concurrency: int = 4, *, to: Orchestrator = orchestrator, **connect: Any
        ) -> Consumer:
            class Plain(Consumer):
                def run(self, job: Any) -> Any:
                    return handler(job)

            class Async(Consumer):
                async def run(self, job: Any) -> Any:
                    return await handler(job)

            made = Async("points") if inspect.iscoroutinefunction(handler) else Plain("points")
            consumer = stack.enter_context(made)
            consumer.connect(to, concurrency=concurrency, **connect)
            return consumer

        yield make


SET = threading.Event()
SET.set()


def publish(orchestrator: Orchestrator, count: int) -> list[str]:
    return [handle.id for handle in orchestrator.publish_batch("points", [{"x": n} for n in range(count)])]


def test_so_many_run_at_once_and_no_more(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any, eventually: Any
) -> None:
    """Four of ten begin; the next begins only when one has ended."""
    publish(orchestrator, 10)
    go_on, lock = threading.Event(), threading.Lock()
    running, most = set[float](), list[int]()

    def begin(job: Any) -> None:
        with lock:
            running.add(job.payload.x)
            most.append(len(running))

    def end(job: Any) -> None:
        with lock:
            running.discard(job.payload.x)

    consumer = make_concurrent(waiting(go_on, begin, end), 4)
    consuming = background(consumer.consume, 10)
    eventually(lambda: len(running) == 4)
    go_on.set()

    assert consuming.result() == 10
    assert max(most) == 4
    assert consumer.stats.done == 10
    assert orchestrator.counts("points").ready == 0


@pytest.mark.parametrize("concurrency", [2, 8, 100])
def test_each_job_runs_once(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, concurrency: int
) -> None:
    """However many places there are, and whatever a batch holds."""
    publish(orchestrator, 1_000)
    seen: Counter[float] = Counter()
    consumer = make_concurrent(
        waiting(SET, end=lambda job: seen.update([job.payload.x])), concurrency, poll_timeout_s=0.05
    )

    assert consumer.consume_until_empty() == 1_000
    assert seen == Counter(float(n) for n in range(1_000))
    assert (consumer.stats.done, consumer.stats.lost, consumer.stats.attempted) == (1_000, 0, 1_000)


def test_num_messages_is_exact(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any
) -> None:
    """Seven of twenty are attempted, and the others are ready: none is left with the consumer."""
    publish(orchestrator, 20)
    consumer = make_concurrent(waiting(SET), 4)

    assert consumer.consume(7) == 7
    assert orchestrator.counts("points").ready == 13
    assert consumer.consume(13) == 13


def test_a_wait_in_vain_ends_it(make_concurrent: MakeConsumer, waiting: Any) -> None:
    """With fewer jobs than were asked for, it returns after one poll."""
    consumer = make_concurrent(waiting(SET), 4, poll_timeout_s=0.01)

    assert consumer.consume(3) == 0
    assert consumer.consume_until_empty() == 0


def test_what_is_finished_is_settled_while_others_run_and_none_is_ready(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any
) -> None:
    """A result can be read at once, though the consumer waits for jobs for an hour, and a slow job runs."""
    slow, fast = publish(orchestrator, 2)
    go_on = threading.Event()

    async def run(job: Any) -> Any:
        while job.id == slow and not go_on.is_set():
            await asyncio.sleep(0.001)
        return {"total": 1.0}

    consumer = make_concurrent(run, 4, poll_timeout_s=3600)
    consuming = background(consumer.consume)

    assert orchestrator.result("points", fast, timeout_s=LONG_S).total == 1.0
    assert orchestrator.counts("points").in_flight == 1
    go_on.set()
    assert orchestrator.result("points", slow, timeout_s=LONG_S).total == 1.0
    consumer.stop()
    assert consuming.result() == 2


def test_a_new_job_starts_beside_those_that_run(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any, eventually: Any
) -> None:
    """One that is published while another runs doesn't wait for it (RCV-2)."""
    go_on, begun = threading.Event(), list[float]()
    consumer = make_concurrent(
        waiting(go_on, lambda job: begun.append(job.payload.x)), 2, poll_timeout_s=3600
    )
    consuming = background(consumer.consume, 2)
    orchestrator.publish("points", {"x": 1})
    eventually(lambda: begun == [1])
    orchestrator.publish("points", {"x": 2})
    eventually(lambda: begun == [1, 2])
    go_on.set()

    assert consuming.result() == 2


def test_until_empty_waits_for_what_runs_and_for_its_retry(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any, eventually: Any
) -> None:
    """Nothing is ready or delayed while the last job runs; it fails then, and is run again."""
    publish(orchestrator, 1)
    go_on, attempts = threading.Event(), list[int]()

    def end(job: Any) -> None:
        attempts.append(job.attempt)
        if job.attempt == 1:
            raise RetryLater(0.01)

    consumer = make_concurrent(waiting(go_on, end=end), 3, poll_timeout_s=3600)
    consuming = background(consumer.consume_until_empty)
    eventually(lambda: orchestrator.counts("points").in_flight == 1)
    go_on.set()

    assert consuming.result() == 2
    assert attempts == [1, 2]


def test_every_outcome_is_settled(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any
) -> None:
    """Done, retried, rejected, and whatever else a handler may raise."""
    publish(orchestrator, 5)

    def end(job: Any) -> Any:
        match job.payload.x:
            case 1:
                raise Reject("no ones")
            case 2 if job.attempt == 1:
                raise ValueError("twos")
            case 3 if job.attempt == 1:
                raise KeyboardInterrupt
            case 4 if job.attempt == 1:
                raise asyncio.CancelledError
        return {"total": job.payload.x}

    consumer = make_concurrent(waiting(SET, end=end), 4)
    assert consumer.consume_until_empty() == 8
    stats = consumer.stats
    assert (stats.done, stats.retried, stats.dead) == (4, 3, 1)
    assert orchestrator.counts("points").dead == 1


def test_stop_finishes_what_runs_and_releases_the_rest(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any, eventually: Any
) -> None:
    """No attempt is spent on those that were only at hand (SET-4)."""
    publish(orchestrator, 10)
    go_on, begun = threading.Event(), list[int]()
    consumer = make_concurrent(waiting(go_on, lambda job: begun.append(job.attempt)), 3, prefetch=8)
    consuming = background(consumer.consume)
    eventually(lambda: len(begun) == 3)
    consumer.stop()
    eventually(lambda: orchestrator.counts("points").ready == 7)
    assert not consuming.done()
    go_on.set()

    assert consuming.result() == 3
    assert consumer.stats.done == 3
    assert consumer.stopped
    assert make_concurrent(waiting(SET, lambda job: begun.append(job.attempt)), 3).consume(7) == 7
    assert begun == [1] * 10


def test_close_releases_what_runs(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any, eventually: Any
) -> None:
    """Tasks are cancelled, which is no failure; threads can't be, and what they return comes too late."""
    publish(orchestrator, 2)
    go_on, begun, ended = threading.Event(), list[int](), list[int]()
    consumer = make_concurrent(
        waiting(go_on, lambda job: begun.append(job.attempt), lambda job: ended.append(job.attempt)), 2
    )
    consuming = background(consumer.consume)
    eventually(lambda: len(begun) == 2)
    consumer.close()
    assert consuming.exception(LONG_S) is not None
    assert orchestrator.counts("points").ready == 2
    go_on.set()

    again = make_concurrent(waiting(SET, lambda job: begun.append(job.attempt)), 2)
    assert again.consume(2) == 2
    assert begun == [1] * 4, "no attempt was spent"


def test_a_handler_may_close_its_consumer(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any
) -> None:
    """Its job is finished and settled first, and so are the others that run."""
    publish(orchestrator, 3)

    def end(job: Any) -> None:
        consumer.close()

    consumer = make_concurrent(waiting(SET, end=end), 2)
    assert 1 <= consumer.consume() <= 3
    assert orchestrator.counts("points").in_flight == 0
    assert orchestrator.counts("points").dead == 0


def test_a_lost_lease_is_told_to_its_own_job(
    far: Orchestrator,
    clock: ManualClock,
    line: Any,
    make_concurrent: MakeConsumer,
    background: Any,
    heartbeat: Any,
    eventually: Any,
) -> None:
    """And to no other that runs beside it (LSE-4)."""
    told: dict[float, bool] = {}
    go_on, begun, inherited = threading.Event(), list[float](), threading.Event()
    line.before["receive"] = lambda: inherited.wait(LONG_S)  # or it could take the job once more itself

    async def run(job: Any) -> None:
        begun.append(job.payload.x)
        while not go_on.is_set():
            await asyncio.sleep(0.001)
        told[job.payload.x] = consumer.lease_lost

    consumer = make_concurrent(run, 2, to=far, lease_s=0.12, poll_timeout_s=0.02)
    far.publish("points", {"x": 1})
    consuming = background(consumer.consume, 2)
    eventually(lambda: begun == [1])
    clock.advance(1.0)
    heir = make_concurrent(run, 2, to=far, lease_s=3600)
    taken = heir.consumer_backend.inner.receive(1, LONG_S)  # type: ignore[attr-defined]
    inherited.set()
    assert [delivery.attempt for delivery in taken] == [1]
    far.publish("points", {"x": 2})
    eventually(lambda: begun == [1, 2])
    heartbeat()
    go_on.set()

    assert consuming.result() == 2
    assert told == {1: True, 2: False}
    assert (consumer.stats.done, consumer.stats.lost) == (1, 1)


@pytest.mark.parametrize(("deaths", "alone"), [(1, False), (2, True)])
def test_a_job_that_was_with_two_dead_consumers_runs_alone(
    far: Orchestrator,
    clock: ManualClock,
    make_concurrent: MakeConsumer,
    waiting: Any,
    deaths: int,
    alone: bool,
) -> None:
    """None runs or is held beside it: if it kills this consumer too, no other is charged (RTY-3)."""
    far.publish_batch("points", [{"x": n} for n in range(6)])
    dead = make_concurrent(waiting(SET), 1, to=far, lease_s=1.0)
    for _ in range(deaths):
        assert len(dead.consumer_backend.receive(3, 0)) == 3
        clock.advance(2.0)
    in_flight: list[int | None] = []

    def end(job: Any) -> None:
        if job.payload.x < 3:
            in_flight.append(far.counts("points").in_flight)

    consumer = make_concurrent(waiting(SET, end=end), 4, to=far, lease_s=3600, poll_timeout_s=0.02)
    assert consumer.consume_until_empty() == 6
    assert (set(in_flight) == {1}) is alone


def test_a_job_that_must_run_alone_holds_up_no_other(
    far: Orchestrator,
    clock: ManualClock,
    make_concurrent: MakeConsumer,
    background: Any,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It goes back while a handler takes long, and runs once that has ended."""
    monkeypatch.setattr(isolation_wait, "SLOW_S", 0.01)
    far.publish("points", {"x": 0})
    dead = make_concurrent(lambda job: None, 1, to=far, lease_s=1.0).consumer_backend
    for _ in range(2):
        assert dead.receive(1, 0)
        clock.advance(2.0)
    (suspect,) = dead.receive(1, 0)
    far.publish("points", {"x": 1})
    slow_ends, begun, ended, in_flight = threading.Event(), list[int](), list[int](), list[int | None]()

    async def run(job: Any) -> None:
        x = job.payload.x
        begun.append(x)
        while x == 1 and not slow_ends.is_set():
            await asyncio.sleep(0.001)
        if x == 0:
            in_flight.append(far.counts("points").in_flight)
        ended.append(x)

    consumer = make_concurrent(run, 10, to=far, lease_s=3600)
    consuming = background(consumer.consume, 5)
    eventually(lambda: begun == [1])
    dead.settle([Release(suspect.receipt)])
    eventually(lambda: far.counts("points").delayed == 1)
    far.publish_batch("points", [{"x": x} for x in (2, 3, 4)])
    eventually(lambda: ended == [2, 3, 4])
    slow_ends.set()
    eventually(lambda: ended == [2, 3, 4, 1])
    clock.advance(1.0)

    assert consuming.result() == 5
    assert (ended[-1], in_flight) == (0, [1])


def test_waits_to_run_alone_grow_and_take_a_tenth_of_the_time() -> None:
    """After a wait that was in vain comes a pause, ten times as long, in which no job waits."""
    clock = ManualClock()
    wait = IsolationWait(clock.now)
    assert wait.away_s(["a"]) is None
    clock.advance(1.0)
    assert wait.away_s(["a", "b"]) == pytest.approx(10.0)
    clock.advance(4.0)
    assert wait.pauses
    assert wait.away_s(["c"]) == pytest.approx(6.0), "another one goes back at once"
    clock.advance(6.0)
    assert wait.away_s(["a"]) is None
    clock.advance(1.0)
    assert wait.away_s(["a"]) is None
    clock.advance(1.0)
    assert wait.away_s(["a"]) == pytest.approx(20.0)
    wait.has_run()
    assert not wait.pauses
    assert wait.away_s(["b"]) is None
    clock.advance(1.0)
    assert wait.away_s(["b"]) == pytest.approx(10.0)


@pytest.mark.parametrize(("next_id", "waits_s"), [("b", 2.0), ("c", 1.0)])
def test_a_wait_to_run_alone_is_short_again_for_a_job_that_comes_long_afterwards(
    next_id: str, waits_s: float
) -> None:
    """But not for one that went back, however many jobs stood before it in the queue."""
    clock = ManualClock()
    wait = IsolationWait(clock.now)
    wait.away_s(["a", "b"])
    clock.advance(1.0)
    assert wait.away_s(["a", "b"]) == pytest.approx(10.0)
    clock.advance(1000.0)
    assert wait.away_s([next_id]) is None
    clock.advance(waits_s - 0.1)
    assert wait.away_s([next_id]) is None
    clock.advance(0.1)
    assert wait.away_s([next_id]) == pytest.approx(10 * waits_s)


def test_settlements_survive_an_outage(
    far: Orchestrator, line: Any, make_concurrent: MakeConsumer, waiting: Any
) -> None:
    """They are sent again until the broker is back (CON-1)."""
    far.publish_batch("points", [{"x": n} for n in range(20)])
    seen: Counter[float] = Counter()

    def end(job: Any) -> None:
        seen[job.payload.x] += 1
        if len(seen) == 10:
            line.breaks["settle"] = 3

    consumer = make_concurrent(waiting(SET, end=end), 4, to=far, poll_timeout_s=0.02)
    assert consumer.consume(20) == 20
    assert consumer.stats.done == 20
    assert set(seen.values()) == {1}


def test_a_stop_in_an_outage_starts_no_more_of_the_jobs_at_hand(
    far: Orchestrator, line: Any, make_concurrent: MakeConsumer, background: Any, eventually: Any
) -> None:
    """They are released once the broker is back; one that must run alone was kept for ever (SET-4)."""
    publish(far, 6)
    go_on, ran = threading.Event(), []

    def run(job: Any) -> None:
        ran.append(job.payload.x)
        assert go_on.wait(60)

    consumer = make_concurrent(run, 2, to=far, prefetch=6)
    consuming = background(consumer.consume)
    eventually(lambda: len(ran) == 2)
    line.breaks["release_ahead"] = 1
    consumer.stop()
    eventually(lambda: not line.breaks["release_ahead"])
    go_on.set()

    assert consuming.result(60) == 2
    assert far.counts("points").ready == 4


def test_a_fault_of_ours_in_a_thread_releases_its_job(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer
) -> None:
    """Else the job would stay with the consumer, its lease kept, and consume would never end (I8)."""
    publish(orchestrator, 1)
    faults = iter([MemoryError(), MemoryError()])  # the second one in what takes the place of a faulty delay

    class Faulty(RetryPolicy):
        def longest_delay_s(self, attempt: int) -> float:
            for fault in faults:
                raise fault
            return 0.0

    def fail(job: Any) -> None:
        raise ValueError

    consumer = make_concurrent(fail, 2)
    object.__setattr__(consumer._connection.loop._executor, "policy", Faulty(max_attempts=2))

    assert consumer.consume_until_empty() == 3
    assert (consumer.stats.released, consumer.stats.retried, consumer.stats.dead) == (1, 1, 1)


def test_jobs_at_hand_go_to_others_while_all_places_are_slow(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any, eventually: Any
) -> None:
    """As behind one slow job: no idle consumer has to wait for this one."""
    publish(orchestrator, 6)
    go_on, begun = threading.Event(), list[float]()
    consumer = make_concurrent(waiting(go_on, lambda job: begun.append(job.payload.x)), 2, prefetch=5)
    consuming = background(consumer.consume, 6)
    eventually(lambda: len(begun) == 2 and orchestrator.counts("points").ready == 4)
    other = make_concurrent(waiting(SET, lambda job: begun.append(job.payload.x)), 2)
    assert other.consume(4) == 4
    go_on.set()
    consumer.stop()

    assert consuming.result() == 2
    assert sorted(begun) == [0, 1, 2, 3, 4, 5]


def test_a_handler_that_blocks_the_event_loop_is_named(
    far: Orchestrator,
    make_concurrent: MakeConsumer,
    background: Any,
    eventually: Any,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """With its job and the line it is at; and it loses nothing."""
    blocked_s = "mindtrace.jobs.application.consuming.blocked_event_loop._BLOCKED_S"
    monkeypatch.setattr(blocked_s, 3600.0)
    blocking, _ = publish(far, 2)
    told = threading.Event()

    async def run(job: Any) -> None:
        if job.id == blocking:
            monkeypatch.setattr(blocked_s, 0.0)  # no sooner, as a loop that begins late is blocked by no job
            assert told.wait(LONG_S)  # where an await should be

    consumer = make_concurrent(run, 2, to=far, lease_s=0.3)
    consuming = background(consumer.consume, 2)
    eventually(lambda: f"job {blocking} blocks the event loop" in caplog.text)
    assert "test_concurrency.py" in caplog.text or "threading.py" in caplog.text
    told.set()

    assert consuming.result() == 2
    assert (consumer.stats.done, consumer.stats.lost) == (2, 0)


def test_a_task_left_behind_ends_no_loop(orchestrator: Orchestrator, make_concurrent: MakeConsumer) -> None:
    """Whatever it raises, the other jobs go on."""
    publish(orchestrator, 50)
    left: list[Any] = []

    async def interrupt() -> None:
        raise KeyboardInterrupt

    async def run(job: Any) -> None:
        left.append(asyncio.get_running_loop().create_task(interrupt()))
        await asyncio.sleep(0)

    consumer = make_concurrent(run, 4)
    assert consumer.consume(50) == 50
    assert consumer.stats.done == 50
    # Asking for it tells asyncio that it was seen: else the log says so whenever the task is collected.
    assert {type(task.exception()) for task in left} == {KeyboardInterrupt}


def test_threads_are_left_behind_by_none(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, eventually: Any
) -> None:
    """Each consume ends what it started."""
    before = {*threading.enumerate()}  # some may be ending
    consumer = make_concurrent(waiting(SET), 8)
    for _ in range(3):
        publish(orchestrator, 30)
        assert consumer.consume(30) == 30
    eventually(lambda: {*threading.enumerate()} <= before)


@pytest.mark.parametrize("concurrency", [0, -1, 10_001, 1.5, "2", True])
def test_an_impossible_concurrency_is_refused(make_concurrent: MakeConsumer, concurrency: Any) -> None:
    with pytest.raises(InvalidInput, match="concurrency"):
        make_concurrent(lambda job: None, concurrency)


def test_num_messages_is_exact_however_fast_jobs_start(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any
) -> None:
    """Jobs start on another thread while the consumer counts how many more to take."""
    consumer = make_concurrent(waiting(SET), 100)
    for count in (20, 50, 101) * 20:
        publish(orchestrator, 200)
        assert consumer.consume(count) == count
        orchestrator.clean_queue("points")


def test_a_job_that_must_run_alone_is_seen_behind_others() -> None:
    """It starts once those before it have ended, and nothing more is taken until then."""

    def delivery(number: int, crashes: int = 0) -> Delivery:
        return Delivery(f"job-{number}", b"", f"r.{number}", 1, 1, crashes, 60.0)

    def never_refused(_delivery: Delivery, ack: Ack) -> Settlement:
        raise AssertionError(f"{ack} publishes nothing")

    with LocalClient() as client:
        client.declare(Queue("points"))
        in_flight = InFlight(
            client.open_consumer("points"), logging.getLogger("test"), never_refused, RetryPolicy()
        )
        in_flight.add([delivery(1, crashes=1), delivery(2, crashes=2)])
        assert in_flight.has_suspect
        assert in_flight.start_suspect() is None
        assert in_flight.start_next_beside_others() == delivery(1, crashes=1)
        assert in_flight.start_next_beside_others() is None
        assert in_flight.start_suspect() is None
        in_flight.finish(Ack("r.1"))
        in_flight.add([delivery(3)])
        assert in_flight.start_suspect() == delivery(2, crashes=2)
        assert not in_flight.has_suspect
        assert in_flight.start_next_beside_others() is None, "the others that were queued are released"


def test_what_was_cut_short_leaves_the_next_consume_alone(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, eventually: Any
) -> None:
    """Handlers that were abandoned take none of its places, and run none of its jobs."""
    publish(orchestrator, 3)
    go_on, begun = threading.Event(), list[float]()
    consumer = make_concurrent(waiting(go_on, lambda job: begun.append(job.payload.x)), 3)
    loop: Any = consumer._connected().loop
    wait = loop._wait_for_finished

    def interrupted(count: int, timeout_s: float) -> None:
        eventually(lambda: len(begun) == 3)
        raise SecondSignal

    loop._wait_for_finished = interrupted
    with pytest.raises(KeyboardInterrupt):
        consumer.consume(3)
    loop._wait_for_finished = wait
    assert orchestrator.counts("points").ready == 3
    go_on.set()

    assert consumer.consume(3) == 3
    assert sorted(begun) == [0, 0, 1, 1, 2, 2]
    assert orchestrator.counts("points").ready == 0


def test_a_handler_that_cancels_all_others_loses_no_job(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer
) -> None:
    """One whose task hadn't begun goes back, and one that ran has failed."""
    publish(orchestrator, 20)

    async def run(job: Any) -> None:
        if job.payload.x == 0 and job.attempt == 1:
            for task in asyncio.all_tasks() - {asyncio.current_task()}:
                task.cancel()
        await asyncio.sleep(0)

    consumer = make_concurrent(run, 10, poll_timeout_s=0.05)
    consumer.consume_until_empty()
    assert consumer.stats.done == 20


def test_what_was_attempted_never_counts_down(
    orchestrator: Orchestrator, make_concurrent: MakeConsumer, waiting: Any, background: Any, eventually: Any
) -> None:
    """Neither as handlers are abandoned in their midst, be they threads or tasks."""
    publish(orchestrator, 2)
    go_on, begun = threading.Event(), list[float]()
    consumer = make_concurrent(waiting(go_on, lambda job: begun.append(job.payload.x)), 2)
    loop = consumer._connected().loop
    consuming = background(consumer.consume)
    eventually(lambda: len(begun) == 2)
    assert loop.stats.attempted == 2
    consumer.close()
    assert isinstance(consuming.exception(LONG_S), Closed)
    assert loop.stats.attempted == 2
    go_on.set()


def test_a_handler_that_is_abandoned_late_leaves_the_number_of_the_next_consume_alone(
    orchestrator: Orchestrator,
    make_concurrent: MakeConsumer,
    eventually: Any,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """It kept its event loop busy while its consumer ended, and is cancelled during the next call."""
    monkeypatch.setattr("mindtrace.jobs.application.consuming.handler_tasks._CANCEL_S", 0.0)
    publish(orchestrator, 20)
    go_on, began, old_loop_ended = threading.Event(), list[float](), threading.Event()

    async def run(job: Any) -> None:
        began.append(job.payload.x)
        if len(began) == 1:
            try:
                go_on.wait(LONG_S)
                await asyncio.sleep(LONG_S)
            finally:
                old_loop_ended.set()
        elif len(began) == 2:  # in the second call
            go_on.set()
            old_loop_ended.wait(LONG_S)

    consumer = make_concurrent(run, 4)
    loop: Any = consumer._connected().loop
    wait = loop._wait_for_finished

    def interrupted(count: int, timeout_s: float) -> None:
        eventually(lambda: began)
        raise SecondSignal

    loop._wait_for_finished = interrupted
    with pytest.raises(KeyboardInterrupt):
        consumer.consume(4)
    loop._wait_for_finished = wait
    assert consumer.consume(10) == 10
    assert len(began) == 11
    assert consumer.stats.attempted == 11


def test_a_job_that_could_not_be_run_alone_was_not_attempted(
    far: Orchestrator, line: Any, make_concurrent: MakeConsumer, clock: ManualClock
) -> None:
    """It goes back while the broker is away, and counts once it runs."""
    publish(far, 1)
    for _ in range(2):  # two consumers die with it
        dying = far.backend.open_consumer("points", lease_s=30.0)
        assert dying.receive(1, 0.0)
        clock.advance(31.0)
    seen: list[int] = []
    consumer = make_concurrent(lambda job: None, 1, to=far)
    for method in ("release_ahead", "settle"):
        line.before[method] = lambda: seen.append(consumer.stats.attempted)
    line.breaks["release_ahead"] = 1
    assert consumer.consume(1) == 1
    assert len(seen) > 1
    assert seen == sorted(seen)
