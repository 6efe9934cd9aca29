"""Which schema travels in which queue, for one orchestrator and for several."""

import asyncio
import sys
from collections.abc import Callable
from typing import Any

import pytest

from conditions import LIMIT_S
from mindtrace.jobs import (
    AsyncOrchestrator,
    CancelOutcome,
    Consumer,
    JobInput,
    JobSchema,
    JobStatus,
    LocalClient,
    Orchestrator,
    RetryPolicy,
)
from mindtrace.jobs.domain.errors import QueueConflict, QueueNotFound, SchemaConflict, SchemaNotRegistered


class Note(JobInput):
    text: str = ""


def test_registering_names_the_queue(client: LocalClient, schema: Any) -> None:
    """The queue has its schema's name, and is there at once."""
    orchestrator = Orchestrator(client)

    assert orchestrator.register(schema) == "points"
    assert orchestrator.count_queue_messages("points") == 0


def test_registering_again_changes_nothing(orchestrator: Orchestrator, schema: Any) -> None:
    """An equal schema is no conflict, and what waits stays (ADM-1)."""
    orchestrator.publish("points", {})

    orchestrator.register(JobSchema("points", schema.input, schema.output))

    assert orchestrator.count_queue_messages("points") == 1


def test_the_latest_policy_counts(orchestrator: Orchestrator, schema: Any, make_consumer: Any) -> None:
    """Registering the same models with another retry policy replaces it (RTY-1)."""
    once = JobSchema("points", schema.input, schema.output, retry=RetryPolicy(max_attempts=1))
    orchestrator.register(once)
    orchestrator.publish("points", {})

    assert make_consumer(lambda job: 1 / 0).consume_until_empty() == 1


def test_a_refused_registration_leaves_the_first(orchestrator: Orchestrator, schema: Any) -> None:
    """Neither another model nor another type of queue takes its place."""
    with pytest.raises(SchemaConflict):
        orchestrator.register(JobSchema("points", Note))
    with pytest.raises(QueueConflict):
        orchestrator.register(schema, "stack")

    orchestrator.publish("points", {"x": 1})
    assert orchestrator.receive_message("points").payload == schema.input(x=1)


def test_another_model_needs_another_name(orchestrator: Orchestrator) -> None:
    """Its jobs would be no jobs of the first."""
    with pytest.raises(
        SchemaConflict, match="Point -> Total, not Note -> JobOutput: give the other schema another"
    ):
        orchestrator.register(JobSchema("points", Note))


def test_two_orchestrators_of_two_backends_share_nothing(orchestrator: Orchestrator, schema: Any) -> None:
    """One's jobs are not the other's, and a name may mean another schema there (CON-2)."""
    with Orchestrator("memory://") as other:
        other.register(JobSchema("points", Note))
        orchestrator.publish("points", {"x": 1})

        assert other.count_queue_messages("points") == 0
        other.publish("points", {"text": "hello"})
        assert other.receive_message("points").payload == Note(text="hello")


def test_two_orchestrators_of_one_backend_share_its_queues(
    client: LocalClient, orchestrator: Orchestrator, schema: Any
) -> None:
    """Each registers the schema; then what one publishes the other receives."""
    other = Orchestrator(client)
    with pytest.raises(QueueNotFound, match="registered: none"):
        other.publish("points", {})

    other.register(schema)
    orchestrator.publish("points", {"x": 1})

    assert other.receive_message("points").payload.x == 1


def test_jobs_are_asked_about_by_their_schema_without_registering_it(
    client: LocalClient, orchestrator: Orchestrator, schema: Any, make_consumer: Any
) -> None:
    """A program that reads results needs no more; the queue must be declared, and is not by that."""
    done, waiting = (orchestrator.publish("points", {"x": 1}) for _ in range(2))
    make_consumer(lambda job: {"total": 1}).consume(1)
    other = Orchestrator(client)

    assert other.result(schema, done) == schema.output(total=1)
    assert other.status(schema, waiting) is JobStatus.WAITING
    assert other.cancel(schema, waiting) is CancelOutcome.CANCELLED
    with pytest.raises(QueueNotFound, match="registered: none"):
        other.result("points", done)


@pytest.mark.parametrize(
    "call",
    [
        lambda jobs, schema: jobs.result(schema, "a"),
        lambda jobs, schema: jobs.status(schema, "a"),
        lambda jobs, schema: jobs.cancel(schema, "a"),
    ],
    ids=["result", "status", "cancel"],
)
def test_asking_about_jobs_by_their_schema_declares_no_queue(client: LocalClient, call: Any) -> None:
    other = Orchestrator(client)

    with pytest.raises(QueueNotFound, match="queue 'notes': not declared"):
        call(other, JobSchema("notes", Note))
    assert client.queues() == []


def test_coroutines_ask_about_jobs_by_their_schema_too(
    client: LocalClient, orchestrator: Orchestrator, schema: Any, make_consumer: Any
) -> None:
    job_id = orchestrator.publish("points", {"x": 1})
    make_consumer(lambda job: {"total": 1}).consume(1)

    async def program() -> None:
        jobs = AsyncOrchestrator(client)
        assert await jobs.result(schema, job_id, timeout_s=5) == schema.output(total=1)
        assert await jobs.result(schema, job_id) == schema.output(total=1)
        assert await jobs.status(schema, job_id) is JobStatus.DONE
        await jobs.close()

    asyncio.run(program())


def test_a_consumer_knows_a_schema_that_was_registered_elsewhere(
    orchestrator: Orchestrator, make_consumer: Callable[..., Consumer]
) -> None:
    """The seed's second example connects its consumer to a fresh orchestrator without registering again."""
    with Orchestrator("memory://") as fresh:
        consumer = make_consumer(to=fresh)
        fresh.publish("points", {})
        orchestrator.publish("points", {})

        assert consumer.consume_until_empty() == 1
        assert orchestrator.count_queue_messages("points") == 1


def test_a_queue_that_was_deleted_is_gone_for_all(
    client: LocalClient, orchestrator: Orchestrator, schema: Any
) -> None:
    """The orchestrator that deleted it forgets the schema; another is told that there is no queue (ADM-3)."""
    other = Orchestrator(client)
    other.register(schema)
    orchestrator.publish("points", {})

    orchestrator.delete_queue("points")

    with pytest.raises(QueueNotFound, match="register its schema"):
        orchestrator.publish("points", {})
    with pytest.raises(QueueNotFound, match="not declared"):
        other.publish("points", {})
    other.register(schema, "stack")
    assert other.count_queue_messages("points") == 0


def test_an_unknown_schema_is_named_with_those_that_are_known(orchestrator: Orchestrator) -> None:
    """The message tells a typing error from a missing call (SEC-1)."""

    class Typo(Consumer):
        def run(self, job: Any) -> None: ...

    told = r"no schema 'point' .*; did you mean 'points'\? registered: 'points'"
    with pytest.raises(SchemaNotRegistered, match=told):
        Typo("point").connect(orchestrator)


def test_cleaning_and_counting(orchestrator: Orchestrator, make_consumer: Callable[..., Consumer]) -> None:
    """A purge drops what waits and says how many; the dead stay (ADM-2, CNT-1)."""
    orchestrator.publish_batch("points", [{"x": n} for n in range(5)])
    consumer = make_consumer(lambda job: 1 / 0, policy=RetryPolicy(max_attempts=1))
    consumer.consume(1)
    orchestrator.publish("points", {}, delay_s=60)

    assert orchestrator.counts("points").waiting == orchestrator.count_queue_messages("points") == 5
    assert orchestrator.clean_queue("points") == 5
    assert orchestrator.clean_queue("points") == 0
    assert orchestrator.counts("points").dead == 1


def test_all_dead_letters_are_listed_however_many(
    orchestrator: Orchestrator, make_consumer: Callable[..., Consumer]
) -> None:
    """A list that ended at some number would pass for all (DLQ-1)."""
    jobs = [{"x": number} for number in range(1001)]
    ids = [handle.id for handle in orchestrator.publish_batch("points", jobs)]
    make_consumer(lambda job: 1 / 0, policy=RetryPolicy(max_attempts=1)).consume_until_empty()

    assert [letter.id for letter in orchestrator.dead_letters("points")] == ids
    assert [letter.id for letter in orchestrator.backend.dead_letters("points")] == ids


def test_dead_letters_can_be_looked_at_redriven_and_discarded(
    orchestrator: Orchestrator, make_consumer: Callable[..., Consumer]
) -> None:
    """All or those that are named, once each, with fresh budgets (DLQ-1, DLQ-2, DLQ-3)."""
    ids = [orchestrator.publish("points", {"x": n}) for n in range(4)]
    failing = make_consumer(lambda job: 1 / 0)
    failing.consume_until_empty()

    assert [letter.id for letter in orchestrator.dead_letters("points")] == ids
    assert [letter.id for letter in orchestrator.dead_letters("points", limit=2, offset=1)] == ids[1:3]
    assert orchestrator.redrive("points", [ids[0], ids[0], "unknown"]) == 1
    assert orchestrator.discard("points", ids[1:2]) == 1

    attempts: list[int] = []
    make_consumer(lambda job: attempts.append(job.attempt)).consume_until_empty()
    assert attempts == [1]
    assert orchestrator.redrive("points") == 2
    assert orchestrator.discard("points") == 0


def test_threads_publish_by_schemas_that_nobody_registered(background: Any) -> None:
    """Each is registered at its first use, while other threads look through all of them."""
    schemas = [JobSchema(f"notes-{number}", Note) for number in range(400)]
    interval_s = sys.getswitchinterval()
    sys.setswitchinterval(1e-6)  # a thread is stopped wherever it can be
    try:
        with Orchestrator("memory://") as orchestrator:

            def publish(some: list[JobSchema[Any, Any]]) -> None:
                for schema in some:
                    orchestrator.publish(schema, Note())

            for publishing in [background(publish, schemas[first::8]) for first in range(8)]:
                publishing.result(LIMIT_S)
            assert orchestrator.schema_registry.schemas().keys() == {schema.name for schema in schemas}
    finally:
        sys.setswitchinterval(interval_s)
