"""Queues with types: everything by the schema, and handles of jobs."""

from collections.abc import Sequence

import pytest

from mindtrace.jobs import (
    BatchConsumer,
    Consumer,
    Job,
    JobHandler,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    RetryPolicy,
    batch_handler,
    job_handler,
)
from mindtrace.jobs.errors import HandlerMissing, InvalidInput, JobFailed, QueueNotFound, SchemaConflict


class Pair(JobInput):
    x: int
    y: int = 0


class Total(JobOutput):
    total: int


class Other(JobInput):
    x: int


SCHEMA = JobSchema("sums", Pair, Total)


class Adder(Consumer[Pair, Total]):
    schema = SCHEMA

    def run(self, job: Job[Pair]) -> Total:
        return Total(total=job.payload.x + job.payload.y)


@pytest.fixture
def orchestrator() -> Orchestrator:
    return Orchestrator("memory://")


def work_off(orchestrator: Orchestrator, consumer: Consumer) -> int:
    with consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.0)
        return consumer.consume_until_empty()


def test_a_queue_publishes_and_its_handles_give_results(orchestrator: Orchestrator) -> None:
    """Model, dict or job; the handle can be made anew from the id."""
    queue = orchestrator.queue(SCHEMA)

    handles = [
        queue.publish(Pair(x=1, y=2)),
        queue.publish({"x": 3}),
        queue.publish(queue.job(Pair(x=5), id="mine")),
    ]
    assert queue.counts().ready == 3
    assert work_off(orchestrator, Adder()) == 3

    assert [handle.result() for handle in handles] == [Total(total=3), Total(total=3), Total(total=5)]
    assert handles[2].id == "mine"
    assert queue.handle("mine").result() == Total(total=5)
    assert "mine" in repr(handles[2])


def test_a_queue_does_all_that_the_orchestrator_does(orchestrator: Orchestrator) -> None:
    queue = orchestrator.queue(SCHEMA)
    assert queue.name == "sums"

    handles = queue.publish_batch([Pair(x=1), {"x": 2}])
    assert [handle.outcome.status for handle in handles] == ["accepted"] * 2
    received = queue.receive()
    assert received is not None
    assert received.payload == Pair(x=1)
    assert queue.clean() == 1

    failed = queue.publish(Pair(x=-1)).id
    work_off_once(orchestrator)
    assert [letter.id for letter in queue.dead_letters()] == [failed]
    with pytest.raises(JobFailed, match="below zero"):
        queue.handle(failed).result()
    assert queue.redrive([failed]) == 1
    work_off_once(orchestrator)
    assert queue.discard() == 1
    assert queue.progress() == {}

    queue.delete()
    with pytest.raises(QueueNotFound):
        queue.publish(Pair(x=1))


def work_off_once(orchestrator: Orchestrator) -> None:
    """Each job has one attempt."""

    @job_handler(SCHEMA, retry=RetryPolicy(max_attempts=1))
    def refuse(job: Job[Pair]) -> Total:
        raise ValueError("below zero")

    work_off(orchestrator, refuse.consumer())


def test_progress_is_told_by_the_handle(orchestrator: Orchestrator) -> None:
    handle = orchestrator.queue(SCHEMA).publish(Pair(x=1))
    seen = []

    @job_handler(SCHEMA)
    def look(job: Job[Pair]) -> Total:
        job.progress(1, 2)
        seen.append(handle.progress())
        return Total(total=0)

    assert handle.progress() is None
    work_off(orchestrator, look.consumer())
    assert [(progress.done, progress.total) for progress in seen if progress] == [(1, 2)]
    assert handle.progress() is None


def test_a_schema_names_its_queue_in_every_call(orchestrator: Orchestrator) -> None:
    orchestrator.register(SCHEMA)

    job_id = orchestrator.publish(SCHEMA, Pair(x=1, y=1))
    orchestrator.publish_batch(SCHEMA, [orchestrator.job(SCHEMA, {"x": 2})])
    assert orchestrator.counts(SCHEMA).ready == orchestrator.count_queue_messages(SCHEMA) == 2
    work_off(orchestrator, Adder())

    assert orchestrator.result(SCHEMA, job_id) == Total(total=2)
    assert orchestrator.receive_message(SCHEMA) is None
    assert orchestrator.clean_queue(SCHEMA) == 0
    orchestrator.delete_queue(SCHEMA)
    with pytest.raises(QueueNotFound):
        orchestrator.publish(SCHEMA, Pair(x=1))


def test_another_schema_of_the_same_name_is_refused(orchestrator: Orchestrator) -> None:
    """Or its input would be validated by other models than its queue's."""
    orchestrator.register(SCHEMA)

    with pytest.raises(SchemaConflict, match="carries jobs of Pair -> Total, not Other -> JobOutput"):
        orchestrator.publish(JobSchema("sums", Other), Other(x=1))


def test_a_queue_keeps_the_type_that_it_has(orchestrator: Orchestrator) -> None:
    orchestrator.register(SCHEMA, "priority")

    low, high = (orchestrator.queue(SCHEMA).publish(Pair(x=1), priority=p).id for p in (1, 9))

    jobs = [orchestrator.receive_message(SCHEMA), orchestrator.receive_message(SCHEMA)]
    assert [job.id for job in jobs if job] == [high, low]
    assert orchestrator.queue(JobSchema("piles", Pair), "stack").name == "piles"
    assert {str(queue.kind) for queue in orchestrator.queues()} == {"priority", "stack"}


# -- functions as consumers -----------------------------------------------------------------------


@job_handler(SCHEMA, queue_type="priority")
def add(job: Job[Pair]) -> Total:
    """Add two numbers."""
    return Total(total=job.payload.x + job.payload.y)


@job_handler(SCHEMA)
async def add_later(job: Job[Pair]) -> Total:
    return Total(total=job.payload.x + 100)


@pytest.mark.parametrize(("handler", "total"), [(add, 3), (add_later, 101)])
def test_a_function_runs_the_jobs_of_a_consumer(
    orchestrator: Orchestrator, handler: JobHandler[Pair, Total], total: int
) -> None:
    with handler.consumer() as consumer:
        consumer.connect(orchestrator, poll_timeout_s=0.0)
        handle = orchestrator.queue(handler.schema).publish(Pair(x=1, y=2))
        consumer.consume_until_empty()

    assert handle.result() == Total(total=total)


def test_a_handler_is_called_like_its_function() -> None:
    assert add(Job(schema_name="sums", payload=Pair(x=1, y=1))) == Total(total=2)
    assert (add.__name__, add.__doc__, add.__module__) == ("add", "Add two numbers.", __name__)  # type: ignore[attr-defined]
    assert add.queue_type == add.consumer().queue_type == "priority"
    assert type(add.consumer()).__name__ == "add"
    assert repr(add) == "<job handler add of 'sums'>"


def test_what_is_no_schema_or_no_function_is_refused() -> None:
    with pytest.raises(InvalidInput, match=r"pass the JobSchema, as in @job_handler\(schema\)"):
        job_handler(add)  # type: ignore[arg-type]
    with pytest.raises(HandlerMissing, match="is no function"):
        job_handler(SCHEMA)(Adder)  # type: ignore[arg-type]


def test_a_setting_out_of_range_is_refused_where_it_is_written() -> None:
    with pytest.raises(InvalidInput, match="concurrency 0"):
        job_handler(SCHEMA, concurrency=0)
    with pytest.raises(InvalidInput, match="batch_size 0"):
        batch_handler(SCHEMA, batch_size=0)
    with pytest.raises(InvalidInput, match="batch_wait_s -1"):
        batch_handler(SCHEMA, batch_wait_s=-1)


def test_a_consumer_that_returns_nothing_names_its_input_alone() -> None:
    class Quiet(Consumer[Pair]):
        schema = JobSchema("quiet", Pair)

        def run(self, job: Job[Pair]) -> None:
            pass

    class QuietBatches(BatchConsumer[Pair]):
        schema = JobSchema("quiet", Pair)

        def run_batch(self, jobs: Sequence[Job[Pair]]) -> list[None]:
            return [None] * len(jobs)

    assert Quiet()._queue_name == QuietBatches()._queue_name == "quiet"


def test_a_consumer_of_other_models_than_its_schema_is_refused() -> None:
    """Type checkers can't compare the two."""

    class Swapped(Consumer[Total, Pair]):
        schema = SCHEMA

        def run(self, job: Job[Total]) -> Pair:
            return Pair(x=1)

    with pytest.raises(InvalidInput, match="Swapped is declared for Total, but its schema has Pair"):
        Swapped()
