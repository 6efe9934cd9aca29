"""One process of a worker: consumers on threads, stopped gracefully, or at once with nothing lost."""

import logging
import select
import signal
import threading
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import pytest

from mindtrace.jobs import BatchConsumer, Consumer, Job, JobSchema, Orchestrator, QueueKind
from mindtrace.jobs.application.process.signal_queue import AT_ONCE, REPLACE, WAKE, SignalQueue
from mindtrace.jobs.application.worker.connecting import WorkerSettings
from mindtrace.jobs.application.worker.health import HealthFile, LastPolls, oldest
from mindtrace.jobs.application.worker.worker import Ending, Worker
from mindtrace.jobs.domain.errors import InvalidInput, QueueConflict, QueueNotFound, SchemaNotRegistered

LOGGER = logging.getLogger("tests.worker")
MakeWorker = Callable[..., Worker]


@pytest.fixture
def signal_queue() -> Iterator[SignalQueue]:
    with SignalQueue() as signal_queue:
        yield signal_queue


@pytest.fixture
def make_worker(orchestrator: Orchestrator, signal_queue: SignalQueue) -> MakeWorker:
    """A worker whose consumers run a function."""

    def make(
        handler: Callable[[Job[Any]], Any], *, name: str = "points", consumers: int = 1, **settings: Any
    ) -> Worker:
        class FunctionConsumer(Consumer):
            def run(self, job: Job[Any]) -> Any:
                return handler(job)

        observers = {key: settings.pop(key) for key in ("last_polls", "health") if key in settings}
        how = WorkerSettings(**({"poll_timeout_s": 0.05} | settings))
        makers = [lambda: FunctionConsumer(name)] * consumers
        return Worker(orchestrator, makers, how, signal_queue, LOGGER, **observers)

    return make


def test_a_burst_ends_once_no_job_waits(make_worker: MakeWorker, orchestrator: Orchestrator) -> None:
    """Two places share the work."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(20)])
    both = threading.Barrier(2, timeout=60)
    ran: set[str] = set()

    def work(job: Job[Any]) -> None:
        if len(ran) < 2:
            ran.add(threading.current_thread().name)
            both.wait()

    assert make_worker(work, concurrency=2, burst=True, prefetch=1).run() is Ending.FINISHED
    assert len(ran) == 2
    assert orchestrator.counts("points").waiting == 0


def test_a_burst_after_a_death_waits_for_the_leases_of_the_dead(
    make_worker: MakeWorker, orchestrator: Orchestrator
) -> None:
    orchestrator.publish("points", {"x": 1})
    dead = orchestrator.backend.open_consumer("points", lease_s=0.5)
    assert dead.receive(1, 0.0)
    ran: list[int] = []

    worker = make_worker(lambda job: ran.append(job.payload.x), burst=True, lease_s=0.5, follows_a_death=True)
    assert worker.run() is Ending.FINISHED
    assert ran == [1]


def test_a_burst_does_not_wait_for_the_jobs_of_others(
    make_worker: MakeWorker, orchestrator: Orchestrator
) -> None:
    orchestrator.publish("points", {"x": 1})
    other = orchestrator.backend.open_consumer("points", lease_s=3600.0)
    assert other.receive(1, 0.0)
    make = partial(make_worker, print, burst=True)

    assert make().run() is Ending.FINISHED
    began_s = time.monotonic()
    assert make(lease_s=0.1, follows_a_death=True).run() is Ending.FINISHED
    assert time.monotonic() - began_s >= 0.1, "not before the leases of the dead have ended"


def test_a_signal_stops_it_after_the_jobs_that_run(
    make_worker: MakeWorker,
    orchestrator: Orchestrator,
    signal_queue: SignalQueue,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """The rest is given back."""
    ids = [handle.id for handle in orchestrator.publish_batch("points", [{"x": n} for n in range(3)])]
    stopped, stop = threading.Event(), Consumer.stop

    def told(consumer: Consumer) -> None:
        stop(consumer)
        stopped.set()

    def work(job: Job[Any]) -> None:
        signal.raise_signal(signal.SIGTERM)
        stopped.wait()

    monkeypatch.setattr(Consumer, "stop", told)
    assert make_worker(work, prefetch=3).run() is Ending.STOPPED
    assert orchestrator.result("points", ids[0]) is None
    assert orchestrator.counts("points").ready == 2


@pytest.mark.parametrize(
    ("signals", "grace_s", "ending"),
    [
        ([signal.SIGTERM], 0.05, Ending.CUT_SHORT),
        ([signal.SIGTERM, AT_ONCE], 60.0, Ending.AT_ONCE),
        ([AT_ONCE], 60.0, Ending.AT_ONCE),
    ],
    ids=["grace ends", "told to hurry", "at once"],
)
def test_a_handler_that_does_not_end_is_left_and_its_job_given_back(
    make_worker: MakeWorker,
    orchestrator: Orchestrator,
    signal_queue: SignalQueue,
    signals: list[int],
    grace_s: float,
    ending: Ending,
) -> None:
    """At once, without an attempt spent (SET-4)."""
    orchestrator.publish("points", {"x": 1})
    hangs = threading.Event()

    def work(job: Job[Any]) -> None:
        for number in signals:
            signal_queue.post(number)
        hangs.wait()

    worker = make_worker(work, grace_s=grace_s)
    try:
        assert worker.run() is ending
        assert orchestrator.counts("points").ready == 1
        with orchestrator.backend.open_consumer("points") as consumer:
            (delivery,) = consumer.receive(1, 0)
        assert (delivery.attempt, delivery.crashes) == (1, 0)
    finally:
        hangs.set()
        for thread in worker._threads:
            thread.join()


@pytest.mark.parametrize(
    ("number", "ending"),
    [(signal.SIGTERM, Ending.STOPPED), (AT_ONCE, Ending.AT_ONCE)],
    ids=["stop", "at once"],
)
def test_after_a_signal_that_comes_while_it_connects_no_job_starts(
    make_worker: MakeWorker,
    orchestrator: Orchestrator,
    signal_queue: SignalQueue,
    monkeypatch: pytest.MonkeyPatch,
    eventually: Any,
    number: int,
    ending: Ending,
) -> None:
    orchestrator.publish("points", {"x": 1})
    start, ran = Worker._start, []

    def start_slowly(worker: Worker) -> None:
        """Leave the threads time for a job."""
        start(worker)
        eventually(lambda: ran or not any(thread.is_alive() for thread in worker._threads))

    monkeypatch.setattr(Worker, "_start", start_slowly)
    signal_queue.post(number)

    assert make_worker(ran.append).run() is ending
    assert not ran
    assert orchestrator.counts("points").ready == 1


def test_a_process_that_is_replaced_finishes_what_runs_however_long_it_takes(
    make_worker: MakeWorker, orchestrator: Orchestrator, signal_queue: SignalQueue, eventually: Any
) -> None:
    """The rest is given back."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(3)])

    def work(job: Job[Any]) -> None:
        signal_queue.post(REPLACE)
        eventually(lambda: worker._deadline_s is not None)

    worker = make_worker(work, prefetch=3, grace_s=0.0)
    assert worker.run() is Ending.REPLACED
    counts = orchestrator.counts("points")
    assert (counts.ready, counts.in_flight, counts.dead) == (2, 0, 0)


def test_a_signal_limits_how_long_a_process_that_is_replaced_may_take(
    make_worker: MakeWorker, orchestrator: Orchestrator, signal_queue: SignalQueue
) -> None:
    orchestrator.publish("points", {"x": 1})
    hangs = threading.Event()

    def work(job: Job[Any]) -> None:
        signal_queue.post(REPLACE)
        signal_queue.post(signal.SIGTERM)
        hangs.wait()

    worker = make_worker(work, grace_s=0.05)
    try:
        assert worker.run() is Ending.CUT_SHORT
        assert orchestrator.counts("points").ready == 1
    finally:
        hangs.set()
        for thread in worker._threads:
            thread.join()


def test_a_signal_that_comes_again_is_no_reason_to_hurry(
    make_worker: MakeWorker,
    orchestrator: Orchestrator,
    signal_queue: SignalQueue,
    background: Any,
    eventually: Any,
) -> None:
    """As where systemd signals every process, and the supervisor passes its own signal on."""
    job_id = orchestrator.publish("points", {"x": 1})
    running, finish = threading.Event(), threading.Event()

    def work(job: Job[Any]) -> None:
        running.set()
        finish.wait()

    worker = make_worker(work)
    ending = background(worker.run)
    running.wait()
    for number in (signal.SIGTERM, signal.SIGTERM, signal.SIGINT, signal.SIGHUP):
        signal_queue.post(number)
    eventually(lambda: not select.select([signal_queue._read], [], [], 0)[0])  # it has read them all
    finish.set()

    assert ending.result() is Ending.STOPPED
    assert orchestrator.result("points", job_id) is None


@pytest.mark.parametrize("burst", [False, True])
@pytest.mark.parametrize("end", [Consumer.stop, Consumer.close], ids=["stops", "closes"])
def test_a_handler_that_ends_its_consumer_is_the_death_of_the_process(
    make_worker: MakeWorker, orchestrator: Orchestrator, burst: bool, end: Callable[[Consumer], None]
) -> None:
    """Its job is done, the other threads are stopped, and the rest is left to a new process."""
    orchestrator.publish_batch("points", [{"x": 0}, *[{"x": 1}] * 3])
    worker = make_worker(lambda job: end(worker._consumers[0]), burst=burst, prefetch=1)

    assert worker.run() is Ending.DIED
    counts = orchestrator.counts("points")
    assert (counts.ready, counts.in_flight, counts.dead) == (3, 0, 0)


@pytest.mark.parametrize("raised", [SystemExit(0), KeyboardInterrupt(), MemoryError()])
def test_a_thread_that_ends_by_an_error_is_the_death_of_the_process(
    make_worker: MakeWorker,
    orchestrator: Orchestrator,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    raised: BaseException,
) -> None:
    """The others are stopped, or the process would go on with fewer, and end as if all were done."""
    ended = threading.Event()

    def consume(self: Consumer) -> int:
        if not ended.is_set():
            ended.set()
            raise raised
        return whole(self)

    whole = Consumer.consume
    monkeypatch.setattr(Consumer, "consume", consume)

    assert make_worker(lambda job: None, consumers=2).run() is Ending.DIED
    assert "a consumer of points failed" in caplog.text


def test_a_consumer_that_fails_stops_the_others(make_worker: MakeWorker, orchestrator: Orchestrator) -> None:
    """And says why: here its queue was deleted."""
    orchestrator.publish("points", {"x": 1})

    def work(job: Job[Any]) -> None:
        orchestrator.delete_queue("points")

    with pytest.raises(QueueNotFound):
        make_worker(work, consumers=2).run()


class Batches(BatchConsumer):
    batch_size = 16

    def run_batch(self, jobs: Any) -> Any:
        return [None] * len(jobs)


@pytest.mark.parametrize(("batch_size", "told"), [(None, 16), (4, 4)])
def test_a_worker_tells_how_many_jobs_a_batch_has(
    orchestrator: Orchestrator,
    signal_queue: SignalQueue,
    caplog: pytest.LogCaptureFixture,
    batch_size: int | None,
    told: int,
) -> None:
    caplog.set_level(logging.INFO, LOGGER.name)
    settings = WorkerSettings(batch_size=batch_size, burst=True, poll_timeout_s=0.05)
    Worker(orchestrator, [lambda: Batches("points")], settings, signal_queue, LOGGER).run()

    assert f"working on points, in batches of {told} at most" in caplog.text


def test_a_queue_of_another_type_is_refused_with_the_name_of_its_consumer(
    orchestrator: Orchestrator, schema: JobSchema[Any, Any], signal_queue: SignalQueue
) -> None:
    class Stacked(Consumer):
        queue_type = "stack"

        def run(self, job: Job[Any]) -> None: ...

    Stacked.schema = schema
    worker = Worker(orchestrator, [Stacked], WorkerSettings(), signal_queue, LOGGER)
    with pytest.raises(QueueConflict, match=r"^Stacked: queue 'points' already has the type fifo, not stack"):
        worker.run()


def test_a_fault_once_jobs_run_may_be_that_of_a_job(
    make_worker: MakeWorker, orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Which then isn't released: the end of the process charges it with a crash (RTY-3)."""
    orchestrator.publish("points", {"x": 1})
    runs, end = threading.Event(), threading.Event()

    def work(job: Job[Any]) -> None:
        runs.set()
        end.wait()

    def fail(self: SignalQueue, wait_s: float) -> list[int]:
        if not wait_s:  # before a job can start
            return []
        runs.wait()
        raise OSError("a job closed the descriptor")

    monkeypatch.setattr(SignalQueue, "wait", fail)
    worker = make_worker(work)
    with pytest.raises(OSError, match="a job closed the descriptor"):
        worker.run()

    assert worker.failed_by_job
    assert orchestrator.counts("points").in_flight == 1
    end.set()
    worker._consumers[0].stop()
    worker._threads[0].join()


def test_a_consumer_that_cannot_be_made_is_the_fault_of_no_job(
    orchestrator: Orchestrator, signal_queue: SignalQueue
) -> None:
    def make() -> Consumer:
        raise RuntimeError("no GPU is free")

    worker = Worker(orchestrator, [make], WorkerSettings(), signal_queue, LOGGER)
    with pytest.raises(RuntimeError, match="no GPU is free"):
        worker.run()
    assert not worker.failed_by_job


def test_what_cannot_be_connected_raises(make_worker: MakeWorker) -> None:
    with pytest.raises(SchemaNotRegistered, match="or give its class a schema"):
        make_worker(lambda job: None, name="nobody").run()


class CountedHealthFile(HealthFile):
    writes = 0

    def write(self, moment_s: float) -> None:
        super().write(moment_s)
        self.writes += 1


def test_its_health_is_when_the_slowest_consumer_polled_last(
    make_worker: MakeWorker,
    orchestrator: Orchestrator,
    client: Any,
    schema: Any,
    signal_queue: SignalQueue,
    tmp_path: Path,
    eventually: Callable[[Callable[[], object]], None],
) -> None:
    """A handler that hangs makes it old, whatever other consumers do."""
    last_polls, health = LastPolls(2), CountedHealthFile(tmp_path / "health")
    observed = Orchestrator(client, observers=[last_polls])
    observed.register(schema)
    observed.publish("points", {"x": 1})
    hung_since_s: list[float] = []
    seen_s: list[float | None] = []

    class Hanging(Consumer):
        def run(self, job: Job[Any]) -> None:
            hung_since_s.append(time.time())
            goal = health.writes + 2

            def is_told() -> bool:
                signal_queue.post(WAKE)
                return health.writes >= goal

            eventually(is_told)
            seen_s.append(health.read())
            signal_queue.post(signal.SIGTERM)

    settings = WorkerSettings(poll_timeout_s=0.05)
    make = lambda: Hanging("points")  # noqa: E731
    makers = [make, make]
    worker = Worker(observed, makers, settings, signal_queue, LOGGER, last_polls=last_polls, health=health)

    assert worker.run() is Ending.STOPPED
    assert seen_s[0] is not None
    assert seen_s[0] <= hung_since_s[0] + 0.01


def test_the_health_of_several_is_that_of_the_worst(tmp_path: Path) -> None:
    """And unknown while one has never been well."""
    files = [HealthFile(tmp_path / name) for name in "ab"]
    files[0].write(1000.0)
    assert oldest(files) is None

    files[1].write(2000.0)
    assert oldest(files) == 1000.0

    files[0].remove()
    assert oldest(files) is None


def test_a_pulse_is_unknown_before_all_have_polled() -> None:
    last_polls = LastPolls(2)
    last_polls.polled("points", 0)
    assert last_polls.oldest_s() is None


# -- a consumer that brings its schema ------------------------------------------------------------


def test_a_consumer_registers_the_schema_of_its_class(client: Any, schema: JobSchema[Any, Any]) -> None:
    """With the queue's type; its name needs no repeating."""

    class Stacked(Consumer):
        queue_type = QueueKind.STACK

        def run(self, job: Job[Any]) -> None: ...

    Stacked.schema = schema
    with Stacked() as consumer:
        consumer.connect(Orchestrator(client))

        assert consumer.queue_name == "points"
        assert [queue.kind for queue in client.queues()] == ["stack"]


def test_a_name_that_is_not_its_schemas_is_refused(schema: JobSchema[Any, Any]) -> None:
    class Named(Consumer):
        def run(self, job: Job[Any]) -> None: ...

    Named.schema = schema
    with pytest.raises(InvalidInput, match="its schema is named 'points'"):
        Named("others")
    Named.schema = None
    with pytest.raises(InvalidInput, match="or set schema"):
        Named()
    Named.schema = "points"  # type: ignore[assignment]
    with pytest.raises(InvalidInput, match="must be a JobSchema"):
        Named()
