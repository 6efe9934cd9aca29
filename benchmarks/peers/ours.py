"""This project, on each of its backends."""

from mindtrace.jobs import Consumer, Job, JobInput, JobSchema, Orchestrator

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, CONFIRMED, PLACE, About, Peer


class Work(JobInput):
    """Which job to run, and what it is given."""

    kind: str
    x: float
    y: float


PRIORITY = PLACE.queue_type == "priority"
"""Whether priorities are wanted, for which RabbitMQ has classic queues only."""
RUN = {"no_op": jobs.no_op, "wait": jobs.wait, "spin": jobs.spin}
SETTINGS = {
    "memory": "one thread in this process",
    "sqlite": "one process on a file that is synced (WAL, synchronous=FULL)",
    "redis": "one process, adaptive batches",
    "rabbitmq": f"one process, prefetch=adaptive (it is 1 by default); quorum queue, {CONFIRMED}",
    "postgresql": "one process, adaptive batches; synchronous_commit=on",
}
if PRIORITY:
    SETTINGS["rabbitmq"] = SETTINGS["rabbitmq"].replace("quorum", "classic")
EXTRAS = {"redis": ("redis", "hiredis"), "rabbitmq": ("pika",), "postgresql": ("psycopg",)}


class Runner(Consumer):
    schema = JobSchema(name=PLACE.queue or "bench", input=Work)
    queue_type = PLACE.queue_type or "fifo"

    def run(self, job: Job[Work]) -> None:
        payload = job.payload
        RUN[payload.kind](payload.x, payload.y)


class AsyncRunner(Runner):
    """Waits as a task, beside others; this is what SAQ, arq, taskiq, procrastinate and PGQueuer do."""

    concurrency = PLACE.concurrency

    async def run(self, job: Job[Work]) -> None:  # type: ignore[override]
        payload = job.payload
        if payload.kind == "wait":
            await jobs.wait_in_a_loop(payload.x, payload.y)
        else:
            RUN[payload.kind](payload.x, payload.y)


MANY = PLACE.concurrency > 1
VARIANT = ", priority queue" if PRIORITY else f", {PLACE.concurrency} at once" if MANY else ""


class Measured(Peer):
    about = About(
        f"this project{VARIANT}",
        AT_LEAST_ONCE,
        SETTINGS[PLACE.broker],
        ("mindtrace-jobs", "pydantic", *EXTRAS.get(PLACE.broker, ())),
    )
    in_process = PLACE.broker == "memory"
    has_batches = True
    consumer: Runner | None = None
    """What drains in the process that publishes."""

    def open(self) -> None:
        url = PLACE.url + ("?prefetch=adaptive" if PLACE.broker == "rabbitmq" else "")
        self.orchestrator = Orchestrator(url)
        self.orchestrator.register(Runner.schema, Runner.queue_type)

    def send(self, kind: str) -> None:
        self.orchestrator.publish(PLACE.queue, Work(kind=kind, x=jobs.X, y=jobs.Y))

    def send_batch(self, kind: str, count: int) -> None:
        inputs = [Work(kind=kind, x=jobs.X, y=jobs.Y) for _ in range(count)]
        self.orchestrator.publish_batch(PLACE.queue, inputs)

    def work(self) -> None:
        if not self.in_process:
            self.open()
        with (AsyncRunner if MANY else Runner)(PLACE.queue) as consumer:
            consumer.connect(self.orchestrator)
            consumer.consume()

    def drain(self, count: int) -> None:
        if self.consumer is None:
            self.consumer = Runner(PLACE.queue)
            self.consumer.connect(self.orchestrator)
        self.consumer.consume(count)

    def close(self) -> None:
        self.orchestrator.close()
