"""Drain rate and idle latency of a taskiq broker in one worker process; prints a JSON object.

Its receiver runs in this process, as `taskiq worker` runs it, so that both sides have one clock.
"""

import asyncio
import json
import time
from collections.abc import Awaitable, Callable

from taskiq import AsyncBroker
from taskiq.receiver import Receiver


def measure(
    broker: AsyncBroker, jobs: int, *, at_once: int, clean: Callable[[], Awaitable[None]] | None = None
) -> None:
    asyncio.run(_measure(broker, jobs, at_once, clean))


async def _measure(
    broker: AsyncBroker, jobs: int, at_once: int, clean: Callable[[], Awaitable[None]] | None
) -> None:
    seen: list[float] = []

    @broker.task
    async def work(x: float, y: float) -> None:
        seen.append(time.perf_counter())

    async def drained(count: int) -> None:
        while len(seen) < count:
            await asyncio.sleep(0.001)

    await broker.startup()
    began = time.perf_counter()
    for _ in range(jobs):
        await work.kiq(1.0, 2.0)
    publish_s = time.perf_counter() - began

    broker.is_worker_process = True
    receiver = Receiver(broker, max_async_tasks=at_once)
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
    if clean is not None:
        await clean()
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
