"""The type of a queue is said once, by the schema or by whoever declares the queue first."""

from collections.abc import Iterator
from typing import Any

import pytest

from mindtrace.jobs import AsyncOrchestrator, Consumer, Job, JobInput, JobSchema, LocalClient, Orchestrator
from mindtrace.jobs.errors import InvalidInput, QueueConflict, QueueNotFound


class Number(JobInput):
    n: int = 0


NUMBERS = JobSchema("numbers", Number)
RANKED = JobSchema("numbers", Number, queue_type="priority")


class Runner(Consumer):
    schema = NUMBERS

    def run(self, job: Job[Any]) -> None: ...


class Ranked(Runner):
    schema = RANKED


class RankedByItsClass(Runner):
    queue_type = "priority"


@pytest.fixture
def client() -> Iterator[LocalClient]:
    with LocalClient() as client:
        yield client


def kinds(client: LocalClient) -> list[str]:
    return [queue.kind.value for queue in client.queues()]


def test_the_schema_says_it_for_consumers_and_publishers(client: LocalClient) -> None:
    Orchestrator(client).publish(RANKED, {}, priority=9)
    with Ranked() as consumer:
        consumer.connect(Orchestrator(client))
        assert consumer.consume_until_empty() == 1
    assert kinds(client) == ["priority"]


@pytest.mark.parametrize("first", [Ranked, RankedByItsClass])
def test_who_says_no_type_takes_that_of_the_queue(client: LocalClient, first: type[Consumer]) -> None:
    """As a publisher that registers the schema of a consumer."""
    with first() as consumer:
        consumer.connect(Orchestrator(client))
        publisher = Orchestrator(client)
        publisher.register(NUMBERS)
        publisher.publish("numbers", {}, priority=9)
        with Runner() as other:
            other.connect(Orchestrator(client))
            assert other.consume_until_empty() == 1
    assert kinds(client) == ["priority"]


def test_the_type_of_a_call_goes_before_that_of_the_schema(client: LocalClient) -> None:
    Orchestrator(client).register(RANKED, "stack")
    assert kinds(client) == ["stack"]


def test_two_types_are_a_conflict_that_says_where_to_say_it_once(client: LocalClient) -> None:
    Orchestrator(client).register(NUMBERS)

    for connect in (
        lambda: Orchestrator(client).register(RANKED),
        lambda: RankedByItsClass().connect(Orchestrator(client)),
        lambda: Orchestrator(client).publish(RANKED, {}, priority=9),
    ):
        with pytest.raises(QueueConflict, match=r'as in JobSchema\(…, queue_type="fifo"\)'):
            connect()


def test_a_type_that_is_none_is_refused() -> None:
    with pytest.raises(InvalidInput, match="must be one of fifo, stack, priority"):
        JobSchema("numbers", Number, queue_type="lifo")  # type: ignore[arg-type]


def test_a_schema_needs_no_registration(client: LocalClient) -> None:
    """Wherever it is passed, it says all that is needed."""
    jobs = Orchestrator(client)
    job_id = jobs.publish(NUMBERS, {"n": 1})
    outcome = jobs.publish_batch(JobSchema("others", Number), [{"n": 2}])[0].outcome
    jobs.schedule("nightly", JobSchema("slots", Number), cron="0 3 * * *")

    assert [queue.name for queue in jobs.queues()] == ["numbers", "others", "slots"]
    received = jobs.receive_message(NUMBERS)
    assert received is not None
    assert received.id == job_id
    assert jobs.counts("others").ready == 1
    assert outcome.error is None


async def publish(client: LocalClient) -> str:
    async with AsyncOrchestrator(client) as jobs:
        return await jobs.publish(NUMBERS, {"n": 1})


def test_nor_for_an_async_publisher(client: LocalClient) -> None:
    import asyncio

    assert asyncio.run(publish(client)) == Orchestrator(client).receive_message(NUMBERS).id  # type: ignore[union-attr]


def test_a_queue_that_was_deleted_is_not_declared_by_a_publish(client: LocalClient) -> None:
    """Nobody would serve it (PUB-3)."""
    jobs = Orchestrator(client)
    jobs.publish(NUMBERS, {})
    jobs.delete_queue(NUMBERS)

    with pytest.raises(QueueNotFound):
        jobs.publish(NUMBERS, {})
    jobs.register(NUMBERS)
    jobs.publish(NUMBERS, {})
