"""streaq on Redis; its batch is one round trip."""

import sys
from contextlib import AsyncExitStack

from streaq import Worker

from .. import job as jobs
from ..peer import AT_LEAST_ONCE, PLACE, About, Peer

worker = Worker(redis_url=PLACE.url, queue_name=PLACE.queue, concurrency=100, prefetch=200)


@worker.task(ttl=0)
async def no_op(x: float, y: float) -> None:
    jobs.no_op(x, y)


@worker.task(ttl=0)
async def wait(x: float, y: float) -> None:
    await jobs.wait_in_a_loop(x, y)


@worker.task(ttl=0)
async def spin(x: float, y: float) -> None:
    jobs.spin(x, y)


TASKS = {"no_op": no_op, "wait": wait, "spin": spin}


class Measured(Peer):
    about = About("streaq", AT_LEAST_ONCE, "100 at once, 200 prefetched, no results", ("streaq", "coredis"))
    worker = [sys.executable.replace("python", "streaq"), "run", "benchmarks.peers.streaq:worker"]
    has_batches = True

    async def open(self) -> None:
        self.stack = AsyncExitStack()
        await self.stack.enter_async_context(worker)

    async def send(self, kind: str) -> None:
        await TASKS[kind].enqueue(jobs.X, jobs.Y)

    async def send_batch(self, kind: str, count: int) -> None:
        task = TASKS[kind]
        await worker.enqueue_many([task.enqueue(jobs.X, jobs.Y) for _ in range(count)])

    async def close(self) -> None:
        await self.stack.aclose()
