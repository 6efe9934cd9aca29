"""Handlers that return ``Then``: the next job is published as theirs is done."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from mindtrace.jobs import (
    BatchConsumer,
    Capabilities,
    Consumer,
    Done,
    Job,
    JobFailed,
    JobInput,
    JobOutput,
    JobSchema,
    JobStatus,
    LocalClient,
    Orchestrator,
    RetryPolicy,
    Then,
    Unique,
    job_from_schema,
    job_handler,
)
from mindtrace.jobs.application.publishing.next_jobs import MAX_NEXT_JOBS, derived_id
from mindtrace.jobs.errors import BackendUnavailable, InvalidInput
from mindtrace.jobs.ports import Ack, Next, Settled, Settlement, SettleOutcome


class Step(JobInput):
    n: int


class Count(JobOutput):
    n: int


FIRST = JobSchema("first", Step, Count, retry=RetryPolicy(max_attempts=2, base_delay_s=0.0, max_delay_s=0.0))
SECOND = JobSchema("second", Step, Count)
RANKED = JobSchema("ranked", Step, Count)
ALONE = JobSchema("alone", Step, Count, unique=Unique())
UNKNOWN = JobSchema("unknown", Step, Count)


@pytest.fixture
def orchestrator() -> Iterator[Orchestrator]:
    with LocalClient() as client, Orchestrator(client) as orchestrator:
        orchestrator.register(FIRST)
        orchestrator.register(SECOND)
        orchestrator.register(RANKED, "priority")
        orchestrator.register(ALONE)
        yield orchestrator


def run(orchestrator: Orchestrator, returned: Callable[[Job[Step]], Any], **settings: Any) -> str:
    """Publish a job and run it by a handler that returns this; return its id."""
    id_ = orchestrator.publish(FIRST, Step(n=1))
    with job_handler(FIRST)(returned).consumer() as consumer:
        consumer.connect(orchestrator, **settings)
        consumer.consume_until_empty()
    return id_


def waiting(orchestrator: Orchestrator, queue: str = "second") -> list[Job[Any]]:
    """Take all jobs of a queue."""
    jobs: list[Job[Any]] = []
    while (job := orchestrator.receive_message(queue)) is not None:
        jobs.append(job)
    return jobs


# -- what is published ----------------------------------------------------------------------------


def test_the_next_job_is_published_and_the_result_kept(orchestrator: Orchestrator) -> None:
    id_ = run(orchestrator, lambda job: Then(SECOND, Step(n=job.payload.n + 1), result=Count(n=7)))

    assert orchestrator.result(FIRST, id_) == Count(n=7)
    assert [job.payload for job in waiting(orchestrator)] == [Step(n=2)]


def test_a_dict_is_validated_as_a_payload_and_as_a_result(orchestrator: Orchestrator) -> None:
    id_ = run(orchestrator, lambda job: Then(SECOND, {"n": 2}, result={"n": 7}))

    assert orchestrator.result(FIRST, id_) == Count(n=7)
    assert [job.payload for job in waiting(orchestrator)] == [Step(n=2)]


def test_without_a_result_the_job_has_none(orchestrator: Orchestrator) -> None:
    id_ = run(orchestrator, lambda job: Then(SECOND, Step(n=2)))

    assert orchestrator.result(FIRST, id_) is None


def test_several_next_jobs_come_in_order(orchestrator: Orchestrator) -> None:
    def handler(job: Job[Step]) -> Any:
        return Then.all(
            *(Then(SECOND, Step(n=n)) for n in range(5)), Then(RANKED, Step(n=9)), result={"n": 1}
        )

    id_ = run(orchestrator, handler)

    assert orchestrator.result(FIRST, id_) == Count(n=1)
    assert [job.payload.n for job in waiting(orchestrator)] == list(range(5))
    assert [job.payload.n for job in waiting(orchestrator, "ranked")] == [9]


def test_none_is_as_many_as_several(orchestrator: Orchestrator) -> None:
    id_ = run(orchestrator, lambda job: Then.all(result={"n": 1}))

    assert orchestrator.result(FIRST, id_) == Count(n=1)
    assert waiting(orchestrator) == []


def test_delay_priority_id_and_queue_are_those_of_the_next_job(orchestrator: Orchestrator) -> None:
    orchestrator.register(SECOND, queue="other")

    def handler(job: Job[Step]) -> Any:
        return Then.all(
            Then(SECOND, Step(n=1), delay_s=3600),
            Then(RANKED, Step(n=2), priority=3),
            Then(RANKED, Step(n=3), priority=7, id="mine"),
            Then(SECOND, Step(n=4), queue="other"),
        )

    run(orchestrator, handler)

    counts = orchestrator.backend.counts("second")
    assert (counts.ready, counts.delayed) == (0, 1)
    ranked = waiting(orchestrator, "ranked")
    assert [(job.payload.n, job.priority) for job in ranked] == [(3, 7), (2, 3)]
    assert ranked[0].id == "mine"
    assert [job.payload.n for job in waiting(orchestrator, "other")] == [4]


def test_a_chain_runs_to_its_end(orchestrator: Orchestrator) -> None:
    """Each job publishes the next into its own queue."""
    ends: list[int] = []

    def handler(job: Job[Step]) -> Any:
        if job.payload.n < 5:
            return Then(FIRST, Step(n=job.payload.n + 1))
        ends.append(job.payload.n)
        return None

    run(orchestrator, handler)

    assert ends == [5]


# -- all kinds of handlers ------------------------------------------------------------------------


@pytest.mark.parametrize("concurrency", [1, 4])
def test_an_async_handler_returns_one(orchestrator: Orchestrator, concurrency: int) -> None:
    async def handler(job: Job[Step]) -> Any:
        await asyncio.sleep(0)
        return Then(SECOND, Step(n=2), result=Count(n=1))

    id_ = run(orchestrator, handler, concurrency=concurrency)

    assert orchestrator.result(FIRST, id_) == Count(n=1)
    assert len(waiting(orchestrator)) == 1


def test_a_consumer_with_threads_returns_one(orchestrator: Orchestrator) -> None:
    id_ = run(orchestrator, lambda job: Then(SECOND, Step(n=2), result=Count(n=1)), concurrency=4)

    assert orchestrator.result(FIRST, id_) == Count(n=1)
    assert len(waiting(orchestrator)) == 1


def test_each_job_of_a_batch_may_have_its_next_ones(orchestrator: Orchestrator) -> None:
    class Batch(BatchConsumer[Step, Count]):
        schema = FIRST
        batch_size = 3

        def run_batch(self, jobs: Sequence[Job[Step]]) -> Any:
            return [Then(SECOND, Step(n=10), result={"n": 1}), Done({"n": 2}), Then(SECOND, {"n": 30})]

    ids = [orchestrator.publish(FIRST, Step(n=n)) for n in range(3)]
    with Batch() as consumer:
        consumer.connect(orchestrator)
        consumer.consume(3)

    assert [orchestrator.result(FIRST, id_) for id_ in ids] == [Count(n=1), Count(n=2), None]
    assert [job.payload.n for job in waiting(orchestrator)] == [10, 30]


# -- ids ------------------------------------------------------------------------------------------


def test_a_retry_gives_the_next_job_the_same_id(orchestrator: Orchestrator) -> None:
    """So a second run is told from a second job, where the broker can't."""
    job = job_from_schema(FIRST, Step(n=1), id="order-17")
    again = replace(job, attempt=2)

    assert derived_id(job, "second", 0) == derived_id(again, "second", 0)
    assert derived_id(job, "second", 0).startswith("order-17-")


def test_no_two_next_jobs_share_an_id() -> None:
    """Neither by place nor by queue, nor does a job that is published later under the same id."""
    job = job_from_schema(FIRST, Step(n=1), id="order-17")
    later = replace(job, created_at=datetime(2030, 1, 1, tzinfo=UTC))
    other = replace(job, id="order-18")

    ids = {
        derived_id(each, queue, place)
        for each in (job, later, other)
        for queue in ("second", "third")
        for place in range(3)
    }
    assert len(ids) == 3 * 2 * 3


def test_the_longest_id_has_next_jobs_too() -> None:
    assert len(derived_id(job_from_schema(FIRST, Step(n=1), id="x" * 128), "second", 999)) <= 128


def test_a_list_of_next_jobs_is_refused_by_name() -> None:
    with pytest.raises(InvalidInput, match=r"pass each next job by itself, as in Then.all\(\*thens\)"):
        Then.all([Then(SECOND, Step(n=1))])  # type: ignore[arg-type]


def test_the_result_of_one_of_several_next_jobs_is_refused() -> None:
    """It would be dropped: the job has one result."""
    with pytest.raises(InvalidInput, match=r"pass it to Then.all\(…, result=…\)"):
        Then.all(Then(SECOND, Step(n=1), result={"n": 1}))


def test_a_schema_needs_no_registration(orchestrator: Orchestrator) -> None:
    """It says all that is needed to declare its queue."""
    run(orchestrator, lambda job: Then(UNKNOWN, Step(n=7)))

    (job,) = waiting(orchestrator, "unknown")
    assert job.payload == Step(n=7)


# -- what can't be published ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("then", "told"),
    [
        (lambda: Then(SECOND, Step(n=1), queue="nobody"), "register its schema with this orchestrator"),
        (lambda: Then(SECOND, {"m": 1}), r"the next job, Then\(second\): payload"),
        (lambda: Then(SECOND, Step(n=1), priority=3), 'queue_type="priority"'),
        (lambda: Then(SECOND, Step(n=1), delay_s=-1), "delay_s"),
        (lambda: Then(SECOND, Step(n=1), id="no id"), "job id"),
        (lambda: Then(SECOND, Step(n=1), queue="first"), "of schema 'second'; queue 'first' carries 'first'"),
        (lambda: Then(ALONE, Step(n=1)), "is unique"),
        (lambda: Then(SECOND, Step(n=1), result={"m": 1}), "result"),
        (lambda: [Then(SECOND, Step(n=1))], "return Then.all"),
        (lambda: Then.all(*[Then(SECOND, Step(n=1))] * (MAX_NEXT_JOBS + 1)), "1,002 next jobs"),
    ],
)
def test_a_wrong_next_job_is_a_permanent_failure(
    orchestrator: Orchestrator, then: Callable[[], Any], told: str
) -> None:
    """Another run would return the same, so it isn't retried; and of several, none is published."""
    runs: list[int] = []

    def handler(job: Job[Step]) -> Any:
        runs.append(job.attempt)
        wrong = then()
        is_one_of_several = type(wrong) is Then and wrong.result is None
        return Then.all(Then(SECOND, Step(n=5)), wrong) if is_one_of_several else wrong

    id_ = run(orchestrator, handler)

    with pytest.raises(JobFailed, match=told):
        orchestrator.result(FIRST, id_)
    assert runs == [1]
    assert waiting(orchestrator) == []


def test_an_error_that_is_not_the_handlers_fails_the_attempt_alone(
    orchestrator: Orchestrator, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What went wrong while next jobs were made may go well another time."""
    registry = orchestrator.schema_registry
    registered, errors = registry.registered, [RuntimeError("dictionary changed size during iteration")]

    def fails_once(queue: Any) -> Any:
        if queue is SECOND and errors:
            raise errors.pop()
        return registered(queue)

    monkeypatch.setattr(registry, "registered", fails_once)
    id_ = run(orchestrator, lambda job: Then(SECOND, Step(n=job.attempt)))

    assert orchestrator.status(FIRST, id_) is JobStatus.DONE
    assert [job.payload.n for job in waiting(orchestrator)] == [2]


def test_a_backend_that_publishes_nothing_with_an_ack_refuses(orchestrator: Orchestrator) -> None:
    """It would lose the next job silently."""

    class Older(LocalClient):
        @property
        def capabilities(self) -> Capabilities:
            return replace(super().capabilities, then=False, atomic_then=False)

    with Older() as client, Orchestrator(client) as old:
        old.register(FIRST)
        old.register(SECOND)
        id_ = run(old, lambda job: Then(SECOND, Step(n=1)))
        with pytest.raises(JobFailed, match="doesn't support Then"):
            old.result(FIRST, id_)


def test_a_queue_that_was_deleted_meanwhile_fails_the_attempt(orchestrator: Orchestrator) -> None:
    """The job is retried by its policy, and goes on once the queue is there again (THEN-3)."""
    attempts: list[int] = []

    def handler(job: Job[Step]) -> Any:
        attempts.append(job.attempt)
        if job.attempt == 1:
            orchestrator.backend.delete("second")
        else:
            orchestrator.register(SECOND)
        return Then(SECOND, Step(n=2))

    run(orchestrator, handler)

    assert attempts == [1, 2]
    assert len(waiting(orchestrator)) == 1


def test_a_refused_job_dies_when_its_attempts_are_spent(orchestrator: Orchestrator) -> None:
    def handler(job: Job[Step]) -> Any:
        if job.attempt == 1:
            orchestrator.backend.delete("second")
        return Then(SECOND, Step(n=2))

    id_ = run(orchestrator, handler)

    with pytest.raises(JobFailed, match=r"its next jobs couldn't be published: .* 'second'"):
        orchestrator.result(FIRST, id_)


def test_the_others_of_a_batch_count_though_one_is_refused(orchestrator: Orchestrator) -> None:
    ids = [orchestrator.publish(FIRST, Step(n=n)) for n in range(6)]

    def handler(job: Job[Step]) -> Any:
        if job.payload.n == 0:
            orchestrator.backend.delete("second")
        return Then(SECOND if job.payload.n == 3 else RANKED, Step(n=job.payload.n), result=Count(n=1))

    with job_handler(FIRST)(handler).consumer() as consumer:
        consumer.connect(orchestrator)
        consumer.consume(6)
        stats = consumer.stats

    assert (stats.done, stats.retried, stats.lost) == (5, 1, 0)
    assert [orchestrator.result(FIRST, id_) for n, id_ in enumerate(ids) if n != 3] == [Count(n=1)] * 5
    assert len(waiting(orchestrator, "ranked")) == 5


class RefusesThenBreaks(LocalClient):
    """Refuses acks with next jobs, and is away when the failure that follows is settled."""

    def open_consumer(self, queue: str, **settings: Any) -> Any:  # type: ignore[override]
        consumer = super().open_consumer(queue, **settings)
        settle, calls = consumer.settle, list[Sequence[Settlement]]()

        def refusing(settlements: Sequence[Settlement], *, take: int = 0) -> Settled:
            calls.append(settlements)
            if any(isinstance(each, Ack) and each.then for each in settlements):
                return Settled([SettleOutcome.REFUSED] * len(settlements), [])
            if len([each for each in calls if each]) == 2:
                raise BackendUnavailable("away")
            return settle(settlements, take=take)

        consumer.settle = refusing  # type: ignore[method-assign]
        return consumer


def test_an_outage_behind_a_refusal_loses_nothing() -> None:
    """What is to be settled in place of the ack is settled when the broker is back."""
    with RefusesThenBreaks() as client, Orchestrator(client) as orchestrator:
        orchestrator.register(FIRST)
        orchestrator.register(SECOND)
        run(orchestrator, lambda job: Then(SECOND, Step(n=2)) if job.attempt == 1 else None)

        counts = client.counts("first")
        assert (counts.waiting, counts.in_flight, counts.dead) == (0, 0, 0)


# -- values ---------------------------------------------------------------------------------------


def test_a_test_can_compare_what_a_handler_returned() -> None:
    """Handlers are functions: what one returns can be looked at without any queue."""
    assert Then(SECOND, Step(n=1), result=Count(n=2)) == Then(SECOND, Step(n=1), result=Count(n=2))
    assert Then(SECOND, Step(n=1)) != Then(SECOND, Step(n=2))
    assert Then.all(Then(SECOND, Step(n=1))) == Then(SECOND, Step(n=1))
    assert "Step(n=1)" in repr(Then(SECOND, Step(n=1)))


def test_the_port_carries_next_jobs() -> None:
    """An ack without any is as cheap as before: no tuple of its own."""
    assert Ack("r").then is Ack("s").then == ()
    assert Next._fields == ("queue", "message")


def test_a_consumer_class_returns_one(orchestrator: Orchestrator) -> None:
    class First(Consumer[Step, Count]):
        schema = FIRST

        def run(self, job: Job[Step]) -> Then[Count]:
            return Then(SECOND, Step(n=2), result=Count(n=1))

    id_ = orchestrator.publish(FIRST, Step(n=1))
    with First() as consumer:
        consumer.connect(orchestrator)
        consumer.consume(1)

    assert orchestrator.result(FIRST, id_) == Count(n=1)
    assert len(waiting(orchestrator)) == 1
