"""Code that type checkers must accept."""

from collections.abc import Sequence
from datetime import timedelta

import asyncpg  # type: ignore[import-untyped]
import psycopg

from mindtrace.jobs import (
    AsyncJobHandle,
    AsyncJobQueue,
    AsyncOrchestrator,
    AsyncPublishedJob,
    BatchConsumer,
    Consumer,
    Dead,
    DeadJob,
    Done,
    Job,
    JobHandle,
    JobInput,
    JobOutcome,
    JobOutput,
    JobQueue,
    JobSchema,
    Orchestrator,
    PublishedJob,
    PublishOutcome,
    QueueKind,
    RedisClient,
    Retry,
    RetryPolicy,
    SQLiteClient,
    Then,
    batch_handler,
    job_from_schema,
    job_handler,
)
from mindtrace.jobs.errors import JobFailed, JobsError
from mindtrace.jobs.testing import JobKit, run_job


class ImageInput(JobInput):
    path: str


class ImageOutput(JobOutput):
    defects: int


class OtherOutput(JobOutput):
    text: str


schema = JobSchema(name="inspect", input=ImageInput, output=ImageOutput)
without_output = JobSchema("notify", ImageInput)
with_other_output = JobSchema("other", ImageInput, OtherOutput)


class Inspector(Consumer[ImageInput, ImageOutput]):
    schema = JobSchema(name="inspect", input=ImageInput, output=ImageOutput)
    queue_type = "priority"
    retry = RetryPolicy(max_attempts=5)

    def run(self, job: Job[ImageInput]) -> ImageOutput:
        return ImageOutput(defects=len(job.payload.path))


class AsyncInspector(Consumer[ImageInput, ImageOutput]):
    schema = schema

    async def run(self, job: Job[ImageInput]) -> ImageOutput | None:
        return None if self.lease_lost else ImageOutput(defects=len(job.payload.path))


class Plain(Consumer):
    def run(self, job):  # type: ignore[no-untyped-def]
        return {"defects": job.payload.path}


class Silent(Consumer[ImageInput]):
    def run(self, job: Job[ImageInput]) -> None:
        print(job.payload.path.upper())
        next_id: str = self.orchestrator.publish(schema, job.payload)
        by_job: str = job.orchestrator.publish(schema, job.payload, delay_s=5.0)
        print(by_job, self.orchestrator.status(schema, next_id).upper())


@job_handler(schema)
def inspect_image(job: Job[ImageInput]) -> ImageOutput:
    return ImageOutput(defects=job.attempt)


@job_handler(schema, queue_type="stack", retry=RetryPolicy())
async def inspect_later(job: Job[ImageInput]) -> ImageOutput:
    return ImageOutput(defects=job.attempt)


class Batcher(BatchConsumer[ImageInput, ImageOutput]):
    schema = JobSchema(name="inspect", input=ImageInput, output=ImageOutput)
    batch_size = 8
    batch_wait_s = 0.5

    def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> list[ImageOutput]:
        return [ImageOutput(defects=len(job.payload.path)) for job in jobs if not self.is_lost(job)]


class OutcomeBatcher(BatchConsumer[ImageInput, ImageOutput]):
    def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> list[JobOutcome[ImageOutput]]:
        output = ImageOutput(defects=len(jobs[0].payload.path))
        return [output, {"defects": 1}, None, Done(output), Done(), Retry(5.0), Dead("no"), ValueError("no")]


class AsyncBatcher(BatchConsumer[ImageInput, ImageOutput]):
    schema = schema

    async def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> list[ImageOutput | Retry | None]:
        return [None if self.lease_lost else ImageOutput(defects=job.attempt) for job in jobs]


class BatcherById(BatchConsumer[ImageInput, ImageOutput]):
    def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> dict[str, ImageOutput | Dead]:
        return {job.id: ImageOutput(defects=job.attempt) for job in jobs}


class SilentBatcher(BatchConsumer[ImageInput]):
    def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> list[None]:
        return [None for job in jobs if job.payload.path.upper()]


@batch_handler(schema, batch_size=8)
def inspect_images(jobs: Sequence[Job[ImageInput]]) -> list[ImageOutput]:
    return [ImageOutput(defects=len(job.payload.path)) for job in jobs]


class Chained(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> Then[ImageOutput] | ImageOutput | None:
        if job.attempt > 3:
            return ImageOutput(defects=1)
        return Then(schema, job.payload, result=ImageOutput(defects=1), delay_s=5, priority=3, id="next")


class AsyncChained(Consumer[ImageInput, ImageOutput]):
    async def run(self, job: Job[ImageInput]) -> Then:
        return Then(without_output, {"path": job.payload.path}, queue="other")


class Fanning(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> Then[ImageOutput]:
        return Then.all(*(Then(schema, job.payload) for _ in range(3)), result={"defects": 1})


class ChainedBatch(BatchConsumer[ImageInput, ImageOutput]):
    def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> list[JobOutcome[ImageOutput]]:
        return [Then(schema, job.payload, result=ImageOutput(defects=1)) for job in jobs]


def alert(dead: DeadJob[ImageInput]) -> Then | None:
    if dead.payload is None or dead.attempt > 3:
        return None
    return Then(without_output, ImageInput(path=f"{dead.payload.path}: {dead.reason}: {dead.error}"))


alerting = JobSchema("alerting", ImageInput, ImageOutput, on_dead=alert)
saying = JobSchema("saying", ImageInput, on_dead=lambda dead: Then(without_output, {"path": dead.id}))
constant = JobSchema("constant", ImageInput, on_dead=Then(without_output, ImageInput(path="dead")))


@job_handler(schema)
def chained_handler(job: Job[ImageInput]) -> Then[ImageOutput]:
    return Then(schema, job.payload)


def publish(orchestrator: Orchestrator, connection: psycopg.Connection | None = None) -> int:
    queue: JobQueue[ImageInput, ImageOutput] = orchestrator.queue(schema)
    handle: JobHandle[ImageOutput] = queue.publish(ImageInput(path="a.png"), delay_s=timedelta(1).seconds)
    queue.publish({"path": "b.png"}, connection=connection)
    queue.publish(job_from_schema(schema, ImageInput(path="c.png")))
    handles: list[PublishedJob[ImageOutput]] = queue.publish_batch(
        [ImageInput(path="d.png"), {"path": "e.png"}]
    )
    by_schema_too: list[PublishedJob[ImageOutput]] = orchestrator.publish_batch(schema, [])
    outputs: list[ImageOutput | None] = orchestrator.results([handle, *by_schema_too], timeout_s=10)
    errors: list[ImageOutput | Exception | None] = orchestrator.results(handles, return_exceptions=True)
    other: JobHandle[OtherOutput] = orchestrator.queue(with_other_output).handle("id")
    mixed: Sequence[JobOutput | None] = orchestrator.results([handle, other])
    for ended in orchestrator.as_completed(handles, timeout_s=10):
        outcome: PublishOutcome = ended.outcome
        output: ImageOutput | None = ended.result()
        print(outcome.status.upper(), output.defects if output else 0, len(mixed))
    report: ImageOutput | None = handle.result(timeout_s=10)
    same: ImageOutput | None = orchestrator.result(schema, handle.id)
    one: Job[ImageInput] | None = queue.receive()
    by_name = orchestrator.publish("inspect", {"path": "f.png"})
    by_schema: str = orchestrator.publish(schema, ImageInput(path="g.png"))
    orchestrator.queue(without_output).publish(ImageInput(path=by_name + by_schema))
    count = len(outputs) + len(errors) + bool(one)
    return (report.defects if report else 0) + (same.defects if same else 0) + count


async def publish_async(orchestrator: AsyncOrchestrator, connection: psycopg.AsyncConnection) -> int:
    queue: AsyncJobQueue[ImageInput, ImageOutput] = await orchestrator.queue(schema)
    handle: AsyncJobHandle[ImageOutput] = await queue.publish(ImageInput(path="a.png"))
    report: ImageOutput | None = await handle.result(timeout_s=10)
    same: ImageOutput | None = await orchestrator.result(schema, handle.id)
    one: Job[ImageInput] | None = await orchestrator.receive_message(schema)
    handles: list[AsyncPublishedJob[ImageOutput]] = await orchestrator.publish_batch(
        schema, [{"path": "d.png"}], connection=connection
    )
    outputs: list[ImageOutput | None] = await orchestrator.results(handles, timeout_s=10)
    async for ended in orchestrator.as_completed([handle, *handles], timeout_s=10):
        output: ImageOutput | None = await ended.result()
        outputs.append(output)
    by_name: str = await orchestrator.publish("inspect", {"path": "f.png"})
    async with asyncpg.create_pool() as pool, pool.acquire() as lent, lent.transaction():
        await queue.publish({"path": "g.png"}, connection=lent)
    plain: asyncpg.Connection = await asyncpg.connect()
    await queue.publish({"path": "h.png"}, connection=plain)
    return (
        (report.defects if report else 0)
        + (same.defects if same else 0)
        + len(outputs)
        + bool(one or by_name)
    )


def connect() -> None:
    for backend in (RedisClient(), SQLiteClient("jobs.db")):
        try:
            publish(Orchestrator(backend))
        except JobFailed as error:
            raise JobsError from error
    Inspector().connect(Orchestrator("memory://"))
    Batcher().connect(Orchestrator("memory://"), batch_size=4, batch_wait_s=0)
    print(inspect_images([job_from_schema(schema, {"path": "a.png"})]))
    inspect_images.consumer().connect(Orchestrator("memory://"), batch_size=4)
    inspect_image(job_from_schema(schema, {"path": "a.png"}))
    inspect_later.consumer().consume(1)
    orchestrator = Orchestrator("memory://")
    of_class: JobQueue[ImageInput, ImageOutput] = orchestrator.queue(Inspector.schema)
    of_handler: JobQueue[ImageInput, ImageOutput] = orchestrator.queue(inspect_image.schema)
    print(of_class.name, of_handler.name)
    orchestrator.register(schema, "fifo")
    orchestrator.register(schema, QueueKind("stack"), queue="newest-first")


def run_in_tests(jobs: JobKit) -> None:
    jobs.connect(Inspector, Inspector(), Batcher, inspect_image, inspect_images, concurrency=1)
    of_class: ImageOutput | None = run_job(Inspector, ImageInput(path="a.png"))
    of_consumer: ImageOutput | None = jobs.run_job(Inspector(), {"path": "a.png"})
    of_function: ImageOutput | None = jobs.run_job(inspect_image, ImageInput(path="a.png"))
    of_batches: ImageOutput | None = jobs.run_job(inspect_images, ImageInput(path="a.png"))
    jobs.assert_published(schema, path="a.png", delay_s=60)
    print(of_class, of_consumer, of_function, of_batches, jobs.drain() + jobs.advance(timedelta(hours=1)))
