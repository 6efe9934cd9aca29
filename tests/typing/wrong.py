"""Code that type checkers must refuse, in each line that says so."""

from collections.abc import Sequence

import psycopg

from mindtrace.jobs import (
    AsyncOrchestrator,
    BatchConsumer,
    Consumer,
    DeadJob,
    Job,
    JobInput,
    JobOutput,
    JobSchema,
    Orchestrator,
    Then,
    batch_handler,
    job_handler,
)
from mindtrace.jobs.testing import JobKit, run_job


class ImageInput(JobInput):
    path: str


class ImageOutput(JobOutput):
    defects: int


class Other(JobInput):
    n: int


schema = JobSchema(name="inspect", input=ImageInput, output=ImageOutput)


class Right(Consumer[ImageInput, ImageOutput]):
    schema = JobSchema(name="inspect", input=ImageInput, output=ImageOutput)

    def run(self, job: Job[ImageInput]) -> ImageOutput:
        return ImageOutput(defects=1)


class WrongJob(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[Other]) -> ImageOutput:  # wrong
        return ImageOutput(defects=job.payload.n)


class WrongResult(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> Other:  # wrong
        return Other(n=1)


class WrongField(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> ImageOutput:
        job.orchestrator.publish(schema, Other(n=1))  # wrong
        return ImageOutput(defects=job.payload.size)  # wrong


@job_handler(schema)  # wrong
def wrong_handler(job: Job[Other]) -> ImageOutput:
    return ImageOutput(defects=job.payload.n)


class WrongBatch(BatchConsumer[ImageInput, ImageOutput]):
    def run_batch(self, jobs: Sequence[Job[Other]]) -> list[ImageOutput]:  # wrong
        return [ImageOutput(defects=job.payload.n) for job in jobs]


class WrongElement(BatchConsumer[ImageInput, ImageOutput]):
    def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> list[Other]:  # wrong
        return [Other(n=1)]


class WrongSingle(BatchConsumer[ImageInput, ImageOutput]):
    def run_batch(self, jobs: Sequence[Job[ImageInput]]) -> ImageOutput:  # wrong
        return ImageOutput(defects=jobs[0].payload.size)  # wrong


@batch_handler(schema)  # wrong
def wrong_batch_handler(jobs: Sequence[Job[Other]]) -> list[ImageOutput]:
    return [ImageOutput(defects=job.payload.n) for job in jobs]


class WrongQueueType(Right):
    queue_type = "lifo"  # wrong


@job_handler(schema, queue_type="lifo")  # wrong
def wrong_queue_type(job: Job[ImageInput]) -> ImageOutput:
    return ImageOutput(defects=job.attempt)


def publish(orchestrator: Orchestrator) -> None:
    queue = orchestrator.queue(schema)
    handle = queue.publish(ImageInput(path="a.png"))
    queue.publish(Other(n=1))  # wrong
    queue.publish_batch([Other(n=1)])  # wrong
    queue.publish(ImageInput(path="a.png"), priority="high")  # wrong
    orchestrator.publish(schema, Other(n=1))  # wrong
    n: int = handle.result()  # wrong
    report = handle.result(timeout_s=1)
    print(report.defects, n)  # wrong
    if report is not None:
        print(report.size)  # wrong
    same: Other | None = orchestrator.result(schema, handle.id)  # wrong
    job = queue.receive()
    if job is not None:
        print(job.payload.n, same)  # wrong
    orchestrator.queue(Right.schema).publish(Other(n=1))  # wrong
    of_class = orchestrator.queue(Right.schema).handle("a").result()
    print(of_class.size if of_class else 0)  # wrong
    JobSchema("inspect", dict)  # wrong
    orchestrator.register(ImageInput)  # wrong
    orchestrator.register(schema, "lifo")  # wrong
    queue.publish({"path": "a.png"}, connection="postgresql://localhost/app")  # wrong
    orchestrator.queue(schema, queue_type="lifo")  # wrong
    handles = queue.publish_batch([ImageInput(path="a.png")])
    others: list[Other | None] = orchestrator.results(handles)  # wrong
    print(orchestrator.results(handles)[0].defects)  # wrong
    orchestrator.results(handle.id)  # wrong
    for ended in orchestrator.as_completed(handles, timeout_s=1):
        output = ended.result()
        print(output.size if output else others)  # wrong
    orchestrator.as_completed(handles)  # wrong


def alert(dead: DeadJob[ImageInput]) -> Then:
    return Then(schema, ImageInput(path=dead.id))


JobSchema("other", Other, on_dead=alert)  # wrong


class WrongNext(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> Then[Other]:  # wrong
        return Then(schema, job.payload, result=Other(n=1))


class WrongNextPayload(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> Then[ImageOutput]:
        return Then(schema, Other(n=1))  # wrong


class WrongNextResult(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> Then[ImageOutput]:
        return Then(schema, job.payload, result=Other(n=1))  # wrong


class WrongNextResults(Consumer[ImageInput, ImageOutput]):
    def run(self, job: Job[ImageInput]) -> list[Then[ImageOutput]]:  # wrong
        return [Then(schema, job.payload)]


@job_handler(schema)  # wrong
def wrong_next_handler(job: Job[ImageInput]) -> Then[Other]:
    return Then(schema, job.payload, result=Other(n=1))


async def wrong_transactions(
    orchestrator: Orchestrator,
    jobs: AsyncOrchestrator,
    connection: psycopg.Connection,
    awaited: psycopg.AsyncConnection,
) -> None:
    orchestrator.publish("inspect", {}, connection=awaited)  # wrong
    await jobs.publish("inspect", {}, connection=connection)  # wrong


def wrong_tests(jobs: JobKit) -> None:
    run_job(Right, Other(n=1))  # wrong
    jobs.connect(len)  # wrong
