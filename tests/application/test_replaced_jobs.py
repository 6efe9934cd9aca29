"""Jobs that take the place of one that waits."""

import asyncio
import pickle
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mindtrace.jobs import (
    AsyncOrchestrator,
    Capabilities,
    Consumer,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    JobStatus,
    LocalClient,
    LocalConsumerBackend,
    Orchestrator,
    PublishStatus,
    Reject,
    RetryPolicy,
    Unique,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.local.coordination import LocalCoordinationStore
from mindtrace.jobs.domain.errors import BackendUnavailable, JobReplaced, UnsupportedCapability
from mindtrace.jobs.ports import CoordinationStore, Message, PublishOutcome, Settled

QUEUE = "documents"
LONG_S = 60.0


class Document(JobInput):
    path: str
    text: str = ""


class Indexed(JobOutput):
    text: str


def schema_of(**unique: Any) -> JobSchema[Document, Indexed]:
    retry = RetryPolicy(max_attempts=2, base_delay_s=0)
    return JobSchema(QUEUE, Document, Indexed, retry=retry, unique=Unique(by=("path",), **unique))


NEWEST = schema_of(replace=True)
DEBOUNCED = schema_of(debounce_s=5)


class Beside(LocalClient):
    """A broker whose records are in another system, and that can't say where a job is, as RabbitMQ."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, guarded_publish=False, results=False, dedupe=False)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        """Answer as one that knows no duplicates; but a job is there once."""
        outcomes = super().publish(queue, messages)
        return [outcome._replace(status=PublishStatus.ACCEPTED) for outcome in outcomes]

    def status(self, queue: str, job_id: str) -> JobStatus:
        raise UnsupportedCapability("no status here")


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=[LocalClient, Beside], ids=["in one step", "beside"])
def jobs(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Orchestrator]:
    with request.param(clock=clock) as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(NEWEST)
        yield orchestrator


@pytest.fixture
def local(clock: ManualClock) -> Iterator[Orchestrator]:
    with LocalClient(clock=clock) as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(NEWEST)
        yield orchestrator


def indexed(job: Job[Document]) -> Indexed:
    return Indexed(text=job.payload.text)


class Indexer(Consumer):
    """Notes the texts that it runs."""

    def __init__(self, jobs: Orchestrator, handler: Callable[[Job[Document]], Any] = indexed) -> None:
        super().__init__(QUEUE)
        self.ran: list[str] = []
        self._handler = handler
        self.connect(jobs, poll_timeout_s=0.01)

    def run(self, job: Job[Document]) -> Any:
        self.ran.append(job.payload.text)
        return self._handler(job)


def publish(jobs: Orchestrator, *texts: str, path: str = "a", **options: Any) -> list[str]:
    return [jobs.publish(QUEUE, {"path": path, "text": text}, **options) for text in texts]


def kept(jobs: Orchestrator) -> list[str]:
    store = jobs.backend.coordination
    return [*store.scan("unique/"), *store.scan("replaced/")]


def test_of_jobs_that_wait_the_one_published_last_runs(jobs: Orchestrator) -> None:
    ids = publish(jobs, "1", "2", "3")
    publish(jobs, "other", path="b")
    assert len(set(ids)) == 3
    with Indexer(jobs) as indexer:
        indexer.consume_until_empty()
        assert indexer.ran == ["3", "other"]
        publish(jobs, "4")
        indexer.consume_until_empty()
    assert indexer.ran[2:] == ["4"]
    assert kept(jobs) == []


@pytest.mark.parametrize("size", [1, 50], ids=["one by one", "in a batch"])
def test_none_of_many_that_were_replaced_runs(jobs: Orchestrator, size: int) -> None:
    texts = [str(number) for number in range(60)]
    publish(jobs, *texts)
    with Indexer(jobs) as indexer:
        while indexer.consume(size):
            pass
    assert indexer.ran == texts[-1:]
    assert kept(jobs) == []
    assert jobs.counts(QUEUE).waiting == 0


def test_the_outcome_names_the_job_whose_place_was_taken(jobs: Orchestrator) -> None:
    outcomes = [handle.outcome for handle in jobs.publish_batch(QUEUE, [{"path": path} for path in "aba"])]
    assert [outcome.status for outcome in outcomes] == [PublishStatus.ACCEPTED] * 3
    assert [outcome.replaced for outcome in outcomes] == [None, None, outcomes[0].id]
    assert [outcome.standing for outcome in outcomes] == [None] * 3


def test_who_waits_for_a_replaced_job_hears_which_one_took_its_place(local: Orchestrator) -> None:
    queue = local.queue(NEWEST)
    handles = [queue.publish(Document(path="a", text=text)) for text in "12"]
    with Indexer(local) as indexer:
        indexer.consume_until_empty()
    with pytest.raises(JobReplaced, match="published later, took its place") as raised:
        handles[0].result()
    assert raised.value.replaced_by == handles[1].id
    assert handles[1].result() == Indexed(text="2")
    again = pickle.loads(pickle.dumps(raised.value))
    assert (str(again), again.replaced_by) == (str(raised.value), handles[1].id)

    async def main() -> None:
        async with AsyncOrchestrator(local) as calls:
            with pytest.raises(JobReplaced):
                await calls.result(NEWEST, handles[0].id)

    asyncio.run(main())
    assert local.counts(QUEUE).dead == 0


def test_a_job_that_runs_is_not_replaced_and_the_newest_waits_beside_it(jobs: Orchestrator) -> None:
    publish(jobs, "1")
    indexer = Indexer(jobs, lambda job: publish(jobs, "2", "3") and None if job.payload.text == "1" else None)
    assert indexer.consume_until_empty() == 2
    assert indexer.ran == ["1", "3"]
    assert kept(jobs) == []
    indexer.close()


def test_a_job_that_failed_is_not_retried_once_it_was_replaced(jobs: Orchestrator) -> None:
    def fail(job: Job[Document]) -> None:
        if job.payload.text == "1":
            publish(jobs, "2")
            raise ValueError("no text")

    publish(jobs, "1")
    with Indexer(jobs, fail) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["1", "2"]
    assert kept(jobs) == []


def test_a_replaced_job_that_comes_late_does_not_run_though_the_newest_has_ended(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    publish(jobs, "1", delay_s=3600.0)
    publish(jobs, "2", delay_s=1800.0)
    publish(jobs, "3")
    with Indexer(jobs) as indexer:
        indexer.consume(10, block=False)
        assert indexer.ran == ["3"]
        clock.advance(3601.0)
        indexer.consume_until_empty()
    assert indexer.ran == ["3"]
    assert kept(jobs) == []


def test_a_dead_letter_is_not_replaced(jobs: Orchestrator) -> None:
    def reject(job: Job[Document]) -> None:
        raise Reject("no text")

    (first,) = publish(jobs, "1")
    with Indexer(jobs, reject) as indexer:
        indexer.consume(1)
    outcome = jobs.publish_batch(QUEUE, [{"path": "a", "text": "2"}])[0].outcome
    assert outcome.replaced is None
    assert jobs.redrive(QUEUE, [first]) == 1
    with Indexer(jobs) as indexer:
        indexer.consume_until_empty()
    assert sorted(indexer.ran) == ["1", "2"]


def test_a_job_that_is_received_without_a_consumer_is_the_newest(jobs: Orchestrator) -> None:
    publish(jobs, "1", "2")
    received = jobs.receive_message(QUEUE)
    assert received is not None
    assert received.payload == Document(path="a", text="2")
    assert jobs.receive_message(QUEUE) is None
    assert kept(jobs) == []


def test_after_a_purge_the_next_job_runs(jobs: Orchestrator) -> None:
    publish(jobs, "1", "2")
    assert jobs.clean_queue(QUEUE) == 2
    publish(jobs, "3")
    with Indexer(jobs) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["3"]


def test_an_id_that_was_replaced_is_a_duplicate_until_its_job_is_due(
    local: Orchestrator, clock: ManualClock
) -> None:
    mine = local.job(QUEUE, {"path": "a", "text": "mine"}, id="mine")
    local.publish(QUEUE, mine, delay_s=60.0)
    (newer,) = publish(local, "2", delay_s=90.0)
    outcome = local.publish_batch(QUEUE, [mine])[0].outcome
    assert (outcome.status, outcome.replaced) == (PublishStatus.DUPLICATE, None)
    with Indexer(local) as indexer:
        clock.advance(61.0)
        indexer.consume(10, block=False)
        outcome = local.publish_batch(QUEUE, [mine])[0].outcome
        assert (outcome.status, outcome.replaced) == (PublishStatus.ACCEPTED, newer)
        clock.advance(31.0)
        indexer.consume_until_empty()
    assert indexer.ran == ["mine"]
    assert kept(local) == []


def test_a_job_that_is_published_again_beside_its_mark_runs(clock: ManualClock) -> None:
    """Where a broker knows no duplicates, its id may have a mark from before."""
    with Beside(clock=clock) as client:
        jobs = Orchestrator(client)
        jobs.register(NEWEST)
        mine = jobs.job(QUEUE, {"path": "a", "text": "mine"}, id="mine")
        jobs.publish(QUEUE, mine)
        publish(jobs, "2", "3")
        jobs.publish(QUEUE, mine)
        with Indexer(jobs) as indexer:
            indexer.consume_until_empty()
        assert set(indexer.ran) == {"mine"}
        assert kept(jobs) == []


def test_a_duplicate_of_a_dead_letter_replaces_nothing(local: Orchestrator) -> None:
    def reject(job: Job[Document]) -> None:
        raise Reject("no text")

    mine = local.job(QUEUE, {"path": "a", "text": "mine"}, id="mine")
    local.publish(QUEUE, mine)
    with Indexer(local, reject) as indexer:
        indexer.consume(1)
    publish(local, "2")
    outcome = local.publish_batch(QUEUE, [mine])[0].outcome
    assert (outcome.status, outcome.replaced) == (PublishStatus.DUPLICATE, None)
    with Indexer(local) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["2"]


def test_a_duplicate_by_its_id_is_not_replaced_by_a_job_with_its_fields(local: Orchestrator) -> None:
    given = [("x", "a"), ("x", "b"), ("y", "b")]
    batch = [local.job(QUEUE, {"path": path, "text": id_ + path}, id=id_) for id_, path in given]
    outcomes = [local.publish_batch(QUEUE, [job])[0].outcome for job in batch]
    assert [outcome.status.value for outcome in outcomes] == ["accepted", "duplicate", "accepted"]
    assert [outcome.replaced for outcome in outcomes] == [None, None, None]
    with Indexer(local) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["xa", "yb"]
    assert kept(local) == []


@pytest.mark.parametrize("texts", ["1", "12"])
def test_a_duplicate_whose_id_is_published_just_before_leaves_the_job_that_waits(
    local: Orchestrator, texts: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A publisher of its id comes between the look and the publish."""
    *_, last = publish(local, *texts)
    guarded = LocalClient.publish_guarded

    def late(client: LocalClient, *arguments: Any) -> PublishOutcome | None:
        patch.undo()
        local.publish(QUEUE, local.job(QUEUE, {"path": "b", "text": "x"}, id="x"))
        return guarded(client, *arguments)

    with monkeypatch.context() as patch:
        patch.setattr(LocalClient, "publish_guarded", late)
        outcome = local.publish_batch(QUEUE, [local.job(QUEUE, {"path": "a"}, id="x")])[0].outcome
    assert (outcome.status, outcome.replaced) == (PublishStatus.DUPLICATE, None)
    outcome = local.publish_batch(QUEUE, [{"path": "a", "text": "newest"}])[0].outcome
    assert outcome.replaced == last
    with Indexer(local) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["x", "newest"]
    assert kept(local) == []


def test_a_job_that_is_published_again_keeps_what_it_replaced_from_running(local: Orchestrator) -> None:
    publish(local, "old")
    mine = local.job(QUEUE, {"path": "a", "text": "mine"}, id="mine")
    outcomes = [local.publish_batch(QUEUE, [mine])[0].outcome for _ in "12"]
    assert [outcome.status.value for outcome in outcomes] == ["accepted", "duplicate"]
    with Indexer(local) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["mine"]


# -- debounced ------------------------------------------------------------------------------------


def test_a_debounced_job_runs_once_no_other_came_for_a_while(clock: ManualClock) -> None:
    with LocalClient(clock=clock) as client:
        jobs = Orchestrator(client)
        jobs.register(DEBOUNCED)
        with Indexer(jobs) as indexer:
            for text in "1234":
                publish(jobs, text)
                clock.advance(4.0)
                indexer.consume(10, block=False)
                assert indexer.ran == []
            clock.advance(1.1)
            indexer.consume(10, block=False)
            assert indexer.ran == ["4"]
            publish(jobs, "now", delay_s=1.0)  # a delay of its own
            clock.advance(1.1)
            indexer.consume(10, block=False)
        assert indexer.ran == ["4", "now"]
        assert kept(jobs) == []


PUBLISHES: dict[str, Callable[[Orchestrator, Any, float | None], object]] = {
    "publish": lambda jobs, job, delay_s: jobs.publish(QUEUE, job, delay_s=delay_s),
    "publish_batch": lambda jobs, job, delay_s: jobs.publish_batch(QUEUE, [job], delay_s=delay_s),
    "queue": lambda jobs, job, delay_s: jobs.queue(DEBOUNCED).publish(job, delay_s=delay_s),
    "queue's batch": lambda jobs, job, delay_s: jobs.queue(DEBOUNCED).publish_batch([job], delay_s=delay_s),
    "async publish": lambda jobs, job, delay_s: in_a_loop(
        jobs, lambda calls: calls.publish(QUEUE, job, delay_s=delay_s)
    ),
    "async publish_batch": lambda jobs, job, delay_s: in_a_loop(
        jobs, lambda calls: calls.publish_batch(QUEUE, [job], delay_s=delay_s)
    ),
    "async queue": lambda jobs, job, delay_s: in_a_loop(
        jobs, lambda calls: publish_to_queue(calls, job, delay_s=delay_s)
    ),
}


async def publish_to_queue(calls: AsyncOrchestrator, job: Any, **options: Any) -> None:
    queue = await calls.queue(DEBOUNCED)
    await queue.publish(job, **options)


def in_a_loop(jobs: Orchestrator, call: Callable[[AsyncOrchestrator], Any]) -> object:
    async def publish() -> object:
        async with AsyncOrchestrator(jobs) as calls:
            return await call(calls)

    return asyncio.run(publish())


@pytest.mark.parametrize("publish_by", PUBLISHES.values(), ids=list(PUBLISHES))
def test_a_delay_that_is_given_counts_instead_of_the_debounce_also_if_it_is_0(
    clock: ManualClock, publish_by: Callable[[Orchestrator, Any, float | None], object]
) -> None:
    with LocalClient(clock=clock) as client:
        jobs = Orchestrator(client)
        jobs.register(DEBOUNCED)
        due = replace(jobs.job(QUEUE, {"path": "due"}), not_before=datetime.now(UTC))
        publish_by(jobs, {"path": "none"}, None)
        assert (jobs.counts(QUEUE).ready, jobs.counts(QUEUE).delayed) == (0, 1)
        publish_by(jobs, {"path": "at once"}, 0)
        assert (jobs.counts(QUEUE).ready, jobs.counts(QUEUE).delayed) == (1, 1)
        publish_by(jobs, due, None)
        assert (jobs.counts(QUEUE).ready, jobs.counts(QUEUE).delayed) == (2, 1)
        publish_by(jobs, {"path": "soon"}, 1.0)
        clock.advance(1.1)
        assert (jobs.counts(QUEUE).ready, jobs.counts(QUEUE).delayed) == (3, 1)
        clock.advance(4.0)
        assert jobs.counts(QUEUE).ready == 4


# -- many at once, and outages --------------------------------------------------------------------


def test_of_many_publishers_at_once_the_job_that_nobody_replaced_runs(
    jobs: Orchestrator, background: Any
) -> None:
    barrier = threading.Barrier(12)

    def publish_some(publisher: int) -> list[tuple[str, str | None]]:
        answers = []
        for number in range(10):
            barrier.wait(LONG_S)
            outcome = jobs.publish_batch(QUEUE, [{"path": "a", "text": f"{publisher}-{number}"}])[0].outcome
            answers.append((outcome.id, outcome.replaced))
        return answers

    begun = [background(publish_some, publisher) for publisher in range(12)]
    answers = dict(answer for each in begun for answer in each.result(LONG_S))
    (last,) = answers.keys() - set(answers.values())
    assert sorted(filter(None, answers.values())) == sorted(answers.keys() - {last})  # each once
    ran = []
    with Indexer(jobs, lambda job: ran.append(job.id)) as indexer:
        indexer.consume_until_empty()
    assert ran == [last]
    assert kept(jobs) == []


def test_the_last_job_always_runs_while_consumers_take_what_is_published(
    jobs: Orchestrator, background: Any
) -> None:
    """Each ended job of a key is older than the one that ran last, which is the one published last."""
    keys, publishes = [str(key) for key in range(5)], 40
    last_run: dict[str, int] = {}
    is_over = threading.Event()

    def run(job: Job[Document]) -> None:
        last_run[job.payload.path] = max(last_run.get(job.payload.path, -1), int(job.payload.text))

    def consume() -> None:
        with Indexer(jobs, run) as indexer:
            while not is_over.is_set():
                indexer.consume(5, block=False)
            indexer.consume_until_empty()

    def publish_key(key: str) -> None:
        for number in range(publishes):
            publish(jobs, str(number), path=key)

    consuming = [background(consume) for _ in range(3)]
    for each in [background(publish_key, key) for key in keys]:
        each.result(LONG_S)
    is_over.set()
    for each in consuming:
        each.result(LONG_S)
    assert last_run == dict.fromkeys(keys, publishes - 1)


def test_a_publisher_that_loses_the_store_between_its_steps_replaces_nothing(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalCoordinationStore.put

    def away(store: LocalCoordinationStore, key: str, value: bytes, **options: Any) -> int | None:
        if key.startswith("replaced/"):
            raise BackendUnavailable("the store is away")
        return put(store, key, value, **options)

    publish(jobs, "1", "2")
    with monkeypatch.context() as patch:
        patch.setattr(LocalCoordinationStore, "put", away)
        with pytest.raises(BackendUnavailable):
            publish(jobs, "3")
    with Indexer(jobs) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["2"]


def test_a_worker_that_dies_before_it_frees_the_key_lets_no_replaced_job_run(
    local: Orchestrator, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish(local, "1", delay_s=60.0)
    publish(local, "2")
    with monkeypatch.context() as patch:
        patch.setattr(LocalCoordinationStore, "delete", lambda *_, **__: False)
        patch.setattr(LocalCoordinationStore, "put", lambda *_, **__: None)
        with Indexer(local) as indexer:
            indexer.consume(1)
    clock.advance(61.0)
    outcome = local.publish_batch(QUEUE, [{"path": "a", "text": "3"}])[0].outcome
    assert outcome.replaced is None
    with Indexer(local) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["3"]


def test_a_job_that_ends_as_another_publisher_replaces_its_successor_leaves_no_mark(
    local: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Its mark is written after the worker has looked for one. A dead letter would not run when redriven."""
    (first,) = publish(local, "1")
    put, raced = LocalCoordinationStore.put, list[list[str]]()

    def race(store: LocalCoordinationStore, key: str, value: bytes, **options: Any) -> int | None:
        if key.startswith("unique/") and not raced:  # the worker is about to free the key
            raced.append([])
            raced.append(publish(local, "3", delay_s=60.0))
        return put(store, key, value, **options)

    def reject(job: Job[Document]) -> None:
        publish(local, "2", delay_s=60.0)
        monkeypatch.setattr(LocalCoordinationStore, "put", race)
        raise Reject("no text")

    with Indexer(local, reject) as indexer:
        indexer.consume(1)
    assert len(raced) == 2
    assert [key.split("/")[3] for key in local.backend.coordination.scan("replaced/")] == []
    local.redrive(QUEUE, [first])
    with Indexer(local) as indexer:
        indexer.consume(1)
    assert indexer.ran == ["1"]


def test_while_the_store_is_away_consumers_go_on_and_replaced_jobs_run(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    get = LocalCoordinationStore.get

    def away(store: LocalCoordinationStore, keys: Sequence[str]) -> Any:
        if any(key.startswith("replaced/") for key in keys):
            raise BackendUnavailable("the store is away")
        return get(store, keys)

    publish(jobs, "1", "2")
    monkeypatch.setattr(LocalCoordinationStore, "get", away)
    with Indexer(jobs) as indexer:
        indexer.consume_until_empty()
    assert indexer.ran == ["1", "2"]


def test_a_replaced_job_that_cannot_be_settled_comes_again_and_does_not_run(
    local: Orchestrator, clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    settle = LocalConsumerBackend.settle
    failed: list[object] = []

    def breaks(backend: LocalConsumerBackend, settlements: Any, *, take: int = 0) -> Settled:
        if settlements and not failed:
            failed.append(settlements)
            raise BackendUnavailable("the broker is away")
        return settle(backend, settlements, take=take)

    publish(local, "1", "2")
    monkeypatch.setattr(LocalConsumerBackend, "settle", breaks)
    with Indexer(local) as indexer:
        indexer.consume(1)
        assert len(failed) == 1
        clock.advance(3600.0)
        indexer.consume(1)
    assert indexer.ran == ["2"]
    assert local.counts(QUEUE).waiting == 0
    assert kept(local) == []


def test_without_a_store_a_schema_that_replaces_is_refused() -> None:
    class WithoutStore(LocalClient):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, coordination=False, guarded_publish=False)

        @property
        def coordination(self) -> CoordinationStore:
            raise AssertionError("asked for a store that isn't there")

    with WithoutStore() as client:
        jobs = Orchestrator(client)
        jobs.register(NEWEST)
        with pytest.raises(UnsupportedCapability, match="unique jobs need a coordination store"):
            publish(jobs, "1")
