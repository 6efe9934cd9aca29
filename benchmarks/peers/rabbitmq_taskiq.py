"""taskiq on RabbitMQ, measured."""

import sys
import time

from taskiq_aio_pika import AioPikaBroker, Queue

from taskiq_measured import measure

name = f"bench-taskiq-{time.time_ns()}"
broker = AioPikaBroker(sys.argv[1], qos=200, task_queues=[Queue(name=name)])  # quorum, by default


async def clean() -> None:
    for queue in (name, f"{name}.delay", f"{name}.dead_letter"):
        await broker.write_channel.queue_delete(queue)


measure(broker, int(sys.argv[2]), at_once=200, clean=clean)
