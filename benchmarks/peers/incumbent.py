"""The package of this name in the index, version 0.16: on its Local backend, Redis and RabbitMQ."""

from pydantic import BaseModel

from mindtrace.jobs import Consumer, JobSchema, LocalClient, Orchestrator, RabbitMQClient, RedisClient

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, AT_MOST_ONCE, PLACE, About, Peer

RUN = {"no_op": jobs.no_op, "wait": jobs.wait, "spin": jobs.spin}


class Work(BaseModel):
    kind: str
    x: float
    y: float


class Runner(Consumer):
    def run(self, job_dict: dict) -> dict:
        payload = job_dict["payload"]
        RUN[payload["kind"]](payload["x"], payload["y"])
        return {}


def backend() -> object:
    if PLACE.broker == "memory":
        return LocalClient(client_dir=PLACE.url)
    if PLACE.broker == "redis":
        return RedisClient(PLACE.host, PLACE.port, 0)
    return RabbitMQClient(PLACE.host, PLACE.port, "guest", "guest")


class Measured(Peer):
    about = About(
        "mindtrace-jobs 0.16",
        AT_LEAST_ONCE if PLACE.broker == "rabbitmq" else AT_MOST_ONCE,
        {
            "memory": "its Local backend, which keeps files",
            "redis": "one process, its default poll",
            "rabbitmq": "one process, 200 prefetched; classic queue, publishes unconfirmed",
        }[PLACE.broker],
        ("mindtrace-jobs", "pydantic", "redis" if PLACE.broker != "rabbitmq" else "pika"),
    )
    in_process = PLACE.broker == "memory"
    has_batches = True

    def open(self) -> None:
        self.orchestrator = Orchestrator(backend())
        self.orchestrator.register(JobSchema(name=PLACE.queue, input_schema=Work))

    def send(self, kind: str) -> None:
        self.orchestrator.publish(PLACE.queue, Work(kind=kind, x=jobs.X, y=jobs.Y))

    def send_batch(self, kind: str, count: int) -> None:
        inputs = [Work(kind=kind, x=jobs.X, y=jobs.Y) for _ in range(count)]
        result = self.orchestrator.publish_batch(PLACE.queue, inputs)
        if not result.all_succeeded:
            raise RuntimeError(f"not everything was published: {result}")

    def work(self) -> None:
        if not self.in_process:
            self.open()
        consumer = Runner()
        prefetch = {"prefetch_count": 200} if PLACE.broker == "rabbitmq" else {}
        consumer.connect_to_orchestrator(self.orchestrator, PLACE.queue, **prefetch)
        consumer.consume()
