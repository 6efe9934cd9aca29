"""Jobs of which one at a time is in a queue."""

import asyncio
import threading
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
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
    Orchestrator,
    PublishStatus,
    Reject,
    RetryPolicy,
    Unique,
)
from mindtrace.jobs.adapters.local import ManualClock
from mindtrace.jobs.adapters.local.coordination import LocalCoordinationStore
from mindtrace.jobs.application.broker.guarded_publish import claim_of
from mindtrace.jobs.application.pausing import watch
from mindtrace.jobs.application.unique_jobs import records as records_module
from mindtrace.jobs.application.unique_jobs.records import UniqueRecords
from mindtrace.jobs.domain.errors import BackendUnavailable, PublishUnknown, UnsupportedCapability
from mindtrace.jobs.ports import ABSENT, Ack, CoordinationStore, Message, PublishOutcome

QUEUE = "images"
LONG_S = 60.0


class Image(JobInput):
    path: str
    size: int = 1


class Sum(JobOutput):
    size: int


def schema_of(**unique: Any) -> JobSchema[Image, Sum]:
    return JobSchema(
        QUEUE, Image, Sum, unique=Unique(**unique), retry=RetryPolicy(max_attempts=2, base_delay_s=0)
    )


BY_PATH = schema_of(by=("path",))
BY_ALL = schema_of()
FOR_AN_HOUR = schema_of(by=("path",), period_s=3600)


class Beside(LocalClient):
    """A broker whose records are in another system, and that can't say where a job is, as RabbitMQ."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, guarded_publish=False, results=False, dedupe=False)

    def status(self, queue: str, job_id: str) -> JobStatus:
        raise UnsupportedCapability("no status here")


CLIENTS = {"in one step": LocalClient, "beside": Beside}


@pytest.fixture
def clock() -> ManualClock:
    return ManualClock()


@pytest.fixture(params=CLIENTS.values(), ids=list(CLIENTS))
def jobs(request: pytest.FixtureRequest, clock: ManualClock) -> Iterator[Orchestrator]:
    with request.param(clock=clock) as client:
        yield Orchestrator(client)


Handler = Callable[[Job[Image]], Any]


def consumer_of(jobs: Orchestrator, handler: Handler = lambda job: Sum(size=job.payload.size)) -> Consumer:
    class Images(Consumer):
        def run(self, job: Job[Image]) -> Any:
            return handler(job)

    consumer = Images(QUEUE)
    consumer.connect(jobs, poll_timeout_s=0.01)
    return consumer


def publish_as(jobs: Orchestrator, id_: str, path: str) -> list[PublishOutcome]:
    return [handle.outcome for handle in jobs.publish_batch(QUEUE, [jobs.job(QUEUE, {"path": path}, id=id_)])]


def records(jobs: Orchestrator) -> list[str]:
    return list(jobs.backend.coordination.scan("unique/"))


def fail(job: Job[Image]) -> None:
    raise ValueError("no image")


def reject(job: Job[Image]) -> None:
    raise Reject("no image")


# -- while a job is live --------------------------------------------------------------------------


def test_a_job_in_the_place_of_another_is_not_published_and_its_publisher_gets_the_other(
    jobs: Orchestrator,
) -> None:
    queue = jobs.queue(BY_PATH)
    first = queue.publish(Image(path="a.png", size=3))
    assert queue.publish(Image(path="a.png", size=5)).id == first.id
    assert jobs.publish(QUEUE, {"path": "a.png"}) == first.id
    other = queue.publish(Image(path="b.png"))
    assert other.id != first.id
    assert queue.counts().ready == 2
    consumer = consumer_of(jobs, lambda job: answers.append(queue.publish(job.payload).id))
    answers: list[str] = []
    assert consumer.consume_until_empty() == 2
    assert answers == [first.id, other.id]  # also while they ran
    assert records(jobs) == []
    assert queue.publish(Image(path="a.png")).id not in (first.id, other.id)
    consumer.close()


def test_a_batch_says_which_jobs_stand_in_the_place_of_which(jobs: Orchestrator) -> None:
    jobs.register(BY_PATH)
    standing = jobs.publish(QUEUE, {"path": "b"})
    handles = jobs.publish_batch(QUEUE, [{"path": "a"}, {"path": "b"}, {"size": 1}, {"path": "a", "size": 2}])
    outcomes = [handle.outcome for handle in handles]
    accepted = outcomes[0]
    assert [handle.id for handle in handles] == [accepted.id, standing, "", accepted.id]
    assert [outcome.status for outcome in outcomes] == [
        PublishStatus.ACCEPTED,
        PublishStatus.DUPLICATE,
        PublishStatus.REJECTED,
        PublishStatus.DUPLICATE,
    ]
    assert [outcome.standing for outcome in outcomes] == [None, standing, None, accepted.id]
    assert len({outcome.id for outcome in outcomes}) == 4
    assert jobs.counts(QUEUE).ready == 2


def test_by_default_all_fields_count(jobs: Orchestrator) -> None:
    jobs.register(BY_ALL)
    ids = [jobs.publish(QUEUE, {"path": "a", "size": size}) for size in (1, 2, 1)]
    assert ids[0] == ids[2] != ids[1]
    assert jobs.publish(QUEUE, {"path": "a"}) == ids[0]  # as it is written with its default


def test_a_job_that_is_retried_keeps_its_key_and_a_dead_one_does_not(jobs: Orchestrator) -> None:
    jobs.register(BY_PATH)
    first = jobs.publish(QUEUE, {"path": "a"})
    consumer = consumer_of(jobs, fail)
    assert consumer.consume(1) == 1
    assert jobs.publish(QUEUE, {"path": "a"}) == first
    assert consumer.consume(1) == 1
    assert jobs.counts(QUEUE).dead == 1
    second = jobs.publish(QUEUE, {"path": "a"})
    assert second != first
    consumer.close()
    with consumer_of(jobs, reject) as consumer:
        consumer.consume_until_empty()
    assert jobs.counts(QUEUE).dead == 2
    assert records(jobs) == []


def test_a_job_that_is_received_without_a_consumer_frees_its_key(jobs: Orchestrator) -> None:
    jobs.register(BY_PATH)
    first = jobs.publish(QUEUE, {"path": "a"})
    received = jobs.receive_message(QUEUE)
    assert received is not None
    assert received.id == first
    assert jobs.publish(QUEUE, {"path": "a"}) != first


def test_delays_priorities_and_ids_of_ones_own_work(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.register(BY_PATH, "priority")
    job = jobs.job(QUEUE, {"path": "a"}, id="mine")
    assert jobs.publish(QUEUE, job, priority=5, delay_s=30.0) == "mine"
    assert jobs.publish(QUEUE, job) == "mine"
    assert jobs.publish(QUEUE, {"path": "a"}, delay_s=1.0) == "mine"
    assert jobs.counts(QUEUE).waiting == 1
    clock.advance(31.0)
    ran: list[int] = []
    with consumer_of(jobs, lambda job: ran.append(job.priority)) as consumer:
        consumer.consume(1)
    assert ran == [5]
    assert jobs.publish(QUEUE, job) == "mine"
    assert jobs.counts(QUEUE).ready == 1


@pytest.mark.parametrize("schema", [BY_PATH, FOR_AN_HOUR], ids=["while live", "for a period"])
def test_a_duplicate_by_its_id_keeps_no_job_with_its_fields_out(jobs: Orchestrator, schema: Any) -> None:
    jobs.register(schema)
    given = [("x", "a"), ("x", "b"), ("y", "b"), ("z", "b")]
    outcomes = [outcome for id_, path in given for outcome in publish_as(jobs, id_, path)]
    accepted, duplicate = PublishStatus.ACCEPTED, PublishStatus.DUPLICATE
    assert [(outcome.status, outcome.standing) for outcome in outcomes] == [
        (accepted, None),
        (duplicate, None),
        (accepted, None),
        (duplicate, "y"),
    ]
    ran: list[tuple[str, str]] = []
    with consumer_of(jobs, lambda job: ran.append((job.id, job.payload.path))) as consumer:
        consumer.consume_until_empty()
    assert ran == [("x", "a"), ("y", "b")]


def test_the_same_input_in_another_queue_is_another_job(jobs: Orchestrator) -> None:
    queues = [jobs.queue(BY_PATH), jobs.queue(BY_PATH, queue="others")]
    ids = [queue.publish(Image(path="a")).id for queue in queues]
    assert ids[0] != ids[1]


# -- with a period --------------------------------------------------------------------------------


def test_a_period_runs_from_the_publish_also_past_the_end_of_the_job(
    jobs: Orchestrator, clock: ManualClock
) -> None:
    jobs.register(FOR_AN_HOUR)
    first = jobs.publish(QUEUE, {"path": "a"})
    with consumer_of(jobs) as consumer:
        assert consumer.consume(1) == 1
        clock.advance(3599.0)
        assert jobs.publish(QUEUE, {"path": "a"}) == first
        assert jobs.counts(QUEUE).ready == 0
        clock.advance(2.0)
        assert records(jobs) == []  # it was kept for the period
        second = jobs.publish(QUEUE, {"path": "a"})
        assert second != first
        clock.advance(3601.0)
        assert jobs.publish(QUEUE, {"path": "a"}) == second  # it still waits
        assert consumer.consume(1) == 1
        assert records(jobs) == []
        assert jobs.publish(QUEUE, {"path": "a"}) != second


# -- what became of the job in its place ----------------------------------------------------------


def test_a_job_that_was_purged_keeps_nobody_out(jobs: Orchestrator) -> None:
    jobs.register(BY_PATH)
    first = jobs.publish(QUEUE, {"path": "a"})
    assert jobs.clean_queue(QUEUE) == 1
    assert jobs.publish(QUEUE, {"path": "a"}) != first
    assert jobs.counts(QUEUE).ready == 1


def test_the_period_of_a_job_that_was_purged_runs_on(jobs: Orchestrator, clock: ManualClock) -> None:
    jobs.register(FOR_AN_HOUR)
    first = jobs.publish(QUEUE, {"path": "a"})
    jobs.clean_queue(QUEUE)
    clock.advance(3599.0)
    assert jobs.publish(QUEUE, {"path": "a"}) == first
    clock.advance(1.0)
    assert jobs.publish(QUEUE, {"path": "a"}) != first


def test_a_job_whose_queue_was_deleted_keeps_nobody_out(jobs: Orchestrator) -> None:
    jobs.register(BY_PATH)
    first = jobs.publish(QUEUE, {"path": "a"})
    jobs.delete_queue(QUEUE)
    jobs.register(BY_PATH)
    assert jobs.publish(QUEUE, {"path": "a"}) != first
    assert jobs.counts(QUEUE).ready == 1


def test_a_queue_is_deleted_with_its_periods_and_keys_and_no_others(jobs: Orchestrator) -> None:
    queues = [jobs.queue(FOR_AN_HOUR), jobs.queue(FOR_AN_HOUR, queue=f"{QUEUE}.others")]
    first, other = [queue.publish(Image(path="a")).id for queue in queues]
    with consumer_of(jobs) as consumer:
        consumer.consume(1)
    jobs.backend.coordination.put(f"replaced/{QUEUE}/0/x", b"y")
    jobs.delete_queue(QUEUE)
    assert [key.split("/")[1] for key in records(jobs)] == [f"{QUEUE}.others"]
    assert jobs.backend.coordination.scan("replaced/") == {}
    jobs.register(FOR_AN_HOUR)
    assert jobs.publish(QUEUE, {"path": "a"}) != first
    assert queues[1].publish(Image(path="a")).id == other


@pytest.fixture
def local(clock: ManualClock) -> Iterator[Orchestrator]:
    with LocalClient(clock=clock) as client:
        orchestrator = Orchestrator(client)
        orchestrator.register(BY_PATH)
        yield orchestrator


def test_a_handle_of_a_duplicate_has_the_result_of_the_job_in_its_place(local: Orchestrator) -> None:
    queue = local.queue(BY_PATH)
    queue.publish(Image(path="a", size=7))
    duplicate = queue.publish(Image(path="a", size=1))
    with consumer_of(local) as consumer:
        consumer.consume(1)
    result = duplicate.result()
    assert result is not None
    assert result.size == 7


def test_a_job_whose_record_was_left_gives_way_once_it_has_ended(
    local: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    first = local.publish(QUEUE, {"path": "a"})
    local.clean_queue(QUEUE)
    second = local.publish(QUEUE, {"path": "a"})
    assert second != first
    monkeypatch.setattr(LocalCoordinationStore, "delete", lambda *_, **__: False)  # as if killed before
    with consumer_of(local) as consumer:
        consumer.consume(1)
    assert len(records(local)) == 1
    assert local.publish(QUEUE, {"path": "a"}) not in (first, second)


def test_a_record_that_was_left_goes_with_its_time(local: Orchestrator, clock: ManualClock) -> None:
    local.publish(QUEUE, {"path": "a"}, delay_s=30 * 86_400.0)
    local.clean_queue(QUEUE)
    clock.advance(30 * 86_400.0)
    assert len(records(local)) == 1
    clock.advance(7 * 86_400.0)
    assert records(local) == []


def test_the_end_of_one_job_does_not_free_the_key_of_another(local: Orchestrator) -> None:
    """A dead job is redriven after another has its key: its end leaves that one's record."""
    first = local.publish(QUEUE, {"path": "a"})
    with consumer_of(local, reject) as consumer:
        consumer.consume(1)
    second = local.publish(QUEUE, {"path": "a"}, delay_s=60.0)
    local.redrive(QUEUE, [first])
    with consumer_of(local) as consumer:
        assert consumer.consume(1) == 1
    assert local.publish(QUEUE, {"path": "a"}) == second


# -- many publishers ------------------------------------------------------------------------------


def test_a_duplicate_by_its_id_within_a_batch_keeps_the_next_one_not_out(local: Orchestrator) -> None:
    given = [("x", "a"), ("x", "b"), ("y", "b")]
    batch = [local.job(QUEUE, {"path": path}, id=id_) for id_, path in given]
    outcomes = [handle.outcome for handle in local.publish_batch(QUEUE, batch)]
    assert [outcome.status.value for outcome in outcomes] == ["accepted", "duplicate", "accepted"]


def test_a_duplicate_of_a_dead_letter_starts_no_period(local: Orchestrator) -> None:
    local.register(FOR_AN_HOUR)
    publish_as(local, "x", "a")
    with consumer_of(local, reject) as consumer:
        consumer.consume(1)
    (outcome,) = publish_as(local, "x", "b")
    assert outcome.status is PublishStatus.DUPLICATE
    (outcome,) = publish_as(local, "y", "b")
    assert outcome.status is PublishStatus.ACCEPTED


def test_a_key_that_was_changed_since_is_not_taken_back(
    local: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Another publisher has taken it over, as the job that it named had ended."""
    publish_as(local, "x", "a")
    publish, raced = LocalClient.publish_guarded, list[str]()

    def race(client: LocalClient, *arguments: Any) -> PublishOutcome | None:
        outcome = publish(client, *arguments)
        patch.undo()
        with consumer_of(local) as consumer:
            consumer.consume(1)
        raced.append(local.publish(QUEUE, {"path": "b"}))
        return outcome

    with monkeypatch.context() as patch:
        patch.setattr(LocalClient, "publish_guarded", race)
        (outcome,) = publish_as(local, "x", "b")
    assert outcome.status is PublishStatus.DUPLICATE
    assert [local.publish(QUEUE, {"path": "b"})] == raced


def test_a_key_that_was_not_taken_back_gives_way_once_the_job_of_that_id_has_ended(
    local: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> bool:
        raise BackendUnavailable("the store is away")

    publish_as(local, "x", "a")
    with monkeypatch.context() as patch:
        patch.setattr(LocalCoordinationStore, "delete", away)
        (outcome,) = publish_as(local, "x", "b")
    assert (outcome.status, outcome.standing) == (PublishStatus.DUPLICATE, None)
    assert local.publish(QUEUE, {"path": "b"}) == "x"
    with consumer_of(local) as consumer:
        consumer.consume(1)
    assert local.publish(QUEUE, {"path": "b"}) != "x"


def test_of_many_publishers_at_once_one_succeeds_and_all_get_its_id(
    jobs: Orchestrator, background: Any
) -> None:
    publishers, keys = 16, 20
    jobs.register(BY_PATH)
    barrier = threading.Barrier(publishers)

    def publish() -> list[str]:
        ids = []
        for key in range(keys):
            barrier.wait(LONG_S)
            ids.append(jobs.publish(QUEUE, {"path": str(key)}))
        return ids

    answers = [each.result(LONG_S) for each in [background(publish) for _ in range(publishers)]]
    assert jobs.counts(QUEUE).ready == keys
    assert len({tuple(ids) for ids in answers}) == 1
    assert len(set(answers[0])) == keys


def test_coroutines_publish_unique_jobs(jobs: Orchestrator) -> None:
    async def main() -> None:
        async with AsyncOrchestrator(jobs) as calls:
            queue = await calls.queue(BY_PATH)
            handles = await asyncio.gather(*(queue.publish(Image(path="a", size=n)) for n in range(20)))
            assert len({handle.id for handle in handles}) == 1
            outcome = (await queue.publish_batch([Image(path="a")]))[0].outcome
            assert outcome.standing == handles[0].id

    asyncio.run(main())
    assert jobs.counts(QUEUE).ready == 1


class BesideWithResults(Beside):
    """As :class:`Beside`, with results: they say that a job has ended before its consumer frees the key."""

    meanwhile: Callable[[], object] = staticmethod(lambda: None)
    """What happens while a job is published."""

    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, results=True)

    def publish(self, queue: str, messages: Sequence[Message]) -> list[PublishOutcome]:
        self.meanwhile()
        return super().publish(queue, messages)


def test_a_key_that_is_freed_while_its_next_job_is_published_is_that_of_the_next_job() -> None:
    """The claim keeps publishers out, but not the consumer of the job before."""
    with BesideWithResults() as client:
        jobs = Orchestrator(client)
        jobs.register(BY_PATH)
        first = jobs.publish(QUEUE, {"path": "a"})
        with client.open_consumer(QUEUE) as consumer:
            consumer.settle([Ack(consumer.receive(1, 0.0)[0].receipt, b"{}")])
        (key,) = records(jobs)
        client.meanwhile = lambda: UniqueRecords(client, QUEUE, BY_PATH).free({first: key})
        second = jobs.publish(QUEUE, {"path": "a"})
        assert second != first
        assert jobs.publish(QUEUE, {"path": "a"}) == second
        assert jobs.counts(QUEUE).ready == 1


# -- what is refused, and outages -----------------------------------------------------------------


def test_a_unique_job_is_not_published_in_a_callers_transaction(jobs: Orchestrator) -> None:
    queue = jobs.queue(BY_PATH)
    for call in (queue.publish, lambda job, connection: queue.publish_batch([job], connection=connection)):
        with pytest.raises(UnsupportedCapability, match="publish after the commit"):
            call(Image(path="a"), connection=object())

    async def main() -> None:
        async with AsyncOrchestrator(jobs) as calls:
            with pytest.raises(UnsupportedCapability, match="publish after the commit"):
                await calls.publish(QUEUE, {"path": "a"}, connection=object())
            with pytest.raises(UnsupportedCapability, match="publish after the commit"):
                await calls.publish_batch(QUEUE, [{"path": "a"}], connection=object())

    asyncio.run(main())
    assert jobs.counts(QUEUE).ready == 0


class WithoutStore(LocalClient):
    @property
    def capabilities(self) -> Capabilities:
        return replace(super().capabilities, coordination=False, guarded_publish=False)

    @property
    def coordination(self) -> CoordinationStore:
        raise AssertionError("asked for a store that isn't there")


def test_without_a_store_unique_jobs_are_refused_and_others_never_ask_for_one(schema: Any) -> None:
    with WithoutStore() as client:
        jobs = Orchestrator(client)
        jobs.register(BY_PATH)
        with pytest.raises(UnsupportedCapability, match="unique jobs need a coordination store"):
            jobs.publish(QUEUE, {"path": "a"})
        jobs.register(schema)
        jobs.publish("points", {})
        jobs.publish_batch("points", [{}, {}])
        assert jobs.receive_message("points") is not None
        with consumer_of(jobs) as consumer:
            client.publish(QUEUE, [Message("x", b"{}")])
            assert consumer.consume(1) == 1


def test_while_the_store_is_away_nothing_is_published(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    def away(*_: Any, **__: Any) -> Any:
        raise BackendUnavailable("the store is away")

    jobs.register(BY_PATH)
    monkeypatch.setattr(LocalCoordinationStore, "get", away)
    with pytest.raises(BackendUnavailable) as raised:
        jobs.publish(QUEUE, {"path": "a"})
    assert not isinstance(raised.value, PublishUnknown)
    with pytest.raises(BackendUnavailable):
        jobs.publish_batch(QUEUE, [{"path": "a"}, {"path": "b"}])
    assert jobs.counts(QUEUE).ready == 0


def test_a_consumer_goes_on_while_the_store_is_away(
    jobs: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(watch, "_AWAY_S", LONG_S)
    jobs.register(BY_PATH)
    for path in "abc":
        jobs.publish(QUEUE, {"path": path})
    asked = []

    def away(store: CoordinationStore, keys: Sequence[str]) -> Any:
        if not keys[0].startswith("pauses/"):
            asked.append(keys)
            raise BackendUnavailable("the store is away")
        return {}

    monkeypatch.setattr(LocalCoordinationStore, "get", away)
    with consumer_of(jobs) as consumer:
        for _ in "abc":
            assert consumer.consume(1) == 1
    assert len(asked) == 1  # it isn't asked again at once


def test_a_store_that_goes_away_after_the_publish_leaves_the_outcome_unknown(
    clock: ManualClock, monkeypatch: pytest.MonkeyPatch
) -> None:
    put = LocalCoordinationStore.put

    def away(store: CoordinationStore, key: str, value: bytes, **options: Any) -> int | None:
        if key.startswith("unique/"):
            raise BackendUnavailable("the store is away")
        return put(store, key, value, **options)  # type: ignore[arg-type]

    with Beside(clock=clock) as client:
        jobs = Orchestrator(client)
        jobs.register(BY_PATH)
        monkeypatch.setattr(LocalCoordinationStore, "put", away)
        with pytest.raises(PublishUnknown, match="may make a second job"):
            jobs.publish(QUEUE, {"path": "a"})
        assert jobs.counts(QUEUE).ready == 1


def test_an_outage_within_a_batch_leaves_the_rest_unknown(
    local: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    publish = LocalClient.publish_guarded
    calls = []

    def breaks(client: LocalClient, *arguments: Any) -> PublishOutcome | None:
        calls.append(arguments)
        if len(calls) > 1:
            raise BackendUnavailable("the broker is away")
        return publish(client, *arguments)

    monkeypatch.setattr(LocalClient, "publish_guarded", breaks)
    outcomes = [handle.outcome for handle in local.publish_batch(QUEUE, [{"path": path} for path in "abc"])]
    assert [outcome.status for outcome in outcomes] == [
        PublishStatus.ACCEPTED,
        PublishStatus.UNKNOWN,
        PublishStatus.UNKNOWN,
    ]


def test_a_publish_whose_answer_was_lost_is_found_by_its_record(
    local: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An adapter that asks again after a broken connection may answer None though the first try succeeded."""
    publish = LocalClient.publish_guarded

    def loses(client: LocalClient, *arguments: Any) -> PublishOutcome | None:
        publish(client, *arguments)
        return publish(client, *arguments)

    monkeypatch.setattr(LocalClient, "publish_guarded", loses)
    outcome = local.publish_batch(QUEUE, [{"path": "a"}])[0].outcome
    assert outcome.status is PublishStatus.ACCEPTED
    assert local.counts(QUEUE).ready == 1


def test_a_job_that_ends_before_its_record_is_written_frees_its_key(
    clock: ManualClock, background: Any, eventually: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Beside a broker, a consumer may be done before the publisher writes the record."""
    monkeypatch.setattr(records_module, "_PUBLISHER_S", LONG_S)
    put = LocalCoordinationStore.put
    is_written, looked = threading.Event(), threading.Event()
    get = LocalCoordinationStore.get

    def late(store: LocalCoordinationStore, key: str, value: bytes, **options: Any) -> int | None:
        if key.startswith("unique/"):
            assert is_written.wait(LONG_S)
        return put(store, key, value, **options)

    def look(store: LocalCoordinationStore, keys: Sequence[str]) -> Any:
        if keys and keys[0].startswith("claims/"):
            looked.set()
        return get(store, keys)

    with Beside(clock=clock) as client:
        jobs = Orchestrator(client)
        jobs.register(BY_PATH)
        monkeypatch.setattr(LocalCoordinationStore, "put", late)
        monkeypatch.setattr(LocalCoordinationStore, "get", look)
        publishing = background(lambda: jobs.publish(QUEUE, {"path": "a"}))
        consumer = consumer_of(jobs)
        consuming = background(lambda: consumer.consume(1, block=True))
        assert looked.wait(LONG_S)
        is_written.set()
        publishing.result(LONG_S)
        assert consuming.result(LONG_S) == 1
        consumer.close()
        assert records(jobs) == []


def test_a_claim_of_another_publisher_is_waited_for(clock: ManualClock, background: Any) -> None:
    with Beside(clock=clock) as client:
        jobs = Orchestrator(client)
        jobs.register(BY_PATH)
        first = jobs.publish(QUEUE, {"path": "a"})
        (key,) = records(jobs)
        jobs.clean_queue(QUEUE)
        store = client.coordination
        store.delete(key)
        assert store.put(claim_of(key), b"another", expected=ABSENT) is not None
        publishing = background(lambda: jobs.publish(QUEUE, {"path": "a"}))
        while publishing.running() and not store.get([claim_of(key)]):
            pass
        store.delete(claim_of(key))
        assert publishing.result(LONG_S) != first
