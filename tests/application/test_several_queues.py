"""One schema for several queues, and what may stand in place of a schema."""

from typing import Any

import pytest
from pydantic import BaseModel

from mindtrace.jobs import AnyJSON, Consumer, Job, JobInput, JobOutput, JobSchema, Orchestrator, job_handler
from mindtrace.jobs.errors import InvalidInput, InvalidSchema, QueueNotFound, SchemaConflict


class Pair(JobInput):
    x: int


class Total(JobOutput):
    total: int


class Text(JobInput):
    text: str = ""


SCHEMA = JobSchema("sums", Pair, Total)


class Adder(Consumer[Pair, Total]):
    schema = SCHEMA

    def run(self, job: Job[Pair]) -> Total:
        return Total(total=job.payload.x)


class TaskSchema(BaseModel):
    """As it is in mindtrace-core."""

    name: str
    input_schema: type[BaseModel] | None = None
    output_schema: type[BaseModel] | None = None


class PlainInput(BaseModel):
    message: str


class PlainOutput(BaseModel):
    echoed: str


@pytest.fixture
def orchestrator() -> Orchestrator:
    return Orchestrator("memory://")


def run_all(orchestrator: Orchestrator, consumer: Consumer[Any, Any]) -> int:
    with consumer:
        consumer.connect(orchestrator)
        return consumer.consume(block=False)


def test_a_schema_can_have_queues_beside_its_own(orchestrator: Orchestrator) -> None:
    """Each with its jobs, its type and its consumers."""
    assert orchestrator.register(SCHEMA) == "sums"
    assert orchestrator.register(SCHEMA, "priority", queue="urgent") == "urgent"
    orchestrator.publish("sums", Pair(x=1))
    low = orchestrator.publish("urgent", Pair(x=2), priority=1)
    high = orchestrator.publish("urgent", orchestrator.job("urgent", {"x": 3}), priority=9)

    assert [orchestrator.count_queue_messages(queue) for queue in ("sums", "urgent")] == [1, 2]
    urgent = orchestrator.receive_message("urgent")
    assert urgent is not None
    assert (urgent.id, urgent.schema_name) == (high, "sums")

    class Urgent(Adder):
        queue_type = "priority"

    assert run_all(orchestrator, Urgent(queue="urgent")) == 1
    assert orchestrator.result("urgent", low) == Total(total=2)
    assert run_all(orchestrator, Adder()) == 1


def test_a_consumer_declares_the_queue_that_it_names() -> None:
    """As it does with its schema's own."""
    with Orchestrator("memory://") as orchestrator:
        assert run_all(orchestrator, Adder(queue="night")) == 0
        assert [queue.name for queue in orchestrator.queues()] == ["night"]


def test_a_consumer_without_a_schema_finds_that_of_its_queue(orchestrator: Orchestrator) -> None:
    """By the name of the queue, under either word; also in another orchestrator of the process."""

    class Plain(Consumer):
        def run(self, job: Job[Any]) -> Any:
            return {"total": job.payload.x}

    orchestrator.register(SCHEMA, queue="from-elsewhere")
    orchestrator.publish("from-elsewhere", {"x": 4})

    assert run_all(orchestrator, Plain(queue="from-elsewhere")) == 1
    orchestrator.publish("from-elsewhere", {"x": 5})
    assert run_all(orchestrator, Plain("from-elsewhere")) == 1
    with Orchestrator("memory://") as other:
        assert run_all(other, Plain("from-elsewhere")) == 0
        assert [queue.name for queue in other.queues()] == ["from-elsewhere"]


def test_a_function_serves_another_queue(orchestrator: Orchestrator) -> None:
    @job_handler(SCHEMA)
    def add(job: Job[Pair]) -> Total:
        return Total(total=job.payload.x)

    consumer = add.consumer(queue="night")
    orchestrator.register(SCHEMA, queue="night")
    orchestrator.publish("night", {"x": 1})

    assert consumer.queue_name == "night"
    assert run_all(orchestrator, consumer) == 1


def test_a_typed_queue_can_be_another_than_the_schemas(orchestrator: Orchestrator) -> None:
    """All its methods mean that one."""
    queue = orchestrator.queue(SCHEMA, "stack", queue="night")
    first, last = queue.publish(Pair(x=1)), queue.publish({"x": 2})

    assert (queue.name, orchestrator.queue(SCHEMA, queue="night").counts().ready) == ("night", 2)
    assert repr(first) == f"JobHandle('night', {first.id!r})"
    received = queue.receive()
    assert received is not None
    assert received.id == last.id

    class Night(Adder):
        queue_type = "stack"

    assert run_all(orchestrator, Night(queue="night")) == 1
    assert first.result() == queue.result(first.id) == Total(total=1)
    assert queue.handle(first.id).progress() is None
    queue.publish_batch([{"x": 1}])
    assert queue.clean() == 1
    queue.delete()
    with pytest.raises(QueueNotFound):
        queue.counts()


def test_a_schema_as_a_queue_means_the_queue_of_its_name(orchestrator: Orchestrator) -> None:
    orchestrator.register(SCHEMA, queue="night")

    with pytest.raises(QueueNotFound, match=r"queue 'sums': register its schema .*; registered: 'night'"):
        orchestrator.publish(SCHEMA, {"x": 1})


def test_two_schemas_have_no_queue_together(orchestrator: Orchestrator) -> None:
    orchestrator.register(SCHEMA, queue="night")

    with pytest.raises(SchemaConflict, match=r"give the other schema another name, or another queue"):
        orchestrator.register(JobSchema("texts", Text), queue="night")
    orchestrator.register(JobSchema("texts", Text), queue="texts-at-night")


def test_a_model_with_the_fields_of_a_schema_is_one(orchestrator: Orchestrator) -> None:
    """As those of mindtrace-core are."""
    echo = TaskSchema(name="echo", input_schema=PlainInput, output_schema=PlainOutput)

    class Echo(Consumer):
        schema = echo

        def run(self, job: Job[Any]) -> Any:
            return {"echoed": job.payload.message}

    assert orchestrator.register(echo) == "echo"
    job_id = orchestrator.publish("echo", PlainInput(message="hello"))
    orchestrator.publish(echo, {"message": "again"})  # type: ignore[call-overload]

    assert run_all(orchestrator, Echo()) == 2
    assert orchestrator.result("echo", job_id) == PlainOutput(echoed="hello")
    with pytest.raises(
        InvalidSchema, match="schema 'ping': input is missing; pass a JobInput class, or AnyJSON"
    ):
        orchestrator.register(TaskSchema(name="ping"))


def test_a_model_without_them_is_none(orchestrator: Orchestrator) -> None:
    with pytest.raises(InvalidInput, match="pass a JobSchema"):
        orchestrator.register(PlainInput(message="hello"))  # type: ignore[arg-type]


def test_the_models_of_a_schema_have_two_names() -> None:
    """Those of 0.x can be read as well as written."""
    schema = JobSchema("echo", input_schema=PlainInput, output_schema=PlainOutput)

    assert (schema.input, schema.input_schema) == (PlainInput, PlainInput)
    assert (schema.output, schema.output_schema) == (PlainOutput, PlainOutput)


def test_any_json_object_is_a_payload_and_a_result(orchestrator: Orchestrator) -> None:
    class Mirror(Consumer):
        schema = JobSchema("mirror", AnyJSON, AnyJSON)

        def run(self, job: Job[AnyJSON]) -> Any:
            return job.payload.model_dump()

    orchestrator.register(Mirror.schema)
    given = {"text": "a", "list": [1, {"deep": None}]}
    job_id = orchestrator.publish("mirror", given)

    assert run_all(orchestrator, Mirror()) == 1
    assert orchestrator.result("mirror", job_id).model_dump() == given
