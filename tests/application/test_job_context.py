"""What a handler reaches: the orchestrator, the job that runs, and its name on every line of log."""

import asyncio
import gc
import logging
import pickle
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor  # noqa: TID251 - as a handler may have
from contextvars import copy_context
from typing import Any

import pytest

from background import Background
from mindtrace.jobs import (
    Attempt,
    Consumer,
    Job,
    JobContextFilter,
    JobInput,
    JobSchema,
    LocalClient,
    NotConnected,
    NotInHandler,
    Observer,
    Orchestrator,
    Progress,
    current_job,
    job_from_schema,
    job_handler,
    progress,
)


class Step(JobInput):
    number: int = 0


FIRST = JobSchema("first", Step)
SECOND = JobSchema("second", Step)


# -- the orchestrator -----------------------------------------------------------------------------


def test_a_handler_publishes_the_next_job(orchestrator: Orchestrator) -> None:
    """A class by ``self.orchestrator``, a function by ``job.orchestrator``; both are the one connected."""

    class First(Consumer):
        schema = FIRST

        def run(self, job: Job[Step]) -> None:
            assert self.orchestrator is job.orchestrator is orchestrator
            self.orchestrator.publish(SECOND, Step(number=job.payload.number + 1))

    numbers: list[int] = []

    @job_handler(SECOND)
    async def second(job: Job[Step]) -> None:
        numbers.append(job.payload.number)
        if job.payload.number < 3:
            await asyncio.to_thread(job.orchestrator.publish, FIRST, Step(number=job.payload.number + 1))

    with First() as one, second.consumer() as other:
        one.connect(orchestrator)
        other.connect(orchestrator)
        orchestrator.publish(FIRST, Step())
        while one.consume_until_empty() + other.consume_until_empty():
            pass

    assert numbers == [1, 3]


def test_outside_a_handler_there_is_none_and_the_error_says_so(orchestrator: Orchestrator) -> None:
    """Not of a job that was made, nor of one that was taken without a consumer."""
    orchestrator.publish("points", {})
    for job in (job_from_schema(FIRST, {}), orchestrator.receive_message("points")):
        with pytest.raises(NotInHandler, match="no handler runs here"):
            job.orchestrator  # noqa: B018


def test_a_consumer_has_one_while_it_is_connected(orchestrator: Orchestrator, make_consumer: Any) -> None:
    consumer = make_consumer()
    assert consumer.orchestrator is orchestrator
    consumer.close()
    with pytest.raises(NotConnected, match="connect"):
        consumer.orchestrator  # noqa: B018


def test_a_job_stays_a_value(orchestrator: Orchestrator, make_consumer: Any) -> None:
    """In its handler too: frozen, equal, hashable, and sent to another process without the orchestrator."""
    seen: list[Job[Any]] = []

    def work(job: Job[Any]) -> None:
        assert job.orchestrator is orchestrator
        copy = pickle.loads(pickle.dumps(job))
        assert copy == job
        assert hash(copy) == hash(job)
        with pytest.raises(AttributeError):
            job.priority = 1  # type: ignore[misc]
        seen.append(copy)

    orchestrator.publish("points", {})
    make_consumer(work).consume(1)

    assert len(seen) == 1
    with pytest.raises(NotInHandler):
        seen[0].orchestrator  # noqa: B018


# -- the job that runs ----------------------------------------------------------------------------


def test_the_current_job_is_the_one_whose_handler_runs(
    orchestrator: Orchestrator, make_consumer: Any
) -> None:
    """Its own in each of many threads, and none between jobs, nor for the code around a consumer."""
    width = 4
    together = threading.Barrier(width, timeout=60)
    pairs: list[tuple[Any, Any]] = []

    def work(job: Job[Any]) -> None:
        together.wait()
        pairs.append((job, current_job()))

    orchestrator.publish_batch("points", [{}] * (2 * width))
    consumers = [make_consumer(work, prefetch=1) for _ in range(width)]
    with Background() as pool:
        assert pool.map(lambda consumer: consumer.consume(2), consumers) == [2] * width

    assert len(pairs) == 2 * width
    assert all(job is current for job, current in pairs)
    assert current_job() is None


def test_a_consumer_within_a_handler_gives_the_job_back(
    orchestrator: Orchestrator, make_consumer: Any
) -> None:
    """As a handler may consume another queue, and waits for it."""
    orchestrator.register(FIRST)
    inner: list[Any] = []

    class Inner(Consumer):
        schema = FIRST

        def run(self, job: Job[Step]) -> None:
            inner.append(current_job() is job)

    def work(job: Job[Any]) -> None:
        job.orchestrator.publish(FIRST, {})
        with Inner() as consumer:
            consumer.connect(job.orchestrator)
            consumer.consume_until_empty()
        inner.append(current_job() is job)

    orchestrator.publish("points", {})
    make_consumer(work).consume(1)

    assert inner == [True, True]


def test_threads_and_tasks_of_a_handler_share_its_job(orchestrator: Orchestrator) -> None:
    """Tasks and ``to_thread`` by themselves, other threads in a copy of the context, and no others."""
    seen: dict[str, Any] = {}

    def note(where: str) -> None:
        seen[where] = current_job()

    class Async(Consumer):
        async def run(self, job: Job[Any]) -> None:
            await asyncio.create_task(asyncio.to_thread(note, "to_thread"))
            with ThreadPoolExecutor(1) as pool:
                pool.submit(copy_context().run, note, "copied").result()
                pool.submit(note, "plain").result()

    job_id = orchestrator.publish("points", {})
    with Async("points") as consumer:
        consumer.connect(orchestrator)
        consumer.consume(1)

    assert {where: job and job.id for where, job in seen.items()} == {
        "to_thread": job_id,
        "copied": job_id,
        "plain": None,
    }


# -- progress of what a job left behind -----------------------------------------------------------


def test_the_progress_of_a_task_that_a_job_left_behind_goes_nowhere(orchestrator: Orchestrator) -> None:
    """And not to the job that runs now."""
    shown: list[dict[str, Progress]] = []

    class Async(Consumer):
        async def run(self, job: Job[Any]) -> None:
            if job.payload.x == 0:
                self.go, self.told = asyncio.Event(), asyncio.Event()
                self.stray = asyncio.create_task(self.leave(job))
                return
            self.go.set()
            await self.told.wait()
            shown.append(orchestrator.progress("points"))
            job.progress(2, 2)
            shown.append(orchestrator.progress("points"))

        async def leave(self, job: Job[Any]) -> None:
            await self.go.wait()
            progress(1, 100)
            job.progress(1, 100)
            self.told.set()

    orchestrator.publish("points", {"x": 0})
    second = orchestrator.publish("points", {"x": 1})
    with Async("points") as consumer:
        consumer.connect(orchestrator, prefetch=1)
        consumer.consume(2)

    assert shown == [{}, {second: Progress(2, 2)}]


@pytest.mark.usefixtures("never_early")
@pytest.mark.parametrize("prefetch", [1, 2])
def test_that_of_a_thread_goes_to_its_own_job_or_nowhere(
    orchestrator: Orchestrator, make_consumer: Any, prefetch: int
) -> None:
    """To its own as long as that isn't settled, as in a batch."""
    go, told = threading.Event(), threading.Event()
    shown: list[dict[str, Progress]] = []

    def leave() -> None:
        go.wait(60)
        progress(1, 100)
        told.set()

    def work(job: Job[Any]) -> None:
        if job.payload.x == 0:
            threading.Thread(target=copy_context().run, args=(leave,)).start()
            return
        go.set()
        assert told.wait(60)
        shown.append(orchestrator.progress("points"))

    first, _ = (handle.id for handle in orchestrator.publish_batch("points", [{"x": 0}, {"x": 1}]))
    make_consumer(work, prefetch=prefetch).consume(2)

    assert shown == [{} if prefetch == 1 else {first: Progress(1, 100)}]


def test_jobs_that_run_at_once_report_each_for_itself(orchestrator: Orchestrator, make_consumer: Any) -> None:
    together = threading.Barrier(2, timeout=60)
    shown: list[dict[str, Progress]] = []

    def work(job: Job[Any]) -> None:
        together.wait()
        job.progress(job.payload.x, 10)
        together.wait()
        shown.append(orchestrator.progress("points"))
        together.wait()

    ids = [orchestrator.publish("points", {"x": x}) for x in (3, 4)]
    consumers = [make_consumer(work, prefetch=1) for _ in range(2)]
    with Background() as pool:
        pool.map(lambda consumer: consumer.consume(1), consumers)

    assert shown == [{ids[0]: Progress(3, 10), ids[1]: Progress(4, 10)}] * 2


# -- the log --------------------------------------------------------------------------------------


class Lines(logging.Handler):
    """Keeps what it is given, as a formatter would write it."""

    def __init__(self) -> None:
        super().__init__(logging.INFO)
        self.lines: list[str] = []
        self.setFormatter(logging.Formatter("%(job_queue)s %(job_id)s %(job_attempt)s %(message)s"))
        self.addFilter(JobContextFilter())

    def emit(self, record: logging.LogRecord) -> None:
        self.lines.append(self.format(record).partition("\n")[0])


@pytest.fixture
def lines() -> Iterator[list[str]]:
    """The lines of log of everything."""
    gc.collect()  # asyncio logs a task that failed unseen when it is collected: now, not within the test
    handler, root = Lines(), logging.getLogger()
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.INFO)
    yield handler.lines
    root.removeHandler(handler)
    root.setLevel(level)


def test_every_line_of_a_handler_names_its_job(
    lines: list[str], client: LocalClient, schema: JobSchema[Any, Any]
) -> None:
    """Of the program's own loggers, of the consumer's, and what the library says of the job."""

    class Loud(Observer):
        def ended(self, attempt: Attempt) -> None:
            logging.getLogger("mine").info("ended")

    class Async(Consumer):
        async def run(self, job: Job[Any]) -> None:
            self.logger.info("hello")
            await asyncio.to_thread(logging.getLogger("mine.helper").info, "helping")
            raise ValueError(job.attempt)

    jobs = Orchestrator(client, observers=[Loud()])
    jobs.register(schema)
    jobs.publish("points", jobs.job("points", {}, id="a"))
    with Async("points") as consumer:
        consumer.connect(jobs)
        consumer.consume(2)
    logging.getLogger("mine").info("after it")

    attempts = [
        [
            f"points a {n} hello",
            f"points a {n} helping",
            f"points a {n} job a: attempt {n} failed",
            f"points a {n} ended",
        ]
        for n in (1, 2)
    ]
    assert lines == [*attempts[0], *attempts[1], "- - - after it"]


def test_a_filter_leaves_alone_what_another_has_added(lines: list[str]) -> None:
    """So a record that travels to another thread keeps its job."""
    record = logging.LogRecord("mine", logging.INFO, "", 1, "hello", None, None)
    record.job_queue, record.job_id, record.job_attempt = "points", "a", 1

    assert JobContextFilter().filter(record)
    assert (record.job_queue, record.job_id, record.job_attempt) == ("points", "a", 1)
