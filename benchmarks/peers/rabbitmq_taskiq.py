"""Drain rate and idle latency of taskiq on RabbitMQ, in one worker process; prints a JSON object.

Its receiver runs in this process, as `taskiq worker` runs it, so that both sides have one clock.
"""

import asyncio
import json
import sys
import time

from taskiq.receiver import Receiver
from taskiq_aio_pika import AioPikaBroker, Queue

name = f"bench-taskiq-{time.time_ns()}"
broker = AioPikaBroker(sys.argv[1], qos=200, task_queues=[Queue(name=name)])  # quorum, by default
jobs = int(sys.argv[2])
seen: list[float] = []


@broker.task
async def work(x: float, y: float) -> None:
    seen.append(time.perf_counter())


async def drained(count: int) -> None:
    while len(seen) < count:
        await asyncio.sleep(0.001)


async def main() -> None:
    await broker.startup()
    began = time.perf_counter()
    for _ in range(jobs):
        await work.kiq(1.0, 2.0)
    publish_s = time.perf_counter() - began

    broker.is_worker_process = True
    receiver = Receiver(broker, max_async_tasks=200)
    finish = asyncio.Event()
    began = time.perf_counter()
    listening = asyncio.create_task(receiver.listen(finish))
    await drained(jobs)
    drain_s = time.perf_counter() - began

    latencies = []
    for number in range(200):
        await asyncio.sleep(0.01)
        sent = time.perf_counter()
        await work.kiq(1.0, 2.0)
        await drained(jobs + number + 1)
        latencies.append(seen[-1] - sent)
    finish.set()
    await asyncio.wait([listening], timeout=5)
    for queue in (name, f"{name}.delay", f"{name}.dead_letter"):
        await broker.write_channel.queue_delete(queue)
    await broker.shutdown()
    latencies.sort()
    print(
        json.dumps(
            {
                "publish_per_s": jobs / publish_s,
                "drain_per_s": jobs / drain_s,
                "latency_p50_ms": latencies[100] * 1000,
                "latency_p99_ms": latencies[197] * 1000,
            }
        )
    )


asyncio.run(main())
