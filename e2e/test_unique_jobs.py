"""Unique jobs of many publishers at once, on every backend."""

import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from background import Background
from conditions import LIMIT_S
from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator, Unique
from mindtrace.jobs.errors import JobReplaced

from .backend_urls import own_url

PUBLISHERS, KEYS = 50, 200


class Image(JobInput):
    path: str
    publisher: int = 0


SCHEMA = JobSchema("images", Image, unique=Unique(by=("path",)))
NEWEST = JobSchema("newest", Image, unique=Unique(by=("path",), replace=True))
DEBOUNCED = JobSchema("debounced", Image, unique=Unique(by=("path",), debounce_s=0.2))


@pytest.fixture
def url(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[str]:
    """The backend that the test is run on, left as it was."""
    with own_url(request.param, request, tmp_path) as url, Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        yield url
        for schema in (SCHEMA, NEWEST, DEBOUNCED):
            orchestrator.register(schema)
            orchestrator.delete_queue(schema.name)


on_all = pytest.mark.parametrize(
    "url", ["memory", "sqlite", "redis", "postgresql", "rabbitmq"], indirect=True
)


@pytest.mark.long
@on_all
def test_fifty_publishers_of_two_hundred_keys_make_two_hundred_jobs(url: str) -> None:
    """All begin each key at a barrier, five to a client, and each gets the id of the job that there is."""
    barrier = threading.Barrier(PUBLISHERS)

    def publish(orchestrator: Orchestrator, publisher: int) -> list[str]:
        queue = orchestrator.queue(SCHEMA)
        ids = []
        for key in range(KEYS):
            barrier.wait(LIMIT_S)
            ids.append(queue.publish(Image(path=f"{key}.png", publisher=publisher)).id)
        return ids

    clients = [Orchestrator(url) for _ in range(PUBLISHERS // 5)]
    try:
        with Background() as pool:
            begun = [pool.submit(publish, clients[number // 5], number) for number in range(PUBLISHERS)]
            answers = [each.result() for each in begun]
    finally:
        for client in clients:
            client.close()
    with Orchestrator(url) as orchestrator:
        orchestrator.register(SCHEMA)
        assert orchestrator.counts(SCHEMA).ready == KEYS
        by_path: dict[str, str] = {}

        class Images(Consumer):
            schema = SCHEMA

            def run(self, job: Job[Image]) -> None:
                assert by_path.setdefault(job.payload.path, job.id) == job.id

        with Images() as consumer:
            consumer.connect(orchestrator)
            assert consumer.consume_until_empty() == KEYS
        assert not orchestrator.backend.coordination.scan("unique/")
    right = [by_path[f"{key}.png"] for key in range(KEYS)]
    assert all(ids == right for ids in answers)


@on_all
def test_a_key_is_free_once_its_job_is_done_dead_or_received(url: str) -> None:
    with Orchestrator(url) as orchestrator:
        queue = orchestrator.queue(SCHEMA)

        class Images(Consumer):
            schema = SCHEMA

            def run(self, job: Job[Image]) -> None:
                assert queue.publish(job.payload).id == job.id

        ids = []
        for _ in range(3):
            ids.append(queue.publish(Image(path="a.png")).id)
            assert queue.publish(Image(path="a.png")).id == ids[-1]
            with Images() as consumer:
                consumer.connect(orchestrator)
                assert consumer.consume(1) == 1
        ids.append(queue.publish(Image(path="a.png")).id)
        received = queue.receive()
        assert received is not None
        assert received.id == ids[-1]
        ids.append(queue.publish(Image(path="a.png")).id)
        assert len(set(ids)) == 5


@on_all
def test_of_jobs_that_wait_the_one_that_nobody_replaced_runs(url: str) -> None:
    """Eight publishers begin each round at a barrier, each with a client of its own."""
    publishers, rounds, keys = 8, 5, ("a.png", "b.png")
    barrier = threading.Barrier(publishers)

    def publish(publisher: int) -> list[tuple[str, str | None]]:
        answers = []
        with Orchestrator(url) as orchestrator:
            orchestrator.register(NEWEST)
            for _ in range(rounds):
                barrier.wait(LIMIT_S)
                images = [Image(path=key, publisher=publisher) for key in keys]
                published = orchestrator.publish_batch(NEWEST, images)
                answers += [(each.id, each.outcome.replaced) for each in published]
        return answers

    with Orchestrator(url) as orchestrator:
        queue = orchestrator.queue(NEWEST)
        with Background() as pool:
            begun = [pool.submit(publish, publisher) for publisher in range(publishers)]
            answers = dict(answer for each in begun for answer in each.result())
        newest = answers.keys() - set(answers.values())
        assert len(newest) == len(keys)
        assert len(answers) == publishers * rounds * len(keys)
        ran: list[str] = []

        class Images(Consumer):
            schema = NEWEST

            def run(self, job: Job[Image]) -> None:
                ran.append(job.id)

        with Images() as consumer:
            consumer.connect(orchestrator)
            assert consumer.consume_until_empty() == len(keys)
        assert set(ran) == newest
        if orchestrator.backend.capabilities.results:
            replaced = next(each for each in answers.values() if each is not None)
            with pytest.raises(JobReplaced):
                orchestrator.result(NEWEST, replaced, timeout_s=LIMIT_S)
        assert queue.counts().waiting == 0
        store = orchestrator.backend.coordination
        assert not {**store.scan("unique/newest/"), **store.scan("replaced/newest/")}


@on_all
def test_of_debounced_jobs_the_last_one_runs(url: str) -> None:
    with Orchestrator(url) as orchestrator:
        queue = orchestrator.queue(DEBOUNCED)
        last = [queue.publish(Image(path="a.png", publisher=number)).id for number in range(5)][-1]
        ran: list[tuple[str, int]] = []

        class Images(Consumer):
            schema = DEBOUNCED

            def run(self, job: Job[Image]) -> None:
                ran.append((job.id, job.payload.publisher))

        with Images() as consumer:
            consumer.connect(orchestrator)
            consumer.consume_until_empty()
        assert (last, 4) in ran
        assert len(ran) == 1


@on_all
def test_the_job_published_last_runs_while_workers_take_what_is_published(url: str) -> None:
    keys, publishes = [f"{key}.png" for key in range(4)], 25
    newest_run: dict[str, int] = {}
    is_over = threading.Event()

    class Images(Consumer):
        schema = NEWEST

        def run(self, job: Job[Image]) -> None:
            before = newest_run.get(job.payload.path, -1)
            newest_run[job.payload.path] = max(before, job.payload.publisher)

    def publish(key: str) -> None:
        with Orchestrator(url) as orchestrator:
            queue = orchestrator.queue(NEWEST)
            for number in range(publishes):
                queue.publish(Image(path=key, publisher=number))

    def consume() -> None:
        with Orchestrator(url) as orchestrator, Images() as consumer:
            consumer.connect(orchestrator, poll_timeout_s=0.05)
            while not is_over.is_set():
                consumer.consume(5, block=False)
            consumer.consume_until_empty()

    with Orchestrator(url) as orchestrator, Background() as pool:
        orchestrator.register(NEWEST)
        consuming = [pool.submit(consume) for _ in range(2)]
        try:
            for each in [pool.submit(publish, key) for key in keys]:
                each.result(LIMIT_S)
        finally:
            is_over.set()
        for each in consuming:
            each.result(LIMIT_S)
        assert orchestrator.counts(NEWEST).waiting == 0
        assert not orchestrator.backend.coordination.scan("unique/newest/")
    assert newest_run == dict.fromkeys(keys, publishes - 1)
