"""taskiq: taskiq-redis with streams, taskiq-aio-pika on RabbitMQ."""

import sys

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, CONFIRMED, PLACE, About, Peer

if PLACE.broker == "redis":
    from taskiq_redis import RedisStreamBroker

    broker = RedisStreamBroker(PLACE.url, queue_name=PLACE.queue, consumer_group_name="bench")
else:
    from taskiq_aio_pika import AioPikaBroker, Queue

    broker = AioPikaBroker(PLACE.url, qos=200, task_queues=[Queue(name=PLACE.queue)])


@broker.task
async def no_op(x: float, y: float) -> None:
    jobs.no_op(x, y)


@broker.task
async def wait(x: float, y: float) -> None:
    await jobs.wait_in_a_loop(x, y)


@broker.task
async def spin(x: float, y: float) -> None:
    jobs.spin(x, y)


DRIVERS = {"redis": ("taskiq-redis", "redis"), "rabbitmq": ("taskiq-aio-pika", "aio-pika")}
AT_ONCE = {"redis": "100", "rabbitmq": "200"}
TASKS = {"no_op": no_op, "wait": wait, "spin": spin}


class Measured(Peer):
    about = About(
        "taskiq",
        AT_LEAST_ONCE,
        "streams, 100 at once, uvloop, --no-parse"
        if PLACE.broker == "redis"
        else f"200 at once, uvloop, --no-parse; quorum queue, {CONFIRMED}",
        ("taskiq", *DRIVERS[PLACE.broker]),
    )
    worker = [
        *(sys.executable, "-m", "taskiq", "worker", "benchmarks.peers.taskiq:broker", "--workers", "1"),
        *("--max-async-tasks", AT_ONCE[PLACE.broker], "--no-parse", "--log-level", "ERROR"),
    ]

    async def open(self) -> None:
        await broker.startup()

    async def send(self, kind: str) -> None:
        await TASKS[kind].kiq(jobs.X, jobs.Y)

    async def publish(self, x: float, y: float) -> str:
        return (await no_op.kiq(x, y)).task_id

    async def close(self) -> None:
        await broker.shutdown()
